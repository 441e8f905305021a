"""What the most relevant region of a true word looks like, by category: nearest-centroid scores (Rocchio 1971; Snell et al. 2017).

The features of a region are standardized over the calibration words. The prototype of a category is the mean of its true words there; a
word is compared by cosine with the prototype of its own category, and with the nearest of the others. A true word of the calibration split
is compared with prototypes of other pictures, so that it never vouches for itself.

Axes: n words, C channels, Q categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capxai.types import JsonObject

Values = NDArray[np.float64]

FEWEST = 5
"""With fewer true words a category has no prototype."""
_DIGITS = 5


@dataclass(frozen=True)
class Prototypes:
    """What true words look like.

    Attributes:
        mean: (C,) mean of the regions of all calibration words.
        scale: (C,) their deviation; 1 for a channel that never varied.
        categories: Q categories that have a prototype.
        centers: (Q, C) standardized means.
    """

    mean: Values
    scale: Values
    categories: tuple[str, ...]
    centers: Values

    @classmethod
    def fit(cls, regions: Values, categories: Sequence[str], present: NDArray[np.bool_]) -> Prototypes:
        """Average the regions (n, C) of the true words of each category; five digits are kept, which a file holds exactly."""
        deviation = regions.std(0)
        mean, scale = regions.mean(0), np.where(deviation > 1e-12, deviation, 1.0)
        standardized, kinds = (regions - mean) / scale, np.asarray(categories, dtype=np.str_)
        named = [str(kind) for kind in np.unique(kinds) if int(((kinds == kind) & present).sum()) >= FEWEST]
        centers = [_short(standardized[(kinds == kind) & present].mean(0)) for kind in named]
        return cls(
            np.array(_short(mean)),
            np.array(_short(scale)),
            tuple(named),
            np.array(centers).reshape(-1, regions.shape[1]),
        )

    def scores(self, regions: Values, categories: Sequence[str]) -> Values:
        """Return the cosine with the own prototype, and its lead over the best other one, (n, 2); NaN where there is none."""
        standardized = (regions - self.mean) / self.scale
        cosines = _cosines(standardized, self.centers)  # (n, Q)
        own = np.array([self._place(category) for category in categories], dtype=np.int64)
        return _leads(cosines, own)

    def _place(self, category: str) -> int:
        return self.categories.index(category) if category in self.categories else -1

    def to_json(self) -> JsonObject:
        """Return the prototypes as JSON."""
        return {
            "mean": _short(self.mean),
            "scale": _short(self.scale),
            "centers": {name: _short(center) for name, center in zip(self.categories, self.centers, strict=True)},
        }

    @classmethod
    def from_json(cls, value: JsonObject) -> Prototypes:
        """Read what `to_json` wrote.

        Raises:
            ValueError: The lists differ in length, or a number is not finite.
            KeyError: An entry is missing.
            TypeError: An entry has the wrong kind.
            AttributeError: A table is none.
        """
        mean, scale = (np.array(value[key], dtype=np.float64) for key in ("mean", "scale"))
        centers = {str(name): np.array(center, dtype=np.float64) for name, center in value["centers"].items()}
        parts = [mean, scale, *centers.values()]
        if any(part.shape != mean.shape or part.ndim != 1 or not np.isfinite(part).all() for part in parts):
            raise ValueError("the numbers of the prototypes do not fit each other")
        return cls(mean, scale, tuple(centers), np.array(list(centers.values())).reshape(-1, len(mean)))


def calibration_scores(
    regions: Values, categories: Sequence[str], present: NDArray[np.bool_], folds: NDArray[np.int64]
) -> Values:
    """Return the scores (n, 2) of calibration words by the prototypes of the other folds; NaN where these have none."""
    kinds = np.asarray(categories, dtype=np.str_)
    found = np.full((len(kinds), 2), np.nan)
    for fold in np.unique(folds):
        inside = folds == fold
        if (~inside).any():
            others = Prototypes.fit(regions[~inside], kinds[~inside].tolist(), present[~inside])
            found[inside] = others.scores(regions[inside], kinds[inside].tolist())
    return found


def _cosines(vectors: Values, centers: Values) -> Values:
    lengths = np.linalg.norm(vectors, axis=1)[:, None] * np.linalg.norm(centers, axis=1)[None]
    products = vectors @ centers.T
    found: Values = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return found


def _leads(cosines: Values, own: NDArray[np.int64]) -> Values:
    """Return own cosine and lead of words whose own prototype has number ``own``, -1 for none."""
    count = cosines.shape[1]
    found = np.full((len(own), 2), np.nan)
    known = np.flatnonzero(own >= 0)
    if not count or not len(known):
        return found
    mine = cosines[known, own[known]]
    found[known, 0] = mine
    if count > 1:
        others = cosines[known].copy()
        others[np.arange(len(known)), own[known]] = -np.inf
        found[known, 1] = mine - others.max(1)
    return found


def _short(values: Values) -> list[float]:
    """Keep the digits that count."""
    return [float(f"{value:.{_DIGITS}g}") for value in values]
