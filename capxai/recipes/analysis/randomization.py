"""Measures whether explanations change when the layers of the model are randomized: the sanity check of Adebayo et al. (2018)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from capxai.errors import CorpusError, RelevanceError
from capxai.evaluate.bootstrap import Weights, draws, intervals_over_words
from capxai.evaluate.similarity import Map, defined_means
from capxai.explain.methods import Maps
from capxai.models.captioner import Captioner
from capxai.recipes.analysis.experiment import Experiment, experiment
from capxai.recipes.analysis.mentions import Mentioned, mentions_of
from capxai.recipes.analysis.prefixes import Prefix, probabilities
from capxai.recipes.analysis.randomization_cascade import Cascade, Draw, Stage
from capxai.recipes.analysis.randomization_report import REPORT_FILE, MethodReport, RandomizationReport, write
from capxai.recipes.analysis.settings import ALL, AnalysisConfig
from capxai.recipes.analysis.stream import RANDOM, Look
from capxai.types import SILENT, JsonObject, Reporter

Level = Literal["pixels", "regions", "words"]
Values = NDArray[np.float64]
FEW = 50
"""Pictures where nobody says how many: every one is explained again after each stage."""


@dataclass(frozen=True)
class RandomizationConfig(AnalysisConfig):
    """Settings of ``capxai analyze randomization``: those of `AnalysisConfig`, and some more.

    "all" leaves out the control "random", which asks the model nothing and so never changes.

    Attributes:
        pictures: The first so many pictures of the split; 0 takes all.
        level: Which relevance of the object words is compared: of pixels, of regions, of preceding words.
        preceding: Preceding words, beside ``<start>``, that a word must have for these to be ranked.
        draw: "permute" shuffles the entries of each tensor; "fresh" initializes anew by the layers' own rules.
        high: Similarity from which on a method counts as one that did not change.
    """

    pictures: int = FEW
    level: tuple[Level, ...] = ("pixels", "regions", "words")
    preceding: int = 4
    draw: Draw = "permute"
    high: float = 0.5

    VERB: ClassVar[str] = "analyze randomization"
    REPORT: ClassVar[str] = REPORT_FILE

    def problems(self) -> list[str]:
        """Return what cannot be used, one line each."""
        found = super().problems() + ([] if self.level else ["No level was named. Expected at least one."])
        if self.preceding < 2:
            found.append(f"preceding is {self.preceding}. Expected 2 or more: a single word has no rank.")
        if not 0 < self.high <= 1:
            found.append(f"high is {self.high:g}. Expected more than 0 and at most 1.")
        return found

    def methods(self) -> tuple[str, ...]:
        """Return the names of the methods; "all" means all but the control."""
        names = super().methods()
        return tuple(name for name in names if name != RANDOM) if ALL in self.method else names


def run(config: RandomizationConfig, reporter: Reporter = SILENT) -> RandomizationReport:
    """Explain object words, randomize the model stage by stage, explain them again after each, and compare.

    Raises:
        CapxaiError: The model, the corpus or the device cannot be used, or there is a report already.
        CorpusError: The split has no picture, or no caption names an object.
        RelevanceError: There is no such method, or none that gives what is asked for.
    """
    with experiment(config, reporter, needs_objects=False) as work:
        cascade = Cascade(work.model, config.draw, config.seed)
        measurement = _Measurement(work, config, cascade)
        report = _report(work, config, cascade.stages, work.collect(measurement, config.methods()))
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
        cascade: The model, stage by stage.
        known: By method, the levels that it gives; found out at the first word.
    """

    work: Experiment
    config: RandomizationConfig
    cascade: Cascade
    known: dict[str, tuple[Level, ...]] = field(default_factory=dict)

    def __call__(self, look: Look) -> list[JsonObject]:
        """Return for each picture its object words: their probability and the similarity of their relevance after every stage."""
        records: list[JsonObject] = [{"words": []} for _ in look.pictures]
        mentions = mentions_of(look, self.work.lexicon, self.work.objects)
        if not mentions:
            return records
        found: list[JsonObject] = [
            {
                "position": one.place,
                "word": one.text,
                "category": one.category,
                "present": one.present,
                "probability": [],
                "similarity": {name: {} for name in self._levels(look)},
            }
            for one in mentions
        ]
        before = {(name, level): maps for name, level, maps in self._maps(look, mentions)}
        self._note_probabilities(look, mentions, found)
        for stage, model in self.cascade.models():
            own = _looking(look, stage, model)
            self._note_probabilities(own, mentions, found)
            for name, level, maps in self._maps(own, mentions):
                _note_similarities(found, (name, level), before[name, level], maps)
        for mention, one in zip(mentions, found, strict=True):
            records[mention.row]["words"].append(one)
        return records

    def _levels(self, look: Look) -> dict[str, tuple[Level, ...]]:
        """Return what the methods give, of what is asked for; the first word of the run tells."""
        if not self.known:
            for name, maps in look.maps(look.words([0], [0]), self.config.methods(), self.work.options):
                levels = tuple(level for level in self.config.level if _of_level(maps, level) is not None)
                if levels:
                    self.known[name] = levels
            if not self.known:
                raise RelevanceError(
                    f"None of the methods {', '.join(self.config.methods())} has relevance of {', '.join(self.config.level)}. Expected one "
                    "that does, such as lrp. Name another --method or --level."
                )
        return self.known

    def _maps(self, look: Look, mentions: Sequence[Mentioned]) -> Iterator[tuple[str, Level, list[Map | None]]]:
        """Yield for each method and level the relevance of every word; None where a word has too few before it."""
        words = look.words([one.row for one in mentions], [one.place for one in mentions])
        levels = self._levels(look)
        for name, maps in look.maps(words, tuple(levels), self.work.options):
            for level in levels[name]:
                values = _of_level(maps, level)
                assert values is not None
                yield name, level, [self._cut(one, level, at) for one, at in zip(values, mentions, strict=True)]

    def _cut(self, relevance: Values, level: Level, mention: Mentioned) -> Map | None:
        """Return what of a word's relevance is compared: of preceding words, those before it without ``<start>``."""
        if level != "words":
            return Map(relevance)
        return Map(relevance[1 : mention.place + 1]) if mention.place >= self.config.preceding else None

    def _note_probabilities(self, look: Look, mentions: Sequence[Mentioned], found: Sequence[JsonObject]) -> None:
        """Add the probability of every word, as the model is now."""
        readings = look.readings
        inputs, tokens = readings.inputs.tolist(), readings.tokens.tolist()
        prefixes = [
            Prefix(one.row, tuple(inputs[one.row][: one.place + 1]), tokens[one.row][one.place]) for one in mentions
        ]
        with torch.no_grad():
            memory = readings.model.remember(readings.features)
        for one, likely in zip(found, probabilities(readings.model, memory, prefixes), strict=True):
            one["probability"].append(likely)


