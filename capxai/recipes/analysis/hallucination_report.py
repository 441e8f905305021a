"""The report of ``capxai analyze hallucination``: areas of all statistics, a table of words, and plots.

Axes: n words, S statistics, N pictures, D draws.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capxai.evaluate.bootstrap import Estimate, Weights
from capxai.evaluate.detection import GRID, Labels, bootstrap_roc
from capxai.files import write_atomically, write_json_atomically
from capxai.recipes.analysis.hallucination_scores import GroupScore, StatisticScore
from capxai.recipes.analysis.plots import Labels as PlotLabels
from capxai.recipes.analysis.plots import draw_bars, draw_curves, draw_distributions
from capxai.recipes.analysis.settings import AnalysisConfig
from capxai.recipes.record import write_record
from capxai.types import JsonObject

SCHEMA = 1
REPORT_FILE = "hallucination.json"
WORDS_FILE = "hallucination.csv"
ROC_FILE = "hallucination_roc.png"
POOLED_FILE = "hallucination_auc.png"
WITHIN_FILE = "hallucination_auc_within.png"
SHARES_FILE = "hallucination_distributions.png"
SHOWN = (
    "lrp pixels share",
    "lrp regions share",
    "lrp words share",
    "lrp pixels against words",
    "lrp regions against words",
    "word head context share",
    "1 - beta",
    "attention maximum",
    "probability",
)
"""Statistics whose distributions are drawn: all of them shares of something."""


@dataclass(frozen=True)
class ObjectMentions:
    """The object words of all captions, in the order of the pictures.

    Attributes:
        names: S names of statistics.
        table: (n, S) statistics.
        pictures: Number of each word's picture, from 0.
        image_ids: Id of each word's picture.
        captions: The caption that it stands in.
        positions: Place of the first word of the name, from 0.
        lasts: Place of the last word of the name.
        words: The name as it stands there.
        categories: The category that it names.
        present: Whether the picture has one.
    """

    names: tuple[str, ...]
    table: NDArray[np.float64]
    pictures: tuple[int, ...]
    image_ids: tuple[int, ...]
    captions: tuple[str, ...]
    positions: tuple[int, ...]
    lasts: tuple[int, ...]
    words: tuple[str, ...]
    categories: tuple[str, ...]
    present: tuple[bool, ...]

    @classmethod
    def of(cls, records: Sequence[JsonObject]) -> ObjectMentions:
        """Gather the words of records."""
        each = [(number, record, one) for number, record in enumerate(records) for one in record.get("mentions", ())]
        names = tuple(each[0][2]["statistics"]) if each else ()
        return cls(
            names,
            np.array([[one["statistics"][name] for name in names] for _, _, one in each], dtype=np.float64),
            tuple(number for number, _, _ in each),
            tuple(record["image_id"] for _, record, _ in each),
            tuple(record["caption"] for _, record, _ in each),
            tuple(one["position"] for _, _, one in each),
            tuple(one["last"] for _, _, one in each),
            tuple(one["word"] for _, _, one in each),
            tuple(one["category"] for _, _, one in each),
            tuple(one["present"] for _, _, one in each),
        )

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self.words)

    def to_csv(self) -> str:
        """Return one row for each word: where it stands, what it names, whether that is there, and all statistics."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        fixed = ("image_id", "caption", "position", "last", "word", "category", "present")
        writer.writerow([*fixed, *self.names])
        plain = (self.image_ids, self.captions, self.positions, self.lasts, self.words, self.categories)
        for cells, present, values in zip(zip(*plain, strict=True), self.present, self.table, strict=True):
            writer.writerow([*cells, int(present), *(f"{value:.9g}" for value in values)])
        return text.getvalue()


