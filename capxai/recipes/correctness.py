"""Measures whether the relevance of object words lies on the objects: the planted truth of `scenes`, or any corpus with masks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from capxai.errors import CapxaiError, ConfigError, CorpusError
from capxai.types import SILENT, JsonObject, Reporter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from capxai.data.annotations import Picture
    from capxai.data.corpus import Split
    from capxai.evaluate.correctness import MethodScore, Placement
    from capxai.evaluate.lexicon import Lexicon
    from capxai.explain.attribution import Reading
    from capxai.explain.methods import Maps
    from capxai.models.captioner import Captioner

SCHEMA = 1
REPORT_FILE = "correctness.json"
WORDS_FILE = "correctness.csv"
ALL = "all"
CONTROLS = ("random", "attention")
"""What a method must beat to be worth its name."""

Level = Literal["pixels", "regions"]


@dataclass(frozen=True)
class CorrectnessConfig:
    """Settings of ``capxai analyze correctness``.

    Attributes:
        model: Model folder; None for the bundled model.
        corpus: Corpus folder with instances; None for the built-in corpus ``scenes``.
        size: Training pictures of the built-in corpus; the other splits are parts of that.
        corpus_seed: Seed of the built-in corpus.
        split: The split whose pictures are explained.
        method: Names of the methods, or "all". Every method explains the same captions.
        level: "pixels" scores pixel relevance; "regions" scores the relevance of the regions, spread bilinearly over the pixels.
        pictures: The first so many pictures of the split.
        beam: Captions kept while searching for the model's caption.
        eps: Stabilizer of the epsilon rule of "lrp".
        seed: Seed of the bootstrap and of the method "random".
        device: Name of the device.
        out: Folder for the report; None writes nothing.
        force: Replace a report that is already there.
    """

    model: Path | None = None
    corpus: Path | None = None
    size: int = 5000
    corpus_seed: int = 0
    split: str = "test"
    method: tuple[str, ...] = (ALL,)
    level: tuple[Level, ...] = ("pixels", "regions")
    pictures: int = 200
    beam: int = 3
    eps: float = 0.01
    seed: int = 0
    device: str = "auto"
    out: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        problems = [
            f"{name} is {getattr(self, name)}. Expected 1 or more."
            for name in ("pictures", "beam")
            if getattr(self, name) < 1
        ]
        problems += [f"No {name} was named. Expected at least one." for name in ("method", "level") if not getattr(self, name)]
        if problems:
            raise ConfigError("These settings of the analysis cannot be used:\n  " + "\n  ".join(problems))


@dataclass(frozen=True)
class ObjectWord:
    """A word of a predicted caption that names an object which is there.

    Attributes:
        image_id: The picture.
        caption: The model's caption.
        position: Place of the word in the caption, from 0; of a name of two words the last one, whose logit is the first to know all of it.
        word: The word.
        category: The category that it names.
    """

    image_id: int
    caption: str
    position: int
    word: str
    category: str


@dataclass(frozen=True)
class CorrectnessReport:
    """What was measured.

    Attributes:
        model: The model folder, or "bundled".
        corpus: Name of the corpus.
        split: The split.
        pictures: Pictures that were looked at.
        pictures_with_words: Those of them whose caption names an object that is there.
        words: The words that were measured.
        unseen_words: Words that were left out, because their object is smaller than a pixel at the model's size.
        methods: Scores by method; at the level of regions the name ends in " (regions)".
        placements: By method, one for each of ``words``.
        provenance: Settings, versions and a hash of the picture list.
    """

    model: str
    corpus: str
    split: str
    pictures: int
    pictures_with_words: int
    words: tuple[ObjectWord, ...]
    unseen_words: int
    methods: dict[str, MethodScore]
    placements: dict[str, tuple[Placement, ...]]
    provenance: JsonObject

    def to_json(self) -> JsonObject:
        """Return the report as JSON, without the single words, which are in ``correctness.csv``."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "corpus": self.corpus,
            "split": self.split,
            "pictures": self.pictures,
            "pictures_with_words": self.pictures_with_words,
            "words": len(self.words),
            "unseen_words": self.unseen_words,
            "methods": {name: score.to_json() for name, score in self.methods.items()},
            "provenance": self.provenance,
        }

    def to_csv(self) -> str:
        """Return one row for each word and method."""
        from capxai.evaluate.correctness import THRESHOLDS

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        plain = ("mask_share", "mask_area", "box_area", "points_at_mask", "points_at_box", "positive")
        words = ("image_id", "position", "word", "category", "caption")
        writer.writerow([*words, "method", *plain, *(f"box_share_{t:g}" for t in THRESHOLDS)])
        for name, placements in self.placements.items():
            for word, found in zip(self.words, placements, strict=True):
                head = [getattr(word, key) for key in words]
                writer.writerow([*head, name, *(_cell(getattr(found, key)) for key in plain), *map(_cell, found.box_shares)])
        return text.getvalue()


