"""What objectives of fine-tuning read: captions, tables of captions, and chance that does not depend on how a batch is shared.

Axes: B rows of a share, T words of the longest caption, N pictures, M captions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Drawn(Protocol):
    """The batch of all processes: pictures, each with one of its references."""

    @property
    def rows(self) -> Tensor:
        """Which pictures, int64 on the CPU."""

    @property
    def captions(self) -> Tensor:
        """Which reference of each, int64 on the CPU."""


class Captions(Protocol):
    """The share of a batch that is computed at once."""

    @property
    def rows(self) -> Tensor:
        """Which pictures, (B,) int64."""

    @property
    def inputs(self) -> Tensor:
        """What is read, (B, T) int64: ``<start>`` and the words."""

    @property
    def targets(self) -> Tensor:
        """What is to be said, (B, T) int64: the words and ``<end>``, then ``<pad>``."""

    @property
    def first(self) -> int:
        """Place of the first row in the whole batch."""

    @property
    def whole(self) -> Drawn:
        """The batch of all processes."""


class CaptionTable(Protocol):
    """Captions of N pictures, one after the other, with a number for each word."""

    @property
    def first(self) -> Tensor:
        """(N + 1,) int64; the captions of picture n are first[n] to first[n + 1]."""

    def targets(self, captions: Tensor, longest: int | None = None) -> Tensor:
        """Return the numbers of captions (B,) as (B, T), T being ``longest`` or the longest of them."""


@dataclass(frozen=True)
class Lottery:
    """Random numbers for rows of a batch that processes share: drawn for all of its rows, from PyTorch's global random state.

    Processes with the same random state so draw together what one process with the whole batch draws.

    Attributes:
        rows: (B,) int64, places in the whole batch.
        total: Rows of the whole batch.
    """

    rows: Tensor
    total: int

    @classmethod
    def of(cls, batch: Captions) -> Lottery:
        """Return that of a share."""
        return cls(torch.arange(batch.first, batch.first + len(batch.rows)), len(batch.whole.rows))

    def uniform(self, *shape: int) -> Tensor:
        """Draw (B, *shape) float32 in [0, 1), on the CPU."""
        return torch.rand(self.total, *shape)[self.rows]
