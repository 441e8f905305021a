"""Takes away what a method calls important, words of the caption or patches of the picture, and measures what the model loses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from capxai.errors import ConfigError
from capxai.recipes.analysis.settings import AnalysisConfig
from capxai.types import SILENT, JsonObject, Reporter

if TYPE_CHECKING:
    from capxai.recipes.analysis.ablation_pictures import PictureAblation
    from capxai.recipes.analysis.ablation_report import AblationReport
    from capxai.recipes.analysis.ablation_words import WordAblation
    from capxai.recipes.analysis.experiment import Experiment
    from capxai.recipes.analysis.stream import Look

PartName = Literal["words", "pictures"]


@dataclass(frozen=True)
class AblationConfig(AnalysisConfig):
    """Settings of ``capxai analyze ablation``, beside those of `AnalysisConfig`.

    Attributes:
        part: "words" deletes preceding words, "pictures" covers patches of the picture.
        first_word: The first word of a caption whose preceding words are deleted, counted from 1: "t >= 6" of the paper, so at least five
            words stand between ``<start>`` and it.
        deleted: Preceding words that are deleted, ``<start>`` never.
        control_draws: Random deletions of the same candidates, for each word; all of them where there are no more.
        patch: Side of a patch, in pixels of the model's input. Where it does not divide the picture, the last patches of rows and columns
            are smaller.
        patches: Patches that are covered with the mean color.
    """

    part: tuple[PartName, ...] = ("words", "pictures")
    first_word: int = 6
    deleted: int = 3
    control_draws: int = 20
    patch: int = 8
    patches: int = 20

    VERB: ClassVar[str] = "analyze ablation"
    REPORT: ClassVar[str] = "ablation.json"

    def problems(self) -> list[str]:
        """Return what cannot be used, one line each."""
        found = [
            f"{name} is {getattr(self, name)}. Expected 1 or more."
            for name in ("deleted", "control_draws", "patch", "patches")
            if getattr(self, name) < 1
        ]
        if self.first_word < self.deleted + 2:
            found.append(
                f"first_word is {self.first_word} and deleted is {self.deleted}. Expected a first word of {self.deleted + 2} or more, or "
                "there is nothing to choose."
            )
        return super().problems() + found + ([] if self.part else ["No part was named. Expected words or pictures."])


def run(config: AblationConfig, reporter: Reporter = SILENT) -> AblationReport:
    """Caption pictures, explain the captions with every method, and ablate.

    Raises:
        CapxaiError: The model, the corpus or the device cannot be used, or there is a report already.
        ConfigError: The settings do not fit the methods or the model.
        RelevanceError: There is no such method, or the model cannot give it.
    """
    from capxai.recipes.analysis.ablation_files import write_files
    from capxai.recipes.analysis.experiment import experiment
    from capxai.recipes.record import write_record

    with experiment(config, reporter, needs_objects=False) as found:
        words, pictures = _words(config, found), _pictures(config, found)
        methods = pictures.methods if pictures is not None else ()  # words need no way back through the encoder
        records = found.collect(_measure(found, words, pictures), methods, "Ablating")
        report = _report(found, records, words, pictures)
        if config.out is not None and found.group.main:
            write_record(config.out, config.VERB, config)
            write_files(config.out, report, config.REPORT)
            found.finish()
    return report


def _words(config: AblationConfig, found: Experiment) -> WordAblation | None:
    """Return how words are ablated; None where it was not asked for, or no method says anything about words."""
    from capxai.recipes.analysis.ablation_words import PICTURE_ONLY, WordAblation

    if "words" not in config.part:
        return None
    methods = config.methods()
    left_out = [name for name in methods if name in PICTURE_ONLY]
    kept = tuple(name for name in methods if name not in PICTURE_ONLY)
    if not kept and "pictures" not in config.part:
        raise ConfigError(
            f"None of the methods ({', '.join(methods)}) gives relevance of preceding words. Expected one that does, such as lrp. Name it "
            "with --method, or choose --part pictures."
        )
    if left_out:
        found.reporter.note(f"No relevance of preceding words, left out there: {', '.join(left_out)}.")
    ablation = WordAblation(config.first_word, config.deleted, config.control_draws, config.seed, kept)
    return ablation if kept else None


def _pictures(config: AblationConfig, found: Experiment) -> PictureAblation | None:
    """Return how pictures are ablated; None where it was not asked for. The control is always among the methods."""
    from capxai.recipes.analysis.ablation_pictures import PictureAblation
    from capxai.recipes.analysis.ablation_report import RANDOM

    if "pictures" not in config.part:
        return None
    side = found.model.preprocessing.image_size
    total = (-(-side // config.patch)) ** 2
    if config.patches >= total:
        raise ConfigError(
            f"patches is {config.patches}, but a picture of {side} x {side} pixels has {total} patches of {config.patch} x {config.patch}. "
            f"Expected fewer than that, or there is nothing to choose. Set patches or patch lower with --set."
        )
    if side % config.patch:
        found.reporter.note(
            f"{config.patch} does not divide {side} pixels: the last patches of rows and columns are {side % config.patch} pixels wide."
        )
    methods = tuple(dict.fromkeys((*config.methods(), RANDOM)))
    return PictureAblation(config.patch, config.patches, config.beam, config.seed, methods)


def _measure(
    found: Experiment, words: WordAblation | None, pictures: PictureAblation | None
) -> Callable[[Look], list[JsonObject]]:
    from capxai.recipes.analysis.mentions import mentions_of

    def measure(look: Look) -> list[JsonObject]:
        mentions = mentions_of(look, found.lexicon, found.objects)
        parts = {
            "words": None if words is None else words.of(look, mentions, found.options),
            "pictures": None if pictures is None else pictures.of(look, mentions, found.options, found.lexicon),
        }
        return [
            {name: records[row] for name, records in parts.items() if records is not None}
            for row in range(len(look.pictures))
        ]

    return measure


def _report(
    found: Experiment, records: list[JsonObject], words: WordAblation | None, pictures: PictureAblation | None
) -> AblationReport:
    from capxai.evaluate.bootstrap import draws
    from capxai.recipes.analysis.ablation_report import AblationReport, score_pictures, score_words

    weights = draws(len(records), found.config.seed)
    side = found.model.preprocessing.image_size
    return AblationReport(
        model=found.name,
        corpus=found.corpus.name,
        split=found.split.name,
        pictures=len(records),
        words=None if words is None else score_words(records, words.settings(found.config.methods()), weights),
        objects=None if pictures is None else score_pictures(records, pictures.settings(side), weights),
        records=tuple(records),
        provenance=found.provenance(),
    )