def _cell(value: float | bool) -> str:
    return str(int(value)) if isinstance(value, bool) else f"{value:.6g}"


def run(config: CorrectnessConfig, reporter: Reporter = SILENT) -> CorrectnessReport:
    """Caption pictures, explain every true object word with every method, and compare the maps with the objects.

    Raises:
        CapxaiError: The model, the corpus or the device cannot be used, or there is a report already.
        CorpusError: The split has no instances, or no caption names an object that is there.
        RelevanceError: There is no such method, or the model cannot give it.
    """
    from capxai.evaluate.correctness import score_methods
    from capxai.evaluate.lexicon import coco_lexicon
    from capxai.models.folder import load
    from capxai.recipes.builtin_corpus import open_corpus
    from capxai.recipes.device import choose_device

    names = _methods(config.method)
    _refuse_occupied(config)
    model = load(config.model, choose_device(config.device))
    name = "bundled" if config.model is None else str(config.model)
    reporter.note(f"Model: {name}; device: {model.device}.")
    corpus = open_corpus(config.corpus, config.size, config.corpus_seed, reporter)
    split = _with_objects(corpus.split(config.split))
    pictures = split.pictures[: config.pictures]
    words: list[ObjectWord] = []
    placements: dict[str, list[Placement]] = {}
    unseen = 0
    with reporter.track("Explaining", len(pictures)) as advance:
        for picture in pictures:
            found = _measure(model, split, picture, names, config, coco_lexicon())
            words += found.words
            unseen += found.unseen
            for key, values in found.placements.items():
                placements.setdefault(key, []).extend(values)
            advance(1)
    report = CorrectnessReport(
        model=name,
        corpus=corpus.name,
        split=split.name,
        pictures=len(pictures),
        pictures_with_words=len({word.image_id for word in words}),
        words=tuple(words),
        unseen_words=unseen,
        methods=score_methods([word.image_id for word in words], placements, CONTROLS, config.seed),
        placements={key: tuple(values) for key, values in placements.items()},
        provenance=_provenance(config, model, pictures),
    )
    if config.out is not None:
        _write(config.out, report, config)
    return report


def _methods(names: Sequence[str]) -> tuple[str, ...]:
    from capxai.explain.methods import METHODS, find_method

    if ALL in names:
        return tuple(METHODS)
    for name in names:
        find_method(name)
    return tuple(dict.fromkeys(names))


def _refuse_occupied(config: CorrectnessConfig) -> None:
    """Refuse a taken folder before the work rather than after it."""
    if config.out is not None and not config.force and (config.out / REPORT_FILE).exists():
        raise CapxaiError(
            f"{config.out} already holds a report, and it was kept. Expected a folder without one. Replace it with --force, or "
            "choose another folder with --out."
        )


def _with_objects(split: Split) -> Split:
    if split.has_objects:
        return split
    raise CorpusError(
        f"The split '{split.name}' has no instance file, so nobody knows where its objects are. Expected instances with masks and "
        "boxes. Choose a corpus with instances, such as scenes or coco."
    )


class _Found(NamedTuple):
    """What one picture adds."""

    words: list[ObjectWord]
    placements: dict[str, list[Placement]]
    unseen: int


def _measure(
    model: Captioner, split: Split, picture: Picture, names: Sequence[str], config: CorrectnessConfig, lexicon: Lexicon
) -> _Found:
    from capxai.data.images import read_image
    from capxai.evaluate.correctness import place
    from capxai.explain.explainer import read
    from capxai.models.decoding import DecodingOptions, decode

    image = model.preprocessing.resize(read_image(picture.path))
    reading = _read(model, image, config.beam)
    if reading is None:
        return _Found([], {}, 0)
    words, areas, unseen = [], [], 0
    for word in _true_objects(reading, split, picture, lexicon):
        area = _areas(split, picture, word.category, model.preprocessing.image_size)
        if area is None:
            unseen += 1
            continue
        words.append(word)
        areas.append(area)
    if not words:
        return _Found([], {}, unseen)
    placements = {
        name: [place(pixels[word.position], *area) for word, area in zip(words, areas, strict=True)]
        for name, pixels in _explained(reading, names, config)
    }
    return _Found(words, placements, unseen)