@dataclass(frozen=True)
class HallucinationReport:
    """What was measured.

    Attributes:
        model: The model folder, or "bundled".
        corpus: Name of the corpus.
        split: The split.
        pictures: Pictures that were looked at.
        silent_pictures: Those of them about which the model says nothing.
        words: The object words with their statistics.
        labels: Which of them are true, their pictures and categories.
        statistics: Scores by name, the largest area over all pairs first.
        groups: By method, "step" or "word head": what was fixed in advance, what is best of how many.
        weights: (D, N) draws of the pictures, the same for all figures.
        provenance: Settings, versions and a hash of the picture list.
    """

    model: str
    corpus: str
    split: str
    pictures: int
    silent_pictures: int
    words: ObjectMentions
    labels: Labels
    statistics: dict[str, StatisticScore]
    groups: dict[str, GroupScore]
    weights: Weights
    provenance: JsonObject

    @property
    def true_words(self) -> int:
        """Words that name something that is there."""
        return int(self.labels.positive.sum())

    @property
    def hallucinated_words(self) -> int:
        """Words that name something that is not there."""
        return len(self.words) - self.true_words

    @property
    def message(self) -> str:
        """Why there are no areas; "" where there are."""
        if self.true_words and self.hallucinated_words:
            return ""
        found = "No object word is true" if not self.true_words else "No object word is hallucinated"
        return (
            f"{found}, of {len(self.words)} in {self.pictures} pictures, so there is nothing to tell apart. Expected some of both: "
            "the areas are left out. Look at more pictures with --pictures 0, or choose another split or model."
        )

    @cached_property
    def curves(self) -> dict[str, list[Estimate]]:
        """ROC curves of the best statistic of each group, by its name, over the grid; empty where there are no areas."""
        best = [group.best for group in self.groups.values() if group.best is not None]
        found = {name: bootstrap_roc(self._values(name), self.labels, self.weights) for name in best}
        return {name: curve for name, curve in found.items() if curve is not None}

    def to_json(self) -> JsonObject:
        """Return the report as JSON, without the single words, which are in ``hallucination.csv``."""
        counts = {side: Counter(self._categories(side)) for side in (True, False)}
        return {
            "schema": SCHEMA,
            "model": self.model,
            "corpus": self.corpus,
            "split": self.split,
            "pictures": self.pictures,
            "silent_pictures": self.silent_pictures,
            "pictures_with_words": len(set(self.words.pictures)),
            "true_words": self.true_words,
            "hallucinated_words": self.hallucinated_words,
            "pairs": self.true_words * self.hallucinated_words,
            "pairs_within": self.labels.pairs_within,
            "message": self.message or None,
            "groups": {name: group.to_json() for name, group in self.groups.items()},
            "statistics": {name: score.to_json() for name, score in self.statistics.items()},
            "categories": {
                name: {"true": counts[True][name], "hallucinated": counts[False][name]}
                for name in sorted(set(self.words.categories))
            },
            "curves": {
                "false_positive_rate": list(GRID),
                "true_positive_rate": {
                    name: [point.to_json() for point in curve] for name, curve in self.curves.items()
                },
            },
            "provenance": self.provenance,
        }

    def draw_roc(self) -> bytes:
        """Draw the ROC curve of the best statistic of each group: a PNG file."""
        named = {
            f"{name} ({found.auc.value:.3f})": curve
            for name, curve in self.curves.items()
            for found in (self.statistics[name],)
            if found.auc is not None
        }
        labels = PlotLabels(
            f"The best statistic of each method\n{self._place}",
            "share of hallucinated words called true",
            "share of true words called true",
        )
        return draw_curves(labels, GRID, named, diagonal=True)

    def draw_areas(self, within: bool) -> bytes:
        """Draw the area of the fixed and of the best statistic of each group, a bar each: a PNG file."""
        kind = "within words" if within else "over all words"
        labels = PlotLabels(
            f"True words told from hallucinated ones, {kind}\n{self._place}", "", "area under the ROC curve"
        )
        return draw_bars(labels, self._bars(within), 0.5, alike=2)

    def draw_shares(self) -> bytes:
        """Draw distributions of shares of true and of hallucinated words: a PNG file."""
        true = self.labels.positive
        shown = {name: self._values(name) for name in SHOWN if name in self.words.names}
        pairs = {name: (values[true].tolist(), values[~true].tolist()) for name, values in shown.items()}
        return draw_distributions(PlotLabels(f"Object words: {self._place}", "", "share"), pairs)

    def _bars(self, within: bool) -> dict[str, Estimate]:
        bars: dict[str, Estimate] = {}
        for group in self.groups.values():
            best = group.best_within if within else group.best
            for name, kind in ((group.fixed, "in advance"), (best, f"best of {group.tried}")):
                area = None if name is None else self._area(name, within)
                if area is not None:
                    bars[f"{name}\n({kind})"] = area
        return bars

    def _area(self, name: str, within: bool) -> Estimate | None:
        return self.statistics[name].within if within else self.statistics[name].auc

    def _values(self, name: str) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.words.table[:, self.words.names.index(name)]
        return found

    def _categories(self, present: bool) -> list[str]:
        each = zip(self.words.categories, self.words.present, strict=True)
        return [category for category, there in each if there == present]

    @property
    def _place(self) -> str:
        return f"{self.corpus}, {self.split}: {self.true_words} true, {self.hallucinated_words} hallucinated words"


def write(out: Path, report: HallucinationReport, config: AnalysisConfig) -> None:
    """Write the report, the table and the plots; the report, which marks the folder as taken, comes last. Plots of areas need both classes.

    Raises:
        CapxaiError: A file cannot be written.
    """
    write_atomically(out / WORDS_FILE, report.words.to_csv())
    plots = _plots(report)
    for name in (ROC_FILE, POOLED_FILE, WITHIN_FILE, SHARES_FILE):
        if name in plots:
            write_atomically(out / name, plots[name])
        else:
            (out / name).unlink(missing_ok=True)  # of a report that this one replaces
    write_record(out, config.VERB, config)
    write_json_atomically(out / REPORT_FILE, report.to_json())


def _plots(report: HallucinationReport) -> Mapping[str, bytes]:
    plots = {SHARES_FILE: report.draw_shares()}
    if not report.message:
        plots |= {ROC_FILE: report.draw_roc(), POOLED_FILE: report.draw_areas(within=False)}
        if report.labels.pairs_within:
            plots[WITHIN_FILE] = report.draw_areas(within=True)
    return plots
