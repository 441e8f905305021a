"""The report of ``capxai analyze correctness``: figures, a table of words, and plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capxai.evaluate.correctness import THRESHOLDS, MethodScore, Placement
from capxai.files import write_atomically, write_json_atomically
from capxai.recipes.analysis.plots import Labels, draw_bars, draw_curves
from capxai.recipes.analysis.settings import AnalysisConfig
from capxai.recipes.object_words import ObjectWord
from capxai.recipes.record import write_record
from capxai.types import JsonObject

SCHEMA = 1
REPORT_FILE = "correctness.json"
WORDS_FILE = "correctness.csv"
BARS_FILE = "correctness{}.png"
CURVES_FILE = "correctness_thresholds{}.png"
REGIONS = " (regions)"
"""What stands behind the name of a method whose regions are scored."""
REGIONAL = ("grad-cam", "attention")
"""Methods whose pixels are nothing but their regions, spread."""
BLIND = "blind relevance"
"""Name of the baseline in the plots: relevance spread evenly lies on an object as far as the object covers the picture."""


@dataclass(frozen=True)
class CorrectnessReport:
    """What was measured.

    Attributes:
        model: The model folder, or "bundled".
        corpus: Name of the corpus.
        split: The split.
        pictures: Pictures that were looked at.
        silent_pictures: Those of them about which the model says nothing.
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
    silent_pictures: int
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
            "silent_pictures": self.silent_pictures,
            "pictures_with_words": self.pictures_with_words,
            "words": len(self.words),
            "unseen_words": self.unseen_words,
            "methods": {name: score.to_json() for name, score in self.methods.items()},
            "provenance": self.provenance,
        }

    def to_csv(self) -> str:
        """Return one row for each word and method."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        plain = ("mask_share", "mask_area", "box_area", "points_at_mask", "points_at_box", "positive")
        words = ("image_id", "position", "word", "category", "caption")
        writer.writerow([*words, "method", *plain, *(f"box_share_{t:g}" for t in THRESHOLDS)])
        for name, placements in self.placements.items():
            for word, found in zip(self.words, placements, strict=True):
                cells = [_cell(value) for value in (*(getattr(found, key) for key in plain), *found.box_shares)]
                writer.writerow([*(getattr(word, key) for key in words), name, *cells])
        return text.getvalue()

    def plots(self) -> dict[str, bytes]:
        """Draw the figures: PNG files by name. Where pixels and regions of a method were scored, each level has plots of its own."""
        pixels = [name for name in self.methods if not name.endswith(REGIONS)]
        regions = [name for name in self.methods if name.endswith(REGIONS) or name in REGIONAL]
        levels = {"": pixels, "_regions": regions}
        if not any(name + REGIONS in self.methods for name in pixels):
            levels = {"": list(self.methods)}
        found = {}
        for ending, names in levels.items():
            found[BARS_FILE.format(ending)] = self._draw_shares(names)
            found[CURVES_FILE.format(ending)] = self._draw_thresholds(names)
        return found

    def _draw_shares(self, names: Sequence[str]) -> bytes:
        """Draw how much positive relevance lies in the mask, a bar for each method."""
        figures = {name: self.methods[name].figures for name in names}
        blind = next(iter(figures.values()))["mask_area"].value  # the same words, so the same for all methods
        title = f"Relevance on the object: {self._place}\ndashed: {BLIND} (area of the mask)"
        bars = {name: found["mask_share"] for name, found in figures.items()}
        return draw_bars(Labels(title, "", "share of positive relevance"), bars, blind)

    def _draw_thresholds(self, names: Sequence[str]) -> bytes:
        """Draw how much of what is kept above a threshold lies in the boxes, a line for each method."""
        curves = {name: self.methods[name].thresholds for name in names}
        curves[f"{BLIND}\n(area of the boxes)"] = (self.methods[names[0]].figures["box_area"],) * len(THRESHOLDS)
        labels = Labels(
            f"Relevance in the object's boxes: {self._place}",
            "threshold (part of the maximum of a map)",
            "share of the kept relevance",
        )
        return draw_curves(labels, THRESHOLDS, curves)

    @property
    def _place(self) -> str:
        return f"{self.corpus}, {self.split}, {len(self.words)} words"


def _cell(value: float | bool) -> str:
    return str(int(value)) if isinstance(value, bool) else f"{value:.6g}"


def write(out: Path, report: CorrectnessReport, config: AnalysisConfig) -> None:
    """Write the report, the table and the plots; the report, which marks the folder as taken, comes last.

    Raises:
        CapxaiError: A file cannot be written.
    """
    write_atomically(out / WORDS_FILE, report.to_csv())
    for name, content in report.plots().items():
        write_atomically(out / name, content)
    write_record(out, config.VERB, config)
    write_json_atomically(out / REPORT_FILE, report.to_json())