def _of_level(maps: Maps, level: Level) -> Values | None:
    tensor = {"pixels": maps.pixels, "regions": maps.regions, "words": maps.words}[level]
    return None if tensor is None else tensor.detach().double().cpu().numpy()


def _looking(look: Look, stage: Stage, model: Captioner) -> Look:
    """Let another model read the same captions. While its encoder is the original one, so are features and tape."""
    if not stage.encoder:
        return replace(look, readings=replace(look.readings, model=model))
    assert look.readings.images is not None
    with torch.no_grad():
        features = model.features(look.readings.images)
    return replace(look, readings=replace(look.readings, model=model, features=features, tape=None))


def _note_similarities(
    found: Sequence[JsonObject], key: tuple[str, Level], before: Sequence[Map | None], after: Sequence[Map | None]
) -> None:
    """Add to every word the similarity of its relevance to what it was; None where it is undefined."""
    name, level = key
    for one, old, new in zip(found, before, after, strict=True):
        if old is None or new is None:
            continue
        figures = one["similarity"][name].setdefault(level, {})
        for figure, value in old.similarity(new).items():
            figures.setdefault(figure, []).append(None if math.isnan(value) else value)


def _report(
    work: Experiment, config: RandomizationConfig, stages: Sequence[Stage], records: Sequence[JsonObject]
) -> RandomizationReport:
    words = [(row, one) for row, record in enumerate(records) for one in record.get("words", ())]
    if not words:
        raise CorpusError(
            f"No caption of the {len(records)} pictures names an object, so there is nothing to compare. Expected at least one. Take more "
            "pictures, or another split."
        )
    weights = draws(len(records), config.seed)
    likely = [one["probability"] for _, one in words]
    return RandomizationReport(
        model=work.name,
        corpus=work.corpus.name,
        split=work.split.name,
        pictures=len(records),
        silent_pictures=sum(not record["caption"] for record in records),
        words=len(words),
        stages=tuple(stage.name for stage in stages),
        decoder_stages=sum(not stage.encoder for stage in stages),
        draw=config.draw,
        high=config.high,
        probability=intervals_over_words([row for row, _ in words], likely, weights),
        methods=_methods(words, weights),
        provenance=work.provenance(),
    )


def _methods(words: Sequence[tuple[int, JsonObject]], weights: Weights) -> tuple[MethodReport, ...]:
    """Average the similarities of every method and level over the words that have it."""
    found = []
    for name in words[0][1]["similarity"]:
        levels = dict.fromkeys(level for _, one in words for level in one["similarity"][name])
        for level in levels:
            own = [(row, one["similarity"][name][level]) for row, one in words if level in one["similarity"][name]]
            rows = [row for row, _ in own]
            tables = {figure: _table([figures[figure] for _, figures in own]) for figure in own[0][1]}
            found.append(
                MethodReport(
                    method=name,
                    level=level,
                    words=len(own),
                    figures={figure: defined_means(rows, table, weights) for figure, table in tables.items()},
                    undefined=tuple(np.isnan(tables["spearman"]).sum(0).tolist()),
                )
            )
    return tuple(found)


def _table(values: Sequence[Sequence[float | None]]) -> Values:
    return np.array([[math.nan if one is None else one for one in row] for row in values], dtype=np.float64)
