"""Precision and recall of things that a caption names or does not name, and that are there or not; macro means over them.

Axes: N pictures, Q things (categories or words), D bootstrap draws. `capxai.evaluate.objects` counts categories so,
`capxai.evaluate.frequent_objects` words.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capxai.evaluate.bootstrap import Weights, weighted_sums

Table = NDArray[np.float64]


@dataclass(frozen=True)
class PresenceScore:
    """How well one thing is named: over pictures, at least once or not.

    A share without cases (never named, never there) is None.

    Attributes:
        precision: Pictures where it is named and there / pictures where it is named.
        recall: Pictures where it is named and there / pictures where it is there.
        f1: Harmonic mean of the two; 0 where they share no picture.
        pictures: Pictures where it is there.
        mentioned: Pictures whose caption names it.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    pictures: int
    mentioned: int


@dataclass(frozen=True)
class Presence:
    """What is said and what is there.

    Attributes:
        names: (Q,) the things.
        said: (N, Q) 1 where the caption names it, else 0.
        there: (N, Q) 1 where it is there, else 0.
    """

    names: tuple[str, ...]
    said: Table
    there: Table

    @classmethod
    def of(cls, names: Sequence[str], said: Sequence[Collection[str]], there: Sequence[Collection[str]]) -> Presence:
        """Count, for each picture, the names that are said and those that are there."""
        return cls(tuple(names), mark(names, said), mark(names, there))

    @property
    def hit(self) -> Table:
        """(N, Q): 1 where it is named and there."""
        return self.said * self.there

    def macro(self, weights: Weights) -> dict[str, Table]:
        """Return ``precision``, ``recall`` and ``f1`` (D,) of the pictures as they count in each draw.

        Means over the things that are there in a draw, so that one which is nowhere changes nothing; one that is there and never named
        has precision 0.
        """
        hit, said, there = (weighted_sums(table, weights) for table in (self.hit, self.said, self.there))  # (D, Q)
        present = there > 0
        shares = {"precision": share(hit, said), "recall": share(hit, there), "f1": share(2 * hit, said + there)}
        return {name: share((values * present).sum(1), present.sum(1)) for name, values in shares.items()}

    def scores(self) -> dict[str, PresenceScore]:
        """Return the score of each thing over all pictures."""
        columns = zip(self.names, self.hit.sum(0), self.said.sum(0), self.there.sum(0), strict=True)
        return {
            name: PresenceScore(
                precision=float(hit / said) if said else None,
                recall=float(hit / there) if there else None,
                f1=float(2 * hit / (said + there)) if said + there else None,
                pictures=int(there),
                mentioned=int(said),
            )
            for name, hit, said, there in columns
        }


def mark(names: Sequence[str], found: Sequence[Collection[str]]) -> Table:
    """Return (N, Q): 1 where a name is among those found in a picture; others are passed over."""
    place = {name: number for number, name in enumerate(names)}
    table = np.zeros((len(found), len(names)))
    for row, members in enumerate(found):
        table[row, [place[name] for name in members if name in place]] = 1
    return table


def share(part: Table, whole: NDArray[np.float64] | NDArray[np.int64]) -> Table:
    """Return part / whole, 0 where the whole is 0."""
    values: Table = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return values
