"""What few measurements say about their mean: Student's t and the sign test, by scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


def interval_of_mean(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Return the interval of the mean of independent values, mean -+ t s / sqrt(n); None for fewer than two."""
    if len(values) < 2:
        return None
    middle, spread = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    reach = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * spread
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
    return float(2 * stats.t.sf(abs(middle) / spread, len(values) - 1))


def p_of_signs(positive: int, negative: int) -> float:
    """Return the two-sided p of the sign test: so many differences above 0 and below 0, ties left out."""
    return float(stats.binomtest(positive, positive + negative).pvalue) if positive + negative else 1.0
