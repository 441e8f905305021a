"""The report of ``capxai analyze faithfulness``: figures, a table of words, and plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from capxai.evaluate.faithfulness import CurveScore
from capxai.files import write_atomically, write_json_atomically
from capxai.recipes.analysis.plots import Labels, draw_bars, draw_curves
from capxai.recipes.analysis.settings import AnalysisConfig
from capxai.recipes.analysis.stream import RANDOM
from capxai.recipes.record import write_record
from capxai.types import JsonObject

SCHEMA = 1
REPORT_FILE = "faithfulness.json"
WORDS_FILE = "faithfulness.csv"
KINDS = {"deletion": "removed", "insertion": "inserted"}
THINGS = {"pixels": "blocks of pixels", "words": "preceding words"}
BETTER = {"deletion": "lower is better", "insertion": "higher is better"}


@dataclass(frozen=True)
class MeasuredWord:
    """A word whose curves were followed.

    Attributes:
        image_id: The picture.
        position: Place of the word in the caption, from 0; of a name of several words, the first.
        word: The word, or the whole name.
        category: The category that it names; None at the level of words.
        present: Whether the picture has one; None at the level of words.
        caption: The caption.
        whole: Probability of the word with the whole picture and prefix.
        empty: Probability with nothing of the picture, or nothing but ``<start>``.
        areas: By method, under its curves of deletion and insertion.
    """

    image_id: int
    position: int
    word: str
    category: str | None
    present: bool | None
    caption: str
    whole: float = 0.0
    empty: float = 0.0
    areas: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class LevelReport:
    """What was measured by pixels or by words.

    Attributes:
        places: Shares of blocks or words, from 0 to 1, at which the curves are given.
        pictures_with_words: Pictures that have a measured word.
        words: The words.
        methods: Scores by method.
    """

    places: tuple[float, ...]
    pictures_with_words: int
    words: tuple[MeasuredWord, ...]
    methods: dict[str, CurveScore]

    def to_json(self) -> JsonObject:
        """Return the figures as JSON, without the single words."""
        count = len(self.words)
        return {
            "words": count,
            "pictures_with_words": self.pictures_with_words,
            "mean_probability_whole": sum(one.whole for one in self.words) / count,
            "mean_probability_empty": sum(one.empty for one in self.words) / count,
            "places": list(self.places),
            "methods": {name: score.to_json() for name, score in self.methods.items()},
        }


@dataclass(frozen=True)
class FaithfulnessReport:
    """What was measured.

    Attributes:
        model: The model folder, or "bundled".
        corpus: Name of the corpus.
        split: The split.
        pictures: Pictures that were looked at.
        silent_pictures: Those of them about which the model says nothing.
        levels: By level, "pixels" and "words".
        provenance: Settings, versions and hashes.
    """

    model: str
    corpus: str
    split: str
    pictures: int
    silent_pictures: int
    levels: dict[str, LevelReport]
    provenance: JsonObject

    def to_json(self) -> JsonObject:
        """Return the report as JSON, without the single words, which are in ``faithfulness.csv``."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "corpus": self.corpus,
            "split": self.split,
            "pictures": self.pictures,
            "silent_pictures": self.silent_pictures,
            "levels": {name: level.to_json() for name, level in self.levels.items()},
            "provenance": self.provenance,
        }

    def to_csv(self) -> str:
        """Return one row for each word and method."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        own = ("image_id", "position", "word", "category", "present", "caption", "whole", "empty")
        writer.writerow(["level", *own, "method", "deletion_area", "insertion_area"])
        for name, level in self.levels.items():
            for one in level.words:
                for method, areas in one.areas.items():
                    cells = (*(getattr(one, key) for key in own), method, *areas)
                    writer.writerow([name, *map(_cell, cells)])
        return text.getvalue()

    def plots(self) -> dict[str, bytes]:
        """Draw curves of every level, and bars of their areas: PNG files by name."""
        drawn = {}
        for name, level in self.levels.items():
            for kind, done in KINDS.items():
                title = f"{kind.capitalize()} of {THINGS[name]}: {self._place(level)} ({BETTER[kind]})"
                curves = {method: getattr(score, kind) for method, score in level.methods.items()}
                labels = Labels(title, f"share of {THINGS[name]} that is {done}", "probability of the word")
                drawn[f"faithfulness_{name}_{kind}.png"] = draw_curves(labels, level.places, curves)
                areas = {method: getattr(score, f"{kind}_area") for method, score in level.methods.items()}
                title = f"{kind.capitalize()} of {THINGS[name]}, {BETTER[kind]} (dashed: {RANDOM})"
                bars = draw_bars(Labels(title, "", "area under the curve"), areas, areas[RANDOM].value)
                drawn[f"faithfulness_{name}_{kind}_area.png"] = bars
        return drawn

    def _place(self, level: LevelReport) -> str:
        return f"{self.corpus}, {self.split}, {len(level.words)} words"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def write(out: Path, report: FaithfulnessReport, config: AnalysisConfig) -> None:
    """Write the report, the table and the plots; the report, which marks the folder as taken, comes last.

    Raises:
        CapxaiError: A file cannot be written.
    """
    write_atomically(out / WORDS_FILE, report.to_csv())
    for name, picture in report.plots().items():
        write_atomically(out / name, picture)
    write_record(out, config.VERB, config)
    write_json_atomically(out / REPORT_FILE, report.to_json())
