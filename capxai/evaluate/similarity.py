"""How alike two maps of relevance are, whatever their scale.

Ranks: Spearman (1904), of the maps as they are and of their absolute values, as Adebayo et al. (2018), "Sanity Checks for Saliency Maps",
section 3, report them. Beside them the cosine, with which Sixt, Granz and Landgraf (2020) find what ignores the upper layers, and for maps
over pixels the structural similarity SSIM (Wang et al. 2004). All are 1 for equal maps. A map without any difference in it says nothing
that could be ranked: its rank correlations are undefined, NaN.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capxai.evaluate.bootstrap import Estimate, Weights, intervals_over_words

Values = NDArray[np.float64]

FIGURES = ("spearman", "spearman_absolute", "cosine")
SSIM = "ssim"
WINDOW = 11
"""Width of SSIM's Gaussian window in pixels; its standard deviation is 1.5 (Wang et al. 2004, section III.B)."""
_DEVIATION = 1.5
_K1, _K2 = 0.01, 0.03
_LEVELS = 2.0
"""Length of the range [-1, 1] to which maps are brought for SSIM."""


def average_ranks(values: ArrayLike) -> Values:
    """Rank numbers (X,) from 1; equal ones share the mean of their ranks."""
    flat = np.asarray(values).reshape(-1)
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # of each group of equal numbers
    ends = np.append(first[1:], len(flat))
    ranks = np.empty(len(flat))
    ranks[order] = np.repeat((first + 1 + ends) / 2, ends - first)
    return ranks


def correlation(first: Values, second: Values) -> float:
    """Return Pearson's correlation of two rows of numbers (X,) in [-1, 1]; NaN where one of them is constant."""
    return cosine(first - first.mean(), second - second.mean())


def cosine(first: Values, second: Values) -> float:
    """Return the cosine of two rows of numbers (X,) in [-1, 1]; NaN where one of them is all zero."""
    # Scaled first: relevance under random weights can be so large or small that its squares leave the range of numbers.
    scales = [float(np.abs(one).max(initial=0)) for one in (first, second)]
    if not all(scale > 0 for scale in scales):
        return float("nan")
    a, b = first / scales[0], second / scales[1]
    return float(np.clip(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)), -1, 1))


class Map:
    """Relevance of one word, ready to be compared several times.

    Args:
        relevance: (X,) or (H, W), with sign.
    """

    def __init__(self, relevance: ArrayLike) -> None:
        self.relevance: Values = np.asarray(relevance, dtype=np.float64)

    @cached_property
    def finite(self) -> bool:
        """Whether all values are numbers; under random weights relevance may leave their range."""
        return bool(np.isfinite(self.relevance).all())

    @cached_property
    def ranks(self) -> Values:
        """Ranks of the values with their sign, (X,)."""
        return average_ranks(self.relevance)

    @cached_property
    def absolute_ranks(self) -> Values:
        """Ranks of the absolute values, (X,)."""
        return average_ranks(np.abs(self.relevance))

    @cached_property
    def scaled(self) -> Values:
        """The map over its largest absolute value, in [-1, 1]."""
        peak = float(np.abs(self.relevance).max(initial=0))
        return self.relevance / peak if peak > 0 else np.full_like(self.relevance, np.nan)

    def similarity(self, other: Map) -> dict[str, float]:
        """Compare with another map of the same shape: the figures of `FIGURES`, and SSIM where there are two axes.

        A figure is NaN where it is undefined: ranks of a map without differences, the rest of a map of zeros, all of one with infinities.

        Raises:
            ValueError: The shapes differ.
        """
        if self.relevance.shape != other.relevance.shape:
            raise ValueError(
                f"Found maps {self.relevance.shape} and {other.relevance.shape}; expected one shape for both."
            )
        names = FIGURES if self.relevance.ndim == 1 else (*FIGURES, SSIM)
        if not (self.finite and other.finite):
            return dict.fromkeys(names, float("nan"))
        figures = [
            correlation(self.ranks, other.ranks),
            correlation(self.absolute_ranks, other.absolute_ranks),
            cosine(self.relevance.reshape(-1), other.relevance.reshape(-1)),
        ]
        if self.relevance.ndim == 2:
            figures.append(ssim(self.scaled, other.scaled))
        return dict(zip(names, figures, strict=True))


def defined_means(rows: ArrayLike, values: ArrayLike, weights: Weights) -> tuple[Estimate | None, ...]:
    """Estimate means over those words whose figure is defined, with intervals over pictures; None where none is.

    Args:
        rows: (W,) the picture of each word, a column of ``weights``.
        values: (W, P) figures, NaN where undefined.
        weights: (D, N) draws of pictures.
    """
    places, table = np.asarray(rows, dtype=np.int64), np.asarray(values, dtype=np.float64)
    found: list[Estimate | None] = []
    for column in table.T:
        there = np.isfinite(column)
        found += intervals_over_words(places[there], column[there, None], weights) if there.any() else (None,)
    return tuple(found)


def ssim(first: Values, second: Values) -> float:
    """Return the mean structural similarity of two maps (H, W) in [-1, 1]; NaN where one of them has no number in it.

    (2 mu_x mu_y + C1)(2 sigma_xy + C2) / ((mu_x^2 + mu_y^2 + C1)(sigma_x^2 + sigma_y^2 + C2)), C = (K L)^2 (Wang et al. 2004, equation 13),
    over all places where the window lies within the map; a smaller map gets a smaller window.
    """
    blur = _Blur(*first.shape)
    mean_a, mean_b = blur(first), blur(second)
    variances = blur(first**2) - mean_a**2 + blur(second**2) - mean_b**2
    covariance = blur(first * second) - mean_a * mean_b
    c1, c2 = (_K1 * _LEVELS) ** 2, (_K2 * _LEVELS) ** 2
    alike = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((alike / ((mean_a**2 + mean_b**2 + c1) * (variances + c2))).mean())


class _Blur:
    """The weighted mean around every place of a map (H, W) where the window fits: two matrix products, as the window is separable."""

    def __init__(self, height: int, width: int) -> None:
        window = min(WINDOW, height, width)
        self._down, self._across = _banded(height, window), _banded(width, window).T

    def __call__(self, values: Values) -> Values:
        blurred: Values = self._down @ values @ self._across
        return blurred


@lru_cache(maxsize=8)
def _banded(length: int, window: int) -> Values:
    """Return the matrix (length - window + 1, length) whose every row is the window, moved on by one."""
    offsets = np.arange(window) - (window - 1) / 2
    weights = np.exp(-(offsets**2) / (2 * _DEVIATION**2))
    matrix = np.zeros((length - window + 1, length))
    for place, row in enumerate(matrix):
        row[place : place + window] = weights / weights.sum()
    return matrix
