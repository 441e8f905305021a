"""How well each statistic tells true words from hallucinated ones, and what choosing the best of many is worth.

A statistic that looks best among many owes part of that to luck. So each group of statistics has one that was fixed before anybody looked,
and a figure for choosing: the statistic that is best on one half of the pictures, measured on the other half.

Axes: n words, S statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capxai.evaluate.bootstrap import Estimate, Weights
from capxai.evaluate.detection import Labels, auc_within, bootstrap_auc
from capxai.types import Advance, JsonObject

STEP = "step"
"""Group of the numbers that need no explanation."""
HEAD = "word head"
"""Group of the relevance of the word head alone."""
FIXED: Mapping[str, tuple[str, ...]] = {
    STEP: ("probability",),
    HEAD: ("word head context share",),
    "attention": ("attention regions maximum", "attention pixels maximum"),
}
"""The statistic of a group that was fixed in advance, the first that is there; of methods it is the mean, of their regions if measured."""
_OF_METHODS = ("words", "bias", "eps", "pixels", "regions")


@dataclass(frozen=True)
class StatisticScore:
    """A statistic as a detector of true words.

    Attributes:
        name: The statistic.
        group: The method that it belongs to, or "step", or "word head".
        auc: Area over all pairs of a true and a hallucinated word; None where there are none.
        within: Area over the pairs that name the same category.
    """

    name: str
    group: str
    auc: Estimate | None
    within: Estimate | None

    def to_json(self) -> JsonObject:
        """Return the score as JSON."""
        return {"group": self.group, "auc": _json(self.auc), "within": _json(self.within)}


@dataclass(frozen=True)
class GroupScore:
    """The statistics of one method.

    Attributes:
        tried: How many there are.
        fixed: Name of the one that was fixed in advance.
        best: Name of the one with the largest area over all pairs; None without pairs.
        best_within: Name of the one with the largest area within words.
        chosen_auc: Area of choosing: best on one half of the pictures, measured on the other, both ways, the mean; None where a half has no
            pair.
        chosen_within: The same within words.
    """

    tried: int
    fixed: str
    best: str | None
    best_within: str | None
    chosen_auc: float | None
    chosen_within: float | None

    def to_json(self) -> JsonObject:
        """Return the score as JSON."""
        return dict(vars(self))


def group_of(name: str) -> str:
    """Return the group of a statistic: its method, "step" or "word head"."""
    first, _, rest = name.partition(" ")
    if name.startswith(f"{HEAD} "):
        return HEAD
    return first if rest.split(" ")[0] in _OF_METHODS else STEP


def score_statistics(
    names: Sequence[str], table: NDArray[np.float64], labels: Labels, weights: Weights, advance: Advance
) -> dict[str, StatisticScore]:
    """Score statistics (n, S), best over all pairs first; the same draws for all.

    Args:
        names: S names.
        table: (n, S).
        labels: Of the n words.
        weights: (D, N) draws of the pictures.
        advance: Told of every statistic that is done.
    """
    scores = []
    for name, values in zip(names, table.T, strict=True):
        areas = (bootstrap_auc(values, labels, weights, within) for within in (False, True))
        scores.append(StatisticScore(name, group_of(name), *areas))
        advance(1)
    return {score.name: score for score in sorted(scores, key=lambda score: -_value(score.auc))}


def score_groups(
    scores: Mapping[str, StatisticScore], names: Sequence[str], table: NDArray[np.float64], labels: Labels, seed: int
) -> dict[str, GroupScore]:
    """Say for every group of statistics (n, S) what was fixed, what is best, and what choosing it is worth.

    Args:
        scores: Of all statistics.
        names: S names, in the order of the table.
        table: (n, S).
        labels: Of the n words.
        seed: Of the halves.
    """
    halves = half_of_pictures(labels, seed)
    chosen = {}
    for group in dict.fromkeys(group_of(name) for name in names):
        own = [name for name in names if group_of(name) == group]
        columns = table[:, [names.index(name) for name in own]]
        chosen[group] = GroupScore(
            len(own),
            fixed_of(group, own),
            _best({name: scores[name].auc for name in own}),
            _best({name: scores[name].within for name in own}),
            held_out(columns, labels.pooled(), halves),
            held_out(columns, labels, halves),
        )
    return chosen


def fixed_of(group: str, names: Sequence[str]) -> str:
    """Return the statistic of a group that was fixed in advance."""
    wanted = FIXED.get(group, (f"{group} regions mean", f"{group} pixels mean"))
    return next(name for name in (*wanted, *names) if name in names)


def half_of_pictures(labels: Labels, seed: int) -> NDArray[np.bool_]:
    """Draw half of the pictures that have words; True for the words in them, (n,)."""
    pictures = np.unique(labels.pictures)
    drawn = np.random.default_rng(seed).permutation(pictures)[: len(pictures) // 2]
    return np.isin(labels.pictures, drawn)


def held_out(table: NDArray[np.float64], labels: Labels, half: NDArray[np.bool_]) -> float | None:
    """Choose the column with the largest area on one half of the words, measure it on the other, and average both ways.

    Returns:
        The area within the groups of the labels; None where a half has no pair.
    """
    areas = []
    for chooses in (half, ~half):
        found = [_area(column, labels, chooses) for column in table.T]
        if any(area is None for area in found):
            return None
        best = int(np.argmax(np.asarray(found, dtype=np.float64)))
        measured = _area(table[:, best], labels, ~chooses)
        if measured is None:
            return None
        areas.append(measured)
    return float(np.mean(areas))


def _area(column: NDArray[np.float64], labels: Labels, which: NDArray[np.bool_]) -> float | None:
    return auc_within(column[which], labels.positive[which], labels.groups[which])


def _best(areas: Mapping[str, Estimate | None]) -> str | None:
    there = {name: area.value for name, area in areas.items() if area is not None}
    return max(there, key=lambda name: there[name]) if there else None


def _value(area: Estimate | None) -> float:
    return -1.0 if area is None else area.value


def _json(area: Estimate | None) -> JsonObject | None:
    return None if area is None else area.to_json()
