"""The report of ``capxai analyze grounding``: thresholds, and figures of captions with and without vetoes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from capxai.config import Config
from capxai.evaluate.bootstrap import Difference, Estimate, difference, estimate
from capxai.files import write_json_atomically
from capxai.recipes.analysis.experiment import Experiment
from capxai.recipes.grounding import FEWEST, GROUNDING_FILE, Grounding
from capxai.recipes.record import write_record
from capxai.recipes.study_figures import Measured, SplitJudge
from capxai.types import JsonObject

SCHEMA = 1
REPORT_FILE = "grounding_report.json"
CAPTIONS_FILE = "captions.json"


@dataclass(frozen=True)
class GroundingReport:
    """What was calibrated and measured.

    Attributes:
        model: The model folder, or "bundled".
        corpus: Name of the corpus.
        split: The measured split.
        pictures: Pictures that were measured.
        grounding: The thresholds.
        figures: By kind of decoding ("plain", the measure, "probability", "random"), its figures; see `study_figures.FIGURES`. CHAIRi is
            left out where no object is named.
        differences: By "A - B", the paired difference of each figure.
        rates: Share of the plain captions' object words that each veto forbids; "random" forbids at the rate of the measure.
        provenance: Settings, versions and hashes.
    """

    model: str
    corpus: str
    split: str
    pictures: int
    grounding: Grounding
    figures: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, Difference]]
    rates: dict[str, float]
    provenance: JsonObject

    def rare(self) -> tuple[str, ...]:
        """Return the categories whose true mentions were too few for a threshold of their own."""
        return tuple(name for name in self.grounding.examples if name not in self.grounding.thresholds)

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "corpus": self.corpus,
            "split": self.split,
            "pictures": self.pictures,
            "grounding": self.grounding.to_json(),
            "fewest_examples": FEWEST,
            "pooled_threshold_for": list(self.rare()),
            "veto_rates": self.rates,
            "figures": {name: _plain(row) for name, row in self.figures.items()},
            "differences": {name: _plain(row) for name, row in self.differences.items()},
            "provenance": self.provenance,
        }


def _plain(row: Mapping[str, Estimate | Difference]) -> JsonObject:
    return {name: found.to_json() for name, found in row.items()}


def report_of(
    work: Experiment,
    grounding: Grounding,
    judge: SplitJudge,
    captions: Mapping[str, Mapping[int, str]],
    rates: dict[str, float],
) -> GroundingReport:
    """Measure all captions on the same draws of pictures.

    Everything is compared with what is first, plain decoding, and what is second, the veto, with the controls after it.
    """
    measured = {name: judge.measure(texts) for name, texts in captions.items()}
    figures = {
        name: {key: estimate(value, found.draws[key]) for key, value in found.values.items() if _defined(found, key)}
        for name, found in measured.items()
    }
    plain, ours, *controls = measured
    pairs = [(name, plain) for name in (ours, *controls)] + [(ours, name) for name in controls]
    differences = {f"{one} - {other}": _compare(measured[one], measured[other]) for one, other in pairs}
    return GroundingReport(
        work.name,
        work.corpus.name,
        work.split.name,
        len(work.pictures),
        grounding,
        figures,
        differences,
        rates,
        work.provenance(),
    )


def _compare(one: Measured, other: Measured) -> dict[str, Difference]:
    return {
        key: difference((value, one.draws[key]), (other.values[key], other.draws[key]))
        for key, value in one.values.items()
        if _defined(one, key) and _defined(other, key)
    }


def _defined(found: Measured, key: str) -> bool:
    """Tell whether a figure is defined: CHAIRi of captions that name no object is not."""
    return not np.isnan(found.draws[key]).all()


def write(out: Path, report: GroundingReport, captions: Mapping[str, Mapping[int, str]], config: Config) -> None:
    """Write thresholds, captions and the report, the report last."""
    write_json_atomically(out / GROUNDING_FILE, report.grounding.to_json())
    texts = {
        name: [{"image_id": number, "caption": text} for number, text in found.items()]
        for name, found in captions.items()
    }
    write_json_atomically(out / CAPTIONS_FILE, texts)
    write_record(out, "analyze grounding", config)
    write_json_atomically(out / REPORT_FILE, report.to_json())
