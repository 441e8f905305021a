"""What hallucinations come with: objects that they may stand in for, and objects that may have called them up.

Axes: N pictures, Q categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from capxai.evaluate.presence import Table
from capxai.types import JsonObject

PAIRS_AT_MOST = 100


@dataclass(frozen=True)
class Pair:
    """A hallucinated category and another one in the same pictures.

    Attributes:
        hallucinated: The category X that captions name although it is not there.
        other: In a confusion, a category Y that is there and that the caption leaves out; in a co-occurrence, a category Z that is there
            and that the caption names, too.
        pictures: Pictures whose caption hallucinates X and of which the other holds.
        share: These as a share of all pictures whose caption hallucinates X, in [0, 1].
        base_share: Share of all pictures of which the other holds, whatever their caption hallucinates. A pair says something where
            ``share`` is well above it: people are in every second photograph.
    """

    hallucinated: str
    other: str
    pictures: int
    share: float
    base_share: float

    def to_json(self) -> JsonObject:
        """Return the fields as a JSON object."""
        return asdict(self)


def frequent_pairs(names: Sequence[str], hallucinated: Table, other: Table) -> tuple[Pair, ...]:
    """Count the pairs.

    Args:
        names: (Q,) the categories.
        hallucinated: (N, Q) 1 where the caption names a category that is not there.
        other: (N, Q) 1 where the other thing holds of a category.

    Returns:
        At most `PAIRS_AT_MOST`, the most pictures first, then the highest share over base share, then by the alphabet.
    """
    together = hallucinated.T @ other  # (Q, Q)
    wrong, base = hallucinated.sum(0), other.sum(0) / max(1, len(other))
    pairs = [
        Pair(names[x], names[y], int(together[x, y]), float(together[x, y] / wrong[x]), float(base[y]))
        for x, y in np.argwhere(together > 0).tolist()
    ]
    pairs.sort(key=lambda pair: (-pair.pictures, -pair.share / pair.base_share, pair.hallucinated, pair.other))
    return tuple(pairs[:PAIRS_AT_MOST])
