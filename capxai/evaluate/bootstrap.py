"""Intervals by drawing pictures with replacement (Efron 1979), the same draws for every figure of a run.

Axes: D draws, N pictures. A draw is the number of times that each picture counts, so a figure of a draw is a figure of sums over
pictures: one matrix product for all draws. A corpus figure that is no mean, such as corpus BLEU, is computed afresh from
the drawn sums.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capxai.types import JsonObject

DRAWS = 1000
PERCENTILES = (2.5, 97.5)
"""Bounds of the interval: 95 % of the draws lie between them."""

BLOCK = 128
"""Draws whose weights are turned into floating point at a time, which bounds the memory: 40 MB for 40,000 pictures."""

Weights = NDArray[np.int32]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure and its bootstrap interval over pictures (95 %)."""

    value: float
    low: float
    high: float

    def to_json(self) -> JsonObject:
        """Return the three numbers as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """The difference of two figures of the same pictures.

    Attributes:
        value: First minus second, in the figure's unit.
        low: Lower bound of its paired bootstrap interval (95 %).
        high: Upper bound.
        p: Two-sided, in (0, 1]: twice the smaller share of draws that do not lie above, or do not lie below, 0.
    """

    value: float
    low: float
    high: float
    p: float

    def to_json(self) -> JsonObject:
        """Return the four numbers as a JSON object."""
        return asdict(self)


def draws(count: int, seed: int, number: int = DRAWS) -> Weights:
    """Draw ``count`` pictures with replacement, ``number`` times.

    Returns:
        (D, N) int32: how often each picture counts in each draw; every row sums to ``count``.

    Raises:
        ValueError: ``count`` or ``number`` is less than 1.
    """
    if count < 1 or number < 1:
        raise ValueError(f"Found {count} pictures and {number} draws; expected at least one of each.")
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=number)
    return drawn.astype(np.int32)


def weighted_sums(statistics: ArrayLike, weights: Weights) -> Values:
    """Sum statistics (N, ...) over the pictures of every draw; returns (D, ...) float64.

    Raises:
        ValueError: The numbers of pictures differ, or a statistic is not finite.
    """
    table = np.asarray(statistics, dtype=np.float64)
    if table.ndim < 1 or table.shape[0] != weights.shape[1]:
        raise ValueError(f"Found statistics {table.shape} and weights {weights.shape}; expected (N, ...) and (D, N).")
    if not np.isfinite(table).all():
        raise ValueError("Found a statistic that is not finite; expected numbers.")
    flat = table.reshape(table.shape[0], -1)
    blocks = [weights[first : first + BLOCK] @ flat for first in range(0, len(weights), BLOCK)]
    return np.concatenate(blocks).reshape(len(weights), *table.shape[1:])


def means(values: ArrayLike, weights: Weights) -> Values:
    """Return the mean (D,) of per-picture values (N,) in every draw."""
    mean: Values = weighted_sums(values, weights) / weights.sum(axis=1)
    return mean


def ratios(parts: ArrayLike, wholes: ArrayLike, weights: Weights) -> Values:
    """Return sum of parts / sum of wholes (D,) in every draw; NaN where the wholes sum to 0."""
    summed = weighted_sums(np.stack([np.asarray(parts), np.asarray(wholes)], axis=1), weights)  # (D, 2)
    undefined = np.full(len(summed), np.nan)
    shares: Values = np.divide(summed[:, 0], summed[:, 1], out=undefined, where=summed[:, 1] != 0)
    return shares


def estimate(value: float, spread: Values) -> Estimate:
    """Put a figure and its draws (D,) together; draws in which it is undefined (NaN) are left out.

    Raises:
        ValueError: The figure is not finite, or undefined in all draws.
    """
    defined = spread[~np.isnan(spread)]
    if not np.isfinite(value) or not defined.size:
        raise ValueError(f"Found {value} and {defined.size} defined draws; expected a number and at least one draw.")
    low, high = np.percentile(defined, PERCENTILES)
    return Estimate(float(value), float(low), float(high))


def interval_of_mean(values: ArrayLike, weights: Weights) -> Estimate:
    """Estimate the mean of per-picture values (N,)."""
    return estimate(float(np.mean(np.asarray(values, dtype=np.float64))), means(values, weights))


def interval_of_ratio(parts: ArrayLike, wholes: ArrayLike, weights: Weights) -> Estimate | None:
    """Estimate sum of parts (N,) / sum of wholes (N,); None where the wholes sum to 0."""
    whole = float(np.sum(wholes))
    if whole == 0:
        return None
    return estimate(float(np.sum(parts)) / whole, ratios(parts, wholes, weights))


def intervals_over_words(rows: ArrayLike, values: ArrayLike, weights: Weights) -> tuple[Estimate, ...]:
    """Estimate means over words, each word counting once, with intervals over the pictures that the words belong to.

    Args:
        rows: (W,) the picture of each word, a column of ``weights``.
        values: (W, P) figures of each word; each column is estimated by itself.
        weights: (D, N) draws of pictures.

    Raises:
        ValueError: There is no word, or a figure is not finite.
    """
    places, table = np.asarray(rows, dtype=np.int64), np.asarray(values, dtype=np.float64)
    sums = np.zeros((weights.shape[1], table.shape[1]))
    np.add.at(sums, places, table)
    drawn = weighted_sums(sums, weights)  # (D, P)
    counts = weighted_sums(np.bincount(places, minlength=weights.shape[1]), weights)[:, None]
    spread = np.divide(drawn, counts, out=np.full_like(drawn, np.nan), where=counts > 0)
    return tuple(estimate(float(column.mean()), spread[:, place]) for place, column in enumerate(table.T))


def difference(first: tuple[float, Values], second: tuple[float, Values]) -> Difference:
    """Compare a figure of two systems, each with its value and its draws (D,) of the SAME weights.

    The share of draws on a side counts the observed difference's own side once, (k + 1) / (D + 1), so that p is never 0 (Davison
    and Hinkley 1997, section 4.2).

    Raises:
        ValueError: The numbers of draws differ, or no draw is defined for both.
    """
    (value, spread), (other, others) = first, second
    if spread.shape != others.shape:
        raise ValueError(f"Found {spread.shape} and {others.shape} draws; expected the same ones.")
    apart = spread - others
    apart = apart[~np.isnan(apart)]
    scale = max(float(np.abs(spread[~np.isnan(spread)]).max(initial=0)), float(np.abs(value)))
    apart[np.abs(apart) <= 1e-12 * scale] = 0  # sums of the same numbers in another order differ in their last bit
    bounds = estimate(value - other, apart)
    tail = (min(int((apart <= 0).sum()), int((apart >= 0).sum())) + 1) / (len(apart) + 1)
    return Difference(bounds.value, bounds.low, bounds.high, min(1.0, 2 * tail))
