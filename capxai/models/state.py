"""What a captioner hands from one call to the next.

Axes: B batch, K regions, C encoder channels, H hidden, E embedding, V vocabulary, N heads.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """All that depends on the picture alone, computed once per picture.

    Attributes:
        features: (B, K, C) encoder output, regions in row-major order of the grid; the leaf of regional relevance.
        values: (B, K, H) or, with heads, (B, N, K, H/N): what attention sums up.
        keys: (B, K, A) or, with heads, (B, N, K, H/N): what attention compares the query with.
        summary: (B, E or H) one vector for the whole picture, an input of the first LSTM at every step.
    """

    features: Tensor
    values: Tensor
    keys: Tensor
    summary: Tensor

    def select(self, rows: Tensor) -> Memory:
        """Take the given rows of the batch, repeated where they repeat.

        Args:
            rows: (R,) int64 indices into the batch.
        """
        return replace(self, **{field.name: getattr(self, field.name).index_select(0, rows) for field in fields(self)})


@dataclass(frozen=True)
class State:
    """The recurrent state: hidden and cell vectors, one (B, H) pair for each LSTM, lowest LSTM first."""

    hidden: tuple[Tensor, ...]
    cell: tuple[Tensor, ...]

    def select(self, rows: Tensor) -> Self:
        """Take the given rows of the batch; see `Memory.select`."""
        return type(self)(
            tuple(vector.index_select(0, rows) for vector in self.hidden),
            tuple(vector.index_select(0, rows) for vector in self.cell),
        )


@dataclass(frozen=True)
class HeadInputs:
    """The two summands that the word head adds and maps to the vocabulary: (B, H) each, or (B, T, H) for all steps at once."""

    context: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class Glance:
    """One time step up to the word head: the model has looked, and has not spoken yet.

    Attributes:
        state: The state after the step.
        attention: (B, K) or (B, N, K), sums to 1 over regions.
        sentinel: (B,) weight of the sentinel (1 - weight of the picture) in [0, 1], or None where the model has none.
        head_inputs: What the word head will see.
    """

    state: State
    attention: Tensor
    sentinel: Tensor | None
    head_inputs: HeadInputs


@dataclass(frozen=True)
class Step(Glance):
    """One whole time step.

    Attributes:
        logits: (B, V).
    """

    logits: Tensor
