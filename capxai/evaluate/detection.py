"""How well a number tells true words from hallucinated ones: areas under ROC curves with intervals over pictures.

The area is the probability that a true word has the larger number than a hallucinated one, a tie counting one half (Mann and Whitney
1947; Hanley and McNeil 1982). Within words, only pairs that name the same category are compared, so that it cannot help to know which
words are often wrong. Nothing is turned around by looking at the answer: below 0.5, larger numbers mean hallucinated words.

Axes: n words, N pictures, D draws, G grid of a curve. True words are class 1. Every word counts once, repeated words of both classes alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capxai.evaluate.bootstrap import BLOCK, Estimate, Values, Weights, estimate, weighted_sums

GRID = tuple(step / 50 for step in range(51))
"""False positive rates at which curves are read."""


@dataclass(frozen=True)
class Labels:
    """What is known of each of n words beside its number.

    Attributes:
        positive: (n,) bool, whether the word is true.
        pictures: (n,) int64 in 0..N-1, its picture: the column of its draws. Words of a picture are drawn together.
        groups: (n,) int64, its category; words are compared within it.
    """

    positive: NDArray[np.bool_]
    pictures: NDArray[np.int64]
    groups: NDArray[np.int64]

    @classmethod
    def of(cls, positive: Sequence[bool], pictures: Sequence[int], categories: Sequence[str]) -> Labels:
        """Number the categories; pictures are columns already.

        Raises:
            ValueError: The lengths differ.
        """
        if not len(positive) == len(pictures) == len(categories):
            raise ValueError(
                f"Found {len(positive)} labels, {len(pictures)} pictures and {len(categories)} categories; expected one for each word."
            )
        groups = np.unique(np.asarray(categories, dtype=np.str_), return_inverse=True)[1]
        return cls(np.asarray(positive, bool), np.asarray(pictures, np.int64), groups.astype(np.int64).reshape(-1))

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self.positive)

    @property
    def pairs_within(self) -> int:
        """Pairs of a true and a hallucinated word of the same category."""
        counts = np.zeros((2, int(self.groups.max(initial=-1)) + 1), dtype=np.int64)
        np.add.at(counts, (self.positive.astype(np.int64), self.groups), 1)
        return int((counts[0] * counts[1]).sum())

    def pooled(self) -> Labels:
        """Return the same words, all in one group."""
        return Labels(self.positive, self.pictures, np.zeros_like(self.groups))


def roc_auc(scores: ArrayLike, positive: ArrayLike) -> float | None:
    """Return the area under the ROC curve of numbers (n,); None without a word of either class.

    Raises:
        ValueError: A number is not finite, or the lengths differ.
    """
    return auc_within(scores, positive, np.zeros(len(np.asarray(positive)), dtype=np.int64))


def auc_within(scores: ArrayLike, positive: ArrayLike, groups: ArrayLike) -> float | None:
    """Return the area within groups: over the pairs of a true and a hallucinated word of the same group, (n,) each.

    It is the mean of the areas of all groups that have both classes, weighted by their pairs; None where no group has both.

    Raises:
        ValueError: A number is not finite, or the lengths differ.
    """
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64).reshape(-1)
    truth = np.asarray(positive, dtype=bool)
    labels = Labels(truth, np.zeros(len(truth), dtype=np.int64), numbers)
    once = float(drawn_auc(scores, labels, np.ones((1, 1), dtype=np.int32))[0])
    return None if np.isnan(once) else once


def drawn_auc(scores: ArrayLike, labels: Labels, weights: Weights) -> Values:
    """Return the area within groups (D,) in every draw; NaN in draws without a pair.

    The words are sorted once. In a draw a word counts as often as its picture, so the words of the other class below it are a cumulative
    sum of weights up to its place, less the sum up to the beginning of its group.

    Args:
        scores: (n,) finite numbers.
        labels: Classes, pictures and groups of the words; `Labels.pooled` for the area over all pairs.
        weights: (D, N) from `bootstrap.draws`.

    Raises:
        ValueError: A number is not finite, the lengths differ, or a picture has no column.
    """
    values = np.asarray(scores, dtype=np.float64)
    _check(values, labels, weights)
    keys = labels.groups * (len(values) + 1) + np.unique(values, return_inverse=True)[1].reshape(
        -1
    )  # ties keep one key
    few_are_true = int(labels.positive.sum()) * 2 <= len(values)
    few = np.flatnonzero(labels.positive == few_are_true)  # the rarer class, looked up among the sorted other one
    many = np.flatnonzero(labels.positive != few_are_true)
    many = many[np.argsort(keys[many], kind="stable")]
    left, right = (np.searchsorted(keys[many], keys[few], side) for side in ("left", "right"))
    first = np.searchsorted(keys[many], labels.groups[few] * (len(values) + 1))
    true_words, false_words = (_of_groups(labels, side, weights) for side in (True, False))
    pairs = (true_words * false_words).sum(axis=1)
    smaller = np.empty(len(weights))  # pairs in which the number of the more frequent class is the smaller one
    for start in range(0, len(weights), BLOCK):
        drawn = np.ascontiguousarray(weights[start : start + BLOCK].T, dtype=np.float64)  # (N, d)
        sums = np.zeros((len(many) + 1, drawn.shape[1]))
        np.cumsum(drawn[labels.pictures[many]], axis=0, out=sums[1:])
        under = (sums[left] + sums[right]) / 2 - sums[first]
        smaller[start : start + BLOCK] = np.einsum("wd,wd->d", drawn[labels.pictures[few]], under)
    won = smaller if few_are_true else pairs - smaller
    areas: Values = np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
    return areas


def _of_groups(labels: Labels, side: bool, weights: Weights) -> Values:
    """Count the words of one class in every group of every draw, (D, groups)."""
    counts = np.zeros((weights.shape[1], int(labels.groups.max(initial=0)) + 1))
    of_side = labels.positive == side
    np.add.at(counts, (labels.pictures[of_side], labels.groups[of_side]), 1)
    return weighted_sums(counts, weights)


def bootstrap_auc(scores: ArrayLike, labels: Labels, weights: Weights, within: bool = False) -> Estimate | None:
    """Estimate the area over all pairs, or ``within`` words over the pairs of the same category, with an interval over pictures.

    Returns:
        None where there is no pair.

    Raises:
        ValueError: As `drawn_auc`.
    """
    chosen = labels if within else labels.pooled()
    value = auc_within(scores, chosen.positive, chosen.groups)
    if value is None:
        return None
    spread = drawn_auc(scores, chosen, weights)
    return None if np.isnan(spread).all() else estimate(value, spread)


def roc_curve(
    scores: ArrayLike, positive: ArrayLike, places: Sequence[float] = GRID, counts: ArrayLike | None = None
) -> Values | None:
    """Return the true positive rate (G,) at false positive rates in [0, 1]; None without a word of either class.

    A threshold calls words with at least that number true. Between two thresholds the curve is straight, where it rises upright the upper
    end counts, so that its area over a fine grid is `roc_auc`.

    Args:
        scores: (n,) finite numbers.
        positive: (n,) bool.
        places: The grid.
        counts: (n,) how often each word counts; None for once.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    times = np.ones(len(values)) if counts is None else np.asarray(counts, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    last = np.append(np.diff(values[order]) != 0, True)[: len(order)]  # a tie is passed in one step
    rates = []
    for side in (~truth, truth):
        sums = np.cumsum((times * side)[order])
        if not len(sums) or sums[-1] == 0:
            return None
        rates.append(np.concatenate([[0.0], sums[last] / sums[-1]]))
    false_rate, true_rate = rates
    grid = np.asarray(places, dtype=np.float64)
    here = np.searchsorted(false_rate, grid, side="right") - 1
    after = np.minimum(here + 1, len(false_rate) - 1)
    run = false_rate[after] - false_rate[here]
    part = np.divide(grid - false_rate[here], run, out=np.zeros_like(grid), where=run > 0)
    curve: Values = true_rate[here] + part * (true_rate[after] - true_rate[here])
    return curve


def bootstrap_roc(
    scores: ArrayLike, labels: Labels, weights: Weights, places: Sequence[float] = GRID
) -> list[Estimate] | None:
    """Estimate the ROC curve at every place of the grid, each with its own interval over pictures; None without a word of either class."""
    values = np.asarray(scores, dtype=np.float64)
    _check(values, labels, weights)
    curve = roc_curve(values, labels.positive, places)
    if curve is None:
        return None
    drawn = [roc_curve(values, labels.positive, places, row[labels.pictures]) for row in weights]
    table = np.stack([found for found in drawn if found is not None] or [curve])  # (D, G)
    return [estimate(float(value), table[:, place]) for place, value in enumerate(curve)]


def _check(values: Values, labels: Labels, weights: Weights) -> None:
    if values.ndim != 1 or len(values) != len(labels):
        raise ValueError(f"Found numbers {values.shape} and {len(labels)} labels; expected one number for each word.")
    if not np.isfinite(values).all():
        raise ValueError(f"Found {int((~np.isfinite(values)).sum())} numbers that are not finite; expected none.")
    if len(labels) and not 0 <= labels.pictures.min() <= labels.pictures.max() < weights.shape[1]:
        raise ValueError(
            f"Found pictures up to {labels.pictures.max()} and {weights.shape[1]} columns; expected a column each."
        )
