"""The report of ``capxai analyze detector``: areas of each group of numbers and of all together, calibration, and what an alarm finds.

Probabilities are those of being hallucinated; areas have true words as class 1 and read the probability of being true.

Axes: n words, D draws.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capxai.evaluate.bootstrap import Estimate, Weights
from capxai.evaluate.calibration import Alarm, Reliability, alarm, reliability
from capxai.evaluate.detection import GRID, bootstrap_auc, bootstrap_roc
from capxai.files import write_atomically, write_json_atomically
from capxai.recipes.analysis.detector_file import DETECTOR_FILE, Detector
from capxai.recipes.analysis.detector_fit import TOGETHER, Calibrated
from capxai.recipes.analysis.detector_words import DetectorWords
from capxai.recipes.analysis.plots import Labels as PlotLabels
from capxai.recipes.analysis.plots import draw_bars, draw_curves
from capxai.recipes.analysis.settings import AnalysisConfig
from capxai.recipes.record import write_record
from capxai.types import JsonObject

SCHEMA = 1
REPORT_FILE = "detector_report.json"
WORDS_FILE = "detector.csv"
ROC_FILE = "detector_roc.png"
AREAS_FILE = "detector_auc.png"

Values = NDArray[np.float64]


@dataclass(frozen=True)
class DetectorScore:
    """How well a detector does.

    Attributes:
        groups: The groups of numbers that it reads.
        numbers: How many numbers these are.
        l2: Strength of the penalty.
        probabilities: (n,) of the measured words.
        auc: Area over all pairs of a true and a hallucinated word; None without pairs.
        within: Area over the pairs that name the same category.
        left_out_auc: The first of both on the calibration words, each left out once.
        left_out_within: The second.
        reliability: Whether the probabilities mean what they say.
        alarm: What the threshold finds.
    """

    groups: tuple[str, ...]
    numbers: int
    l2: float
    probabilities: Values
    auc: Estimate | None
    within: Estimate | None
    left_out_auc: Estimate | None
    left_out_within: Estimate | None
    reliability: Reliability
    alarm: Alarm

    def to_json(self) -> JsonObject:
        """Return the figures on the measured split as JSON."""
        return {
            "groups": list(self.groups),
            "numbers": self.numbers,
            "l2": self.l2,
            "auc": _json(self.auc),
            "within": _json(self.within),
            "reliability": self.reliability.to_json(),
            "alarm": self.alarm.to_json(),
        }

    def left_out_json(self) -> JsonObject:
        """Return the figures of left-out calibration words as JSON."""
        return {"auc": _json(self.left_out_auc), "within": _json(self.left_out_within)}


def score(
    fitted: Calibrated,
    words: DetectorWords,
    probabilities: Values,
    seen: DetectorWords,
    weights: tuple[Weights, Weights],
) -> DetectorScore:
    """Score a detector on the measured words and on those that it was calibrated with.

    Args:
        fitted: The detector.
        words: The measured words.
        probabilities: Their probabilities, (n,).
        seen: The calibration words.
        weights: Draws of the pictures of both.
    """
    labels, known = words.labels, seen.labels
    left_out = -fitted.left_out
    return DetectorScore(
        fitted.detector.groups,
        len(fitted.detector.regression.names),
        fitted.detector.regression.l2,
        probabilities,
        bootstrap_auc(-probabilities, labels, weights[0]),
        bootstrap_auc(-probabilities, labels, weights[0], within=True),
        bootstrap_auc(left_out, known, weights[1]),
        bootstrap_auc(left_out, known, weights[1], within=True),
        reliability(probabilities, words.hallucinated),
        alarm(probabilities, words.hallucinated, fitted.detector.threshold),
    )


@dataclass(frozen=True)
class DetectorReport:
    """What was calibrated and measured.

    Attributes:
        model: The model folder, or "bundled".
        corpus: Name of the corpus.
        split: The measured split.
        words: Its object words.
        seen: Those that were calibrated on.
        detector: The detector.
        scores: By name: each group of numbers alone, the detector ("together"), and what it is compared with.
        weights: (D, N) draws of the measured pictures.
        provenance: Settings, versions and hashes.
    """

    model: str
    corpus: str
    split: str
    words: DetectorWords
    seen: DetectorWords
    detector: Detector
    scores: dict[str, DetectorScore]
    weights: Weights
    provenance: JsonObject

    @property
    def message(self) -> str:
        """Why there are no areas; "" where there are."""
        false, all_words = int(self.words.hallucinated.sum()), len(self.words)
        if 0 < false < all_words:
            return ""
        found = "No object word is hallucinated" if not false else "No object word is true"
        return (
            f"{found}, of {all_words} in {self.words.count} pictures, so there is nothing to tell apart. Expected some of both: the areas "
            "are left out. Look at more pictures with --pictures 0, or choose another split."
        )

    def to_json(self) -> JsonObject:
        """Return the report as JSON, without the single words, which are in ``detector.csv``."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "corpus": self.corpus,
            "split": self.split,
            "calibrated_on": self.provenance["calibrated_on"],
            "calibration": _counts(self.seen),
            "measured": {**_counts(self.words), "pairs_within": self.words.labels.pairs_within},
            "message": self.message or None,
            "threshold": self.detector.threshold,
            "scores": {
                name: {**found.to_json(), "left_out": found.left_out_json()} for name, found in self.scores.items()
            },
            "provenance": self.provenance,
        }

    def to_csv(self) -> str:
        """Return one row for each word: where it stands, what it names, whether that is there, its probabilities and its numbers."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        words = self.words
        fixed = ("image_id", "caption", "position", "word", "category", "present")
        writer.writerow([*fixed, *(f"hallucinated by {name}" for name in self.scores), *words.names])
        plain = zip(words.image_ids, words.captions, words.positions, words.words, words.categories, strict=True)
        chances = np.stack([found.probabilities for found in self.scores.values()], axis=1)
        for cells, present, chance, numbers in zip(plain, words.present, chances, words.table, strict=True):
            values = ("" if np.isnan(value) else f"{value:.6g}" for value in (*chance, *numbers))
            writer.writerow([*cells, int(present), *values])
        return text.getvalue()

    def draw_roc(self) -> bytes:
        """Draw the ROC curve of the detector and of each group: a PNG file."""
        named = {}
        for name, found in self.scores.items():
            curve = bootstrap_roc(-found.probabilities, self.words.labels, self.weights)
            if curve is not None and found.auc is not None and name in (TOGETHER, *found.groups):
                named[f"{name} ({found.auc.value:.3f})"] = curve
        labels = PlotLabels(
            f"Detectors of hallucinated words\n{self._place}",
            "share of hallucinated words called true",
            "share of true words called true",
        )
        return draw_curves(labels, GRID, named, diagonal=True)

    def draw_areas(self) -> bytes:
        """Draw both areas of each group, of the detector and of what it is compared with, two bars each: a PNG file."""
        bars: dict[str, Estimate] = {}
        for name, found in self.scores.items():
            for kind, area in (("all words", found.auc), ("within words", found.within)):
                if area is not None:
                    bars[f"{name}\n({kind})"] = area
        labels = PlotLabels(f"True words told from hallucinated ones\n{self._place}", "", "area under the ROC curve")
        return draw_bars(labels, bars, 0.5, alike=2)

    @property
    def _place(self) -> str:
        true, false = int(self.words.present.sum()), int(self.words.hallucinated.sum())
        return f"{self.corpus}, {self.split}, {true} true and {false} hallucinated words"


def _counts(words: DetectorWords) -> JsonObject:
    return {
        "pictures": words.count,
        "true_words": int(words.present.sum()),
        "hallucinated_words": int(words.hallucinated.sum()),
    }


def _json(area: Estimate | None) -> JsonObject | None:
    return None if area is None else area.to_json()


def write(out: Path, report: DetectorReport, config: AnalysisConfig) -> None:
    """Write the detector, the table of words, plots and the report; the report, which marks the folder as taken, comes last.

    Raises:
        CapxaiError: A file cannot be written.
    """
    write_atomically(out / WORDS_FILE, report.to_csv())
    write_json_atomically(out / DETECTOR_FILE, report.detector.to_json(), indent=1)
    plots = {} if report.message else {ROC_FILE: report.draw_roc(), AREAS_FILE: report.draw_areas()}
    for name in (ROC_FILE, AREAS_FILE):
        if name in plots:
            write_atomically(out / name, plots[name])
        else:
            (out / name).unlink(missing_ok=True)  # of a report that this one replaces
    write_record(out, config.VERB, config)
    write_json_atomically(out / REPORT_FILE, report.to_json())
