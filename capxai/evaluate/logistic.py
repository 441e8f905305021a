"""Plain logistic regression with an L2 penalty, on standardized numbers.

Minimized is sum_i log(1 + exp(-s_i (w x_i + b))) + l2 / 2 |w|^2 with s_i = 1 for true and -1 for false examples and x standardized by the
mean and the deviation of the examples; the intercept b is free, so that the probabilities of all examples sum to the true ones
(Hastie et al. 2009, section 4.4). The strength is chosen by the likelihood of examples that were left out.

Axes: n examples, F numbers of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capxai.types import JsonObject

Values = NDArray[np.float64]

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 5
_STEPS = 100
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Logistic:
    """A regression that has been fitted.

    Attributes:
        names: F names of the numbers.
        mean: Their means over the examples.
        scale: Their deviations over the examples; 1 for a number that never varied.
        weights: One for each standardized number.
        intercept: b.
        l2: Strength of the penalty.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    l2: float

    def log_odds(self, table: ArrayLike) -> Values:
        """Return w x + b (n,) of numbers (n, F); a NaN counts as the mean of the examples.

        Raises:
            ValueError: There are not F numbers.
        """
        values = np.asarray(table, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.names):
            raise ValueError(f"Found numbers {values.shape}; expected {len(self.names)} of each example.")
        standardized = (values - np.asarray(self.mean)) / np.asarray(self.scale)
        found: Values = np.nan_to_num(standardized, nan=0.0) @ np.asarray(self.weights) + self.intercept
        return found

    def probabilities(self, table: ArrayLike) -> Values:
        """Return the probability (n,) that an example is true."""
        return sigmoid(self.log_odds(table))

    def to_json(self) -> JsonObject:
        """Return the regression as JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, value: JsonObject) -> Logistic:
        """Read what `to_json` wrote.

        Raises:
            ValueError: The lists differ in length, or a number is not finite.
            KeyError: An entry is missing.
            TypeError: An entry has the wrong kind.
        """
        names = tuple(str(name) for name in value["names"])
        mean, scale, weights = (tuple(float(number) for number in value[key]) for key in ("mean", "scale", "weights"))
        found = cls(names, mean, scale, weights, float(value["intercept"]), float(value["l2"]))
        lists = (mean, scale, weights)
        numbers = [number for one in lists for number in one] + [found.intercept, found.l2]
        if any(len(one) != len(names) for one in lists) or not all(map(math.isfinite, numbers)):
            raise ValueError("the numbers of the regression do not fit its names")
        return found


def sigmoid(values: ArrayLike) -> Values:
    """Return 1 / (1 + exp(-x)) without overflow."""
    half = 0.5 * np.asarray(values, dtype=np.float64)
    found: Values = 0.5 * (1 + np.tanh(half))
    return found


def fit(names: Sequence[str], table: ArrayLike, positive: ArrayLike, l2: float) -> Logistic:
    """Fit a regression by Newton's method, halving steps that do not help.

    Args:
        names: F names.
        table: (n, F); a NaN counts as the mean of its column.
        positive: (n,) bool.
        l2: Strength of the penalty, above 0.

    Raises:
        ValueError: The lengths differ, an infinite number, no example of a class, or a strength that is not above 0.
    """
    values, truth = np.asarray(table, dtype=np.float64), np.asarray(positive, dtype=bool)
    _check(names, values, truth, l2)
    mean, scale = _moments(values)
    standardized = np.nan_to_num((values - mean) / scale, nan=0.0)
    solved = _newton(standardized, truth, l2)
    return Logistic(
        tuple(names), tuple(mean.tolist()), tuple(scale.tolist()), tuple(solved[:-1].tolist()), float(solved[-1]), l2
    )


def _check(names: Sequence[str], values: Values, truth: NDArray[np.bool_], l2: float) -> None:
    if values.ndim != 2 or values.shape != (len(truth), len(names)):
        raise ValueError(f"Found numbers {values.shape}; expected {(len(truth), len(names))}.")
    if np.isinf(values).any():
        raise ValueError("Found an infinite number; expected numbers.")
    if truth.all() or not truth.any():
        raise ValueError(f"Found {int(truth.sum())} true of {len(truth)} examples; expected some of both classes.")
    if not l2 > 0:
        raise ValueError(f"Found strength {l2}; expected a number above 0.")


def _moments(values: Values) -> tuple[Values, Values]:
    """Return mean and deviation of each column (F,), NaN left out; 0 and 1 where there is nothing, 1 where nothing varies."""
    there = ~np.isnan(values)
    count = np.maximum(there.sum(0), 1)
    mean = np.where(there, values, 0.0).sum(0) / count
    deviation = np.sqrt((np.where(there, values - mean, 0.0) ** 2).sum(0) / count)
    small = deviation <= 1e-12 * np.maximum(1.0, np.abs(mean))
    return mean, np.where(small, 1.0, deviation)


def _newton(standardized: Values, truth: NDArray[np.bool_], l2: float) -> Values:
    """Return the weights and the intercept, (F + 1,)."""
    design = np.column_stack([standardized, np.ones(len(truth))])
    penalty = np.full(design.shape[1], l2)
    penalty[-1] = 0.0
    signs = np.where(truth, 1.0, -1.0)

    def loss(at: Values) -> float:
        return float(np.logaddexp(0, -signs * (design @ at)).sum() + 0.5 * (penalty * at * at).sum())

    at = np.zeros(design.shape[1])
    before = loss(at)
    for _ in range(_STEPS):
        chance = sigmoid(design @ at)
        slope = design.T @ (chance - truth) + penalty * at
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(penalty)
        curvature[-1, -1] += 1e-12  # the intercept has no penalty: all chances may be 0 or 1 in a rounding
        step = np.linalg.solve(curvature, slope)
        size = 1.0
        while (after := loss(at - size * step)) > before and size > 1e-10:
            size /= 2
        if after > before:
            break
        at = at - size * step
        if before - after <= _TOLERANCE * max(1.0, before):
            break
        before = after
    return at


@dataclass(frozen=True)
class Chosen:
    """A regression whose strength was chosen by cross-validation.

    Attributes:
        model: Fitted to all examples with the chosen strength.
        left_out: (n,) log odds of every example by the regressions that had not seen it.
        losses: Mean negative log-likelihood of left-out examples by strength.
    """

    model: Logistic
    left_out: Values
    losses: dict[float, float]


def fit_chosen(
    names: Sequence[str],
    table: ArrayLike,
    positive: ArrayLike,
    folds: NDArray[np.int64],
    strengths: Sequence[float] = STRENGTHS,
) -> Chosen:
    """Choose the strength by cross-validation, and fit all examples with it.

    Args:
        names: F names.
        table: (n, F).
        positive: (n,) bool.
        folds: (n,) the part that each example is left out with.
        strengths: What to choose from; of equal ones the strongest.

    Raises:
        ValueError: As `fit`; also where an example's fold is all that there is of a class.
    """
    values, truth = np.asarray(table, dtype=np.float64), np.asarray(positive, dtype=bool)
    found = {l2: _left_out(names, values, truth, folds, l2) for l2 in strengths}
    signs = np.where(truth, 1.0, -1.0)
    losses = {l2: float(np.logaddexp(0, -signs * odds).mean()) for l2, odds in found.items()}
    best = min(losses, key=lambda l2: (losses[l2], -l2))
    return Chosen(fit(names, values, truth, best), found[best], losses)


def _left_out(
    names: Sequence[str], values: Values, truth: NDArray[np.bool_], folds: NDArray[np.int64], l2: float
) -> Values:
    odds = np.zeros(len(truth))
    for fold in np.unique(folds):
        inside = folds == fold
        odds[inside] = fit(names, values[~inside], truth[~inside], l2).log_odds(values[inside])
    return odds


def picture_folds(pictures: NDArray[np.int64], seed: int, folds: int = FOLDS) -> NDArray[np.int64]:
    """Deal pictures into folds at random; words of a picture stay together. Returns (n,) int64 in [0, folds)."""
    each, place = np.unique(pictures, return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(len(each)) % folds
    found: NDArray[np.int64] = dealt[place].astype(np.int64)
    return found
