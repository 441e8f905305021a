"""Student's t distribution with whole degrees of freedom, in closed form, and what few measurements say about their mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
_HALVINGS = 200


def central_probability(t: float, freedom: int) -> float:
    """Return P(-t <= T <= t) for t >= 0 (Abramowitz and Stegun 1964, 26.7.3 for odd and 26.7.4 for even degrees of freedom).

    Raises:
        ValueError: There are no degrees of freedom.
    """
    if freedom < 1:
        raise ValueError(f"Found {freedom} degrees of freedom; expected 1 or more.")
    if math.isinf(t):
        return 1.0
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for place in range(1, freedom - odd, 2):
        total += term
        term *= (place + odd) / (place + 1 + odd) * cosine**2
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Return the t for which P(-t <= T <= t) is the confidence."""
    low, high = 0.0, 1.0
    while central_probability(high, freedom) < confidence:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if central_probability(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return high


def interval_of_mean(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Return the interval of the mean of independent values, mean -+ t s / sqrt(n); None for fewer than two."""
    if len(values) < 2:
        return None
    middle, spread = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    reach = quantile(len(values) - 1, confidence) * spread
    return middle - reach, middle + reach


def p_of_mean(values: Sequence[float]) -> float | None:
    """Return the two-sided p of the t-test that independent values have a mean of 0; None for fewer than two.

    Equal values leave no spread to judge by: p is 1 where all are 0, else 0.
    """
    if len(values) < 2:
        return None
    middle, spread = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    if spread <= 1e-12 * abs(middle):
        return 1.0 if middle == 0 else 0.0
    return max(0.0, 1 - central_probability(abs(middle) / spread, len(values) - 1))


def p_of_signs(positive: int, negative: int) -> float:
    """Return the two-sided p of the sign test: so many differences above 0 and below 0, ties left out."""
    number, fewer = positive + negative, min(positive, negative)
    tail = sum(math.comb(number, count) for count in range(fewer + 1)) / 2**number
    return min(1.0, 2 * tail)
