"""All figures of a set of captions, with the same bootstrap draws for each.

Axes: N pictures, D draws.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from capxai.data.corpus import Split
from capxai.errors import DependencyError
from capxai.evaluate.bootstrap import Estimate, Values, Weights, estimate
from capxai.evaluate.lexicon import Lexicon
from capxai.evaluate.objects import ObjectReport, PictureTruth, Truth, score_objects
from capxai.recipes.caption_metrics import MetricOptions, caption_metrics
from capxai.recipes.evaluation_truth import named
from capxai.recipes.object_scores import score_frequent_words, unmentionable
from capxai.types import JsonObject, Reporter

if TYPE_CHECKING:
    from capxai.evaluate.frequent_objects import FrequentReport, WordList


@dataclass(frozen=True)
class Figure:
    """A figure of all pictures.

    Attributes:
        value: The figure itself.
        spread: (D,) the figure of each draw; NaN where it is not defined.
    """

    value: float
    spread: Values

    def estimate(self) -> Estimate:
        """Return the figure with its interval."""
        return estimate(self.value, self.spread)


@dataclass(frozen=True)
class ObjectQuestion:
    """What is asked about objects.

    Attributes:
        lexicon: Which words name what.
        truth: Where the objects of a picture are taken from.
        truths: The objects of each picture, in the order of the split.
        frequent: Frequent object words to measure, or None.
    """

    lexicon: Lexicon
    truth: Truth
    truths: Sequence[PictureTruth] = field(repr=False)
    frequent: WordList | None = None


@dataclass(frozen=True)
class Asked:
    """What is to be measured.

    Attributes:
        metrics: Caption metrics, of bleu, meteor, rouge-l, cider and spice.
        options: How they are computed.
        objects: What is asked about objects, or None.
        weights: (D, N) the draws.
    """

    metrics: tuple[str, ...]
    options: MetricOptions
    objects: ObjectQuestion | None
    weights: Weights = field(repr=False)


@dataclass(frozen=True)
class Scores:
    """What was measured.

    Attributes:
        figures: Each figure that is defined.
        undefined: Figures that are not, as CHAIRi of captions that name no object.
        metrics: (N,) caption metrics of each picture, by name.
        objects: The objects of the captions, or None.
        frequent: The frequent object words, or None.
        skipped: Caption metrics that did not run, and why.
        notes: What a reader should know.
        details: What else determined the figures: the tokenizer, versions of foreign parts.
    """

    figures: Mapping[str, Figure]
    undefined: tuple[str, ...] = ()
    metrics: Mapping[str, Values] = field(default_factory=dict)
    objects: ObjectReport | None = None
    frequent: FrequentReport | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    details: JsonObject = field(default_factory=dict)

    def overall(self) -> dict[str, Estimate | None]:
        """Return every figure with its interval, None for those that are not defined."""
        return {
            **{name: figure.estimate() for name, figure in self.figures.items()},
            **dict.fromkeys(self.undefined),
        }


def score(captions: Mapping[int, str], split: Split, asked: Asked, reporter: Reporter) -> Scores:
    """Measure one caption for each picture of a split.

    Args:
        captions: By image id, in the order of the split's pictures.
        split: The pictures that are measured.
        asked: What to measure.
        reporter: Where progress is shown.

    Raises:
        CorpusError: The split has not what a figure compares with.
        DependencyError: Nothing of what was asked for can run here, or the Java tokenizer cannot, which was asked for by name.
    """
    parts = [_captions(captions, split, asked, reporter)] if asked.metrics else []
    if asked.objects is not None:
        parts.append(_objects(captions, split, asked.objects, asked.weights))
    skipped = {name: reason for part in parts for name, reason in part.skipped.items()}
    if not any(part.figures for part in parts):
        reasons = "\n  ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise DependencyError(f"None of the metrics can run here:\n  {reasons}")
    return Scores(
        figures={name: figure for part in parts for name, figure in part.figures.items()},
        undefined=tuple(name for part in parts for name in part.undefined),
        metrics={name: values for part in parts for name, values in part.metrics.items()},
        objects=next((part.objects for part in parts if part.objects), None),
        frequent=next((part.frequent for part in parts if part.frequent), None),
        skipped=skipped,
        notes=tuple(note for part in parts for note in part.notes),
        details={name: value for part in parts for name, value in part.details.items()},
    )


def _captions(captions: Mapping[int, str], split: Split, asked: Asked, reporter: Reporter) -> Scores:
    """Measure the caption metrics."""
    found = caption_metrics(captions, split.captions, asked.metrics, asked.options, reporter)
    figures = {name: Figure(one.value, one.resampled(asked.weights)) for name, one in found.scores.items()}
    pictures = {name: one.per_picture for name, one in found.scores.items()}
    details: JsonObject = {"tokenizer": found.tokenizer}
    return Scores(figures, metrics=pictures, skipped=found.not_run, notes=found.notes, details=details)


def _objects(captions: Mapping[int, str], split: Split, question: ObjectQuestion, weights: Weights) -> Scores:
    """Measure objects and frequent object words."""
    lexicon = question.lexicon
    report = score_objects(captions, question.truths, lexicon, weights=weights)
    values, spreads = report.values(), report.resampled(weights)
    undefined = () if report.counts["mentions"] else ("chair_i",)
    figures = {name: Figure(values[name], spreads[name]) for name in values if name not in undefined}
    notes = [f"The lexicon: {note}" for note in lexicon.notes]
    if undefined:
        notes.append(
            "No caption names an object of the lexicon: CHAIRi is not defined, and a CHAIRs of 0 says nothing."
        )
    notes += _notes_of_truth(split, question)
    frequent = None
    if question.frequent is not None:
        frequent = score_frequent_words(list(captions.values()), split, question.frequent, weights=weights)
        drawn = frequent.resampled(weights)
        figures |= {name: Figure(found.value, drawn[name]) for name, found in frequent.overall.items()}
    details: JsonObject = {
        "lexicon_sha256": lexicon.sha256,
        "truth": question.truth,
        "objects_sha256": _hash_of_truths(question.truths),
    }
    if frequent is not None:
        details["frequent_words"] = frequent.name
    return Scores(figures, undefined, objects=report, frequent=frequent, notes=tuple(notes), details=details)


def _notes_of_truth(split: Split, question: ObjectQuestion) -> list[str]:
    """Say what the ground truth lacks."""
    notes = []
    missing = unmentionable(split, question.lexicon)
    if missing and question.truth != "references":
        notes.append(f"The lexicon has no word for {', '.join(missing)}; objects of these categories do not count.")
    bare = [truth.image_id for truth in question.truths if not truth.objects]
    if bare:
        notes.append(
            f"{len(bare):,} of {len(split):,} pictures have no object in their ground truth ({named(bare)}): whatever a caption names "
            "there counts as hallucinated."
        )
    return notes


def _hash_of_truths(truths: Sequence[PictureTruth]) -> str:
    """Return the SHA-256 of what is in the pictures, whatever their order."""
    rows = sorted((truth.image_id, sorted(truth.objects)) for truth in truths)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
