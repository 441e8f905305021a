"""Measures whether a word falls when what its explanation calls relevant is taken away, and rises when it is given back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from capxai.errors import CorpusError, RelevanceError
from capxai.evaluate.bootstrap import Weights, draws
from capxai.evaluate.faithfulness import WordCurves, area, resample, score_curves
from capxai.explain.methods import Maps
from capxai.recipes.analysis.experiment import Experiment, experiment
from capxai.recipes.analysis.faithfulness_pixels import PixelCurves
from capxai.recipes.analysis.faithfulness_report import (
    REPORT_FILE,
    FaithfulnessReport,
    LevelReport,
    MeasuredWord,
    write,
)
from capxai.recipes.analysis.faithfulness_words import WordCurves as PrefixCurves
from capxai.recipes.analysis.mentions import mentions_of
from capxai.recipes.analysis.settings import AnalysisConfig
from capxai.recipes.analysis.stream import RANDOM, Look
from capxai.types import SILENT, JsonObject, Reporter

Level = Literal["pixels", "words"]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class FaithfulnessConfig(AnalysisConfig):
    """Settings of ``capxai analyze faithfulness``: those of `AnalysisConfig`, and some more. The control "random" always takes part.

    Attributes:
        level: "pixels" takes blocks of pixels, before object words; "words" takes preceding words, before every word that has enough.
        block: Side of a block, in pixels of the model's input.
        steps: Steps of a curve; curves over words are read at as many places.
        preceding: Preceding words, beside ``<start>``, that a word must have.
        exact: Up to so many preceding words the control is the mean over all their subsets, which costs 2 to that power steps a caption.
        draws: Random orders of more preceding words, whose mean is the control.
    """

    level: tuple[Level, ...] = ("pixels", "words")
    block: int = 8
    steps: int = 10
    preceding: int = 4
    exact: int = 10
    draws: int = 20

    VERB: ClassVar[str] = "analyze faithfulness"
    REPORT: ClassVar[str] = REPORT_FILE

    def problems(self) -> list[str]:
        """Return what cannot be used, one line each."""
        least = {"block": 1, "steps": 1, "preceding": 1, "exact": 0, "draws": 1}
        found = super().problems() + ([] if self.level else ["No level was named. Expected at least one."])
        found += [
            f"{name} is {getattr(self, name)}. Expected {bound} or more."
            for name, bound in least.items()
            if getattr(self, name) < bound
        ]
        if self.exact > 16:
            found.append(f"exact is {self.exact}. Expected 16 or less: it costs 2 to that power steps a caption.")
        return found

    def methods(self) -> tuple[str, ...]:
        """Return the names of the methods, "all" spelled out, and the control."""
        return tuple(dict.fromkeys((*super().methods(), RANDOM)))


def run(config: FaithfulnessConfig, reporter: Reporter = SILENT) -> FaithfulnessReport:
    """Caption pictures, explain their words with every method, and follow the probability of each word along its curves.

    Raises:
        CapxaiError: The model, the corpus or the device cannot be used, or there is a report already.
        CorpusError: The split has no picture, or there is no word to measure.
        RelevanceError: There is no such method, or none that gives what is asked for.
    """
    with experiment(config, reporter, needs_objects=False) as work:
        measurement = _Measurement(work, config)
        report = _report(work, config, work.collect(measurement, config.methods()))
        if config.out is not None and work.group.main:
            write(config.out, report, config)
        work.finish()
    return report


@dataclass
class _Measurement:
    """Measures a batch of pictures.

    Attributes:
        work: The experiment.
        config: Its settings.
        known: By what is asked of a method, "pixels" or "words": the methods that give it; found out at the first word.
    """

    work: Experiment
    config: FaithfulnessConfig
    known: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __call__(self, look: Look) -> list[JsonObject]:
        """Return for each picture the measured words of each level, each with its curves by method."""
        records: list[JsonObject] = [{level: [] for level in self.config.level} for _ in look.pictures]
        for level in self.config.level:
            found = self._pixels(look) if level == "pixels" else self._words(look)
            for row, one in found:
                records[row][level].append(one)
        return records

    def _pixels(self, look: Look) -> list[tuple[int, JsonObject]]:
        config = self.config
        mentions = mentions_of(look, self.work.lexicon, self.work.objects)
        if not mentions:
            return []
        words = look.words([one.row for one in mentions], [one.place for one in mentions])
        names = self._methods(look, "pixels", lambda maps: maps.pixels is not None)
        setting = PixelCurves(config.block, config.steps, config.seed)
        curves = setting.of(look, words, names, self.work.options)
        return [
            (
                one.row,
                {
                    "position": one.place,
                    "word": one.text,
                    "category": one.category,
                    "present": one.present,
                    "methods": {name: curves[name][number].tolist() for name in names},
                },
            )
            for number, one in enumerate(mentions)
        ]

    def _words(self, look: Look) -> list[tuple[int, JsonObject]]:
        config = self.config
        setting = PrefixCurves(config.preceding, config.exact, config.draws, config.seed)
        words = setting.words(look)
        if not len(words):
            return []
        names = self._methods(look, "words", lambda maps: maps.words is not None)
        curves = setting.of(look, words, names, self.work.options)
        vocabulary = look.readings.model.vocabulary.words
        each = zip(words.rows.tolist(), words.places.tolist(), words.tokens.tolist(), curves, strict=True)
        return [
            (
                row,
                {
                    "position": place,
                    "word": vocabulary[token],
                    "methods": {name: found.tolist() for name, found in own.items()},
                },
            )
            for row, place, token, own in each
        ]

    def _methods(self, look: Look, level: str, gives: Callable[[Maps], bool]) -> tuple[str, ...]:
        """Return the methods that have relevance of a level, which the first word of the run tells."""
        if level not in self.known:
            probe = look.maps(look.words([0], [0]), self.config.methods(), self.work.options)
            self.known[level] = tuple(name for name, maps in probe if gives(maps))
            if set(self.known[level]) <= {RANDOM}:
                raise RelevanceError(
                    f"Of the methods {', '.join(self.config.methods())} only the control has relevance of {level}. Expected one more, "
                    "such as lrp. Name another --method, or leave that --level out."
                )
        return self.known[level]


def _report(work: Experiment, config: FaithfulnessConfig, records: Sequence[JsonObject]) -> FaithfulnessReport:
    weights = draws(len(records), config.seed)
    levels = {level: _level(level, config, records, weights, _places(work, config, level)) for level in config.level}
    found: dict[str, LevelReport] = {level: one for level, one in levels.items() if one is not None}
    if not found:
        raise CorpusError(
            f"No caption of the {len(records)} pictures names an object or has a word with {config.preceding} words before it, so there is "
            "nothing to measure. Expected at least one. Take more pictures, another split, or a lower --set preceding=N."
        )
    for level in levels.keys() - found.keys():
        work.reporter.warn(f"No caption has a word to measure at the level of {level}; it is left out.")
    return FaithfulnessReport(
        model=work.name,
        corpus=work.corpus.name,
        split=work.split.name,
        pictures=len(records),
        silent_pictures=sum(not record["caption"] for record in records),
        levels=found,
        provenance=work.provenance(),
    )


def _places(work: Experiment, config: FaithfulnessConfig, level: Level) -> Values:
    """Return the shares, from 0 to 1, at which curves are given: of blocks those that were taken, of words evenly spaced ones."""
    if level == "words":
        return np.linspace(0, 1, config.steps + 1)
    counts = PixelCurves(config.block, config.steps, config.seed).counts(work.model.preprocessing.image_size)
    places: Values = counts / counts[-1]
    return places


def _level(
    level: Level, config: FaithfulnessConfig, records: Sequence[JsonObject], weights: Weights, places: Values
) -> LevelReport | None:
    each = [(row, record, one) for row, record in enumerate(records) for one in record.get(level, ())]
    if not each:
        return None
    names = list(each[0][2]["methods"])
    found = {name: _curves([one["methods"][name] for _, _, one in each], level, places) for name in names}
    rows = [row for row, _, _ in each]
    return LevelReport(
        places=tuple(places.tolist()),
        pictures_with_words=len(set(rows)),
        words=tuple(_measured(record, one, found, number) for number, (_, record, one) in enumerate(each)),
        methods=score_curves(rows, found, RANDOM, weights),
    )


def _curves(curves: Sequence[Sequence[Sequence[float]]], level: Level, places: Values) -> WordCurves:
    """Read the curves of all words at common places; areas are over each word's own steps."""
    own = [np.asarray(one, dtype=np.float64) for one in curves]
    if level == "pixels":
        table = np.stack(own)
        return WordCurves(table, area(places, table))
    areas = [area(np.linspace(0, 1, one.shape[1]), one) for one in own]
    return WordCurves(np.stack([resample(one, places) for one in own]), np.stack(areas))


def _measured(record: JsonObject, one: JsonObject, found: Mapping[str, WordCurves], number: int) -> MeasuredWord:
    word = MeasuredWord(
        record["image_id"], one["position"], one["word"], one.get("category"), one.get("present"), record["caption"]
    )
    first = next(iter(one["methods"].values()))[0]  # deletion begins with everything and ends with nothing
    areas = {name: (float(curves.areas[number, 0]), float(curves.areas[number, 1])) for name, curves in found.items()}
    return replace(word, whole=first[0], empty=first[-1], areas=areas)
