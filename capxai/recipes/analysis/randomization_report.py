"""The report of ``capxai analyze randomization``: figures, a table of stages, and plots."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from capxai.evaluate.bootstrap import Estimate
from capxai.files import write_atomically, write_json_atomically
from capxai.recipes.analysis.plots import Labels, draw_bars, draw_curves
from capxai.recipes.analysis.settings import AnalysisConfig
from capxai.recipes.record import write_record
from capxai.types import JsonObject

SCHEMA = 1
REPORT_FILE = "randomization.json"
TABLE_FILE = "randomization.csv"
RANKS = ("spearman", "spearman_absolute")
"""Figures by which a method is said not to change: the rank correlation with sign and of absolute values."""
TITLES = {
    "spearman": "rank correlation (Spearman)",
    "spearman_absolute": "rank correlation of absolute values (Spearman)",
}
THINGS = {"pixels": "pixels", "regions": "regions", "words": "preceding words"}
ORIGINAL = "original"

Means = tuple[Estimate | None, ...]
"""One for each stage; None where it is undefined for all words."""


@dataclass(frozen=True)
class MethodReport:
    """How much the relevance of one method at one level keeps of what it was.

    Attributes:
        method: Its name.
        level: "pixels", "regions" or "words".
        words: The words that were compared.
        figures: By figure, the mean similarity to the original after each stage.
        undefined: Words whose rank correlation is undefined after each stage, since their relevance is the same everywhere.
    """

    method: str
    level: str
    words: int
    figures: dict[str, Means]
    undefined: tuple[int, ...]

    def highest_rank(self, stage: int) -> float:
        """Return the higher of the two rank correlations after a stage; -1 where both are undefined."""
        found = [self.figures[figure][stage] for figure in RANKS]
        return max((one.value for one in found if one is not None), default=-1.0)

    def holds(self, high: float) -> int:
        """Return for how many stages from the top on the similarity is high."""
        stages = range(len(self.undefined))
        return next((stage for stage in stages if self.highest_rank(stage) < high), len(stages))

    def to_json(self) -> JsonObject:
        """Return all figures as JSON."""
        return {
            "method": self.method,
            "level": self.level,
            "words": self.words,
            "undefined": list(self.undefined),
            **{
                figure: [None if one is None else one.to_json() for one in means]
                for figure, means in self.figures.items()
            },
        }


@dataclass(frozen=True)
class RandomizationReport:
    """What was measured.

    Attributes:
        model: The model folder, or "bundled".
        corpus: Name of the corpus.
        split: The split.
        pictures: Pictures that were looked at.
        silent_pictures: Those of them about which the model says nothing.
        words: Object words that were explained.
        stages: Names of the stages, from the word head down; each keeps those before it randomized.
        decoder_stages: How many of them, from the top, leave the encoder as it was.
        draw: How new weights were drawn.
        high: Similarity from which on a method counts as one that did not change.
        probability: Mean probability of the words, of the original and after each stage.
        methods: One for each method and level.
        provenance: Settings, versions and hashes.
    """

    model: str
    corpus: str
    split: str
    pictures: int
    silent_pictures: int
    words: int
    stages: tuple[str, ...]
    decoder_stages: int
    draw: str
    high: float
    probability: tuple[Estimate, ...]
    methods: tuple[MethodReport, ...]
    provenance: JsonObject

    def unchanged(self, stages: int) -> list[MethodReport]:
        """Return the methods whose similarity is high after so many stages, by either rank correlation."""
        return [one for one in self.methods if stages and one.highest_rank(stages - 1) >= self.high]

    def held(self, one: MethodReport) -> str:
        """Return the name of the last stage, from the top on, up to which a similarity stays high; "" where it falls at once."""
        count = one.holds(self.high)
        return self.stages[count - 1] if count else ""

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "corpus": self.corpus,
            "split": self.split,
            "pictures": self.pictures,
            "silent_pictures": self.silent_pictures,
            "words": self.words,
            "draw": self.draw,
            "high": self.high,
            "stages": list(self.stages),
            "decoder_stages": self.decoder_stages,
            "probability": [one.to_json() for one in self.probability],
            "unchanged": _named(self.unchanged(len(self.stages))),
            "unchanged_by_decoder": _named(self.unchanged(self.decoder_stages)),
            "methods": [{**one.to_json(), "high_until": self.held(one) or None} for one in self.methods],
            "provenance": self.provenance,
        }

    def to_csv(self) -> str:
        """Return one row for each stage, method, level and figure."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["stage", "name", "method", "level", "figure", "value", "low", "high", "words", "undefined"])
        writer.writerows(self._rows())
        return text.getvalue()

    def _rows(self) -> Iterator[tuple[str | int, ...]]:
        for stage, likely in enumerate(self.probability):
            name = self.stages[stage - 1] if stage else ORIGINAL
            yield (stage, name, "", "", "probability", *_cells(likely), self.words, 0)
        for one in self.methods:
            for figure, means in one.figures.items():
                for stage, (name, mean) in enumerate(zip(self.stages, means, strict=True), 1):
                    undefined = one.undefined[stage - 1]
                    yield (stage, name, one.method, one.level, figure, *_cells(mean), one.words, undefined)

    def plots(self) -> dict[str, bytes]:
        """Draw for every level both rank correlations over the stages, and bars of what is left in the end: PNG files by name."""
        places, ticks = range(len(self.stages) + 1), (ORIGINAL, *self.stages)
        drawn = {}
        for level in dict.fromkeys(one.level for one in self.methods):
            own = [one for one in self.methods if one.level == level]
            for figure in RANKS:
                curves = {one.method: [_ONE, *(mean or _GAP for mean in one.figures[figure])] for one in own}
                title = f"Relevance of {THINGS[level]} as layers are randomized: {self._place}"
                labels = Labels(title, "layers that are random: this one and all to its left", TITLES[figure])
                drawn[f"randomization_{level}_{figure}.png"] = draw_curves(labels, places, curves, ticks=ticks)
            last = {one.method: one.figures["spearman_absolute"][-1] for one in own}
            bars = {method: mean for method, mean in last.items() if mean is not None}
            if bars:
                title = f"Relevance of {THINGS[level]} with all layers random (dashed: called unchanged)"
                labels = Labels(title, "", TITLES["spearman_absolute"])
                drawn[f"randomization_{level}_end.png"] = draw_bars(labels, bars, self.high)
        return drawn

    @property
    def _place(self) -> str:
        return f"{self.corpus}, {self.split}, {self.words} words"


_ONE = Estimate(1.0, 1.0, 1.0)
_GAP = Estimate(math.nan, math.nan, math.nan)
"""What a plot leaves out."""


def _named(found: list[MethodReport]) -> list[JsonObject]:
    return [{"method": one.method, "level": one.level} for one in found]


def _cells(found: Estimate | None) -> tuple[str, str, str]:
    return ("", "", "") if found is None else (f"{found.value:.6g}", f"{found.low:.6g}", f"{found.high:.6g}")


def write(out: Path, report: RandomizationReport, config: AnalysisConfig) -> None:
    """Write the report, the table and the plots; the report, which marks the folder as taken, comes last.

    Raises:
        CapxaiError: A file cannot be written.
    """
    write_atomically(out / TABLE_FILE, report.to_csv())
    for name, picture in report.plots().items():
        write_atomically(out / name, picture)
    write_record(out, config.VERB, config)
    write_json_atomically(out / REPORT_FILE, report.to_json())
