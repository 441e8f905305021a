"""Dropout that does not depend on how many processes share a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn


class _Share(NamedTuple):
    """Which rows of the global batch this process has: its first one, and how many the batch has in all processes."""

    first: int
    total: int


_SHARE: ContextVar[_Share | None] = ContextVar("share", default=None)


@contextmanager
def global_batch(first: int, total: int) -> Iterator[None]:
    """Tell every `Dropout` that the rows it sees are a part of a larger batch.

    Inside, masks are drawn for all ``total`` rows and the rows from ``first`` on are used. Processes with the same random state and
    the same shapes beyond the first axis so drop together exactly what one process with the whole batch drops, and their random states
    stay the same.

    Args:
        first: Place of this process's first row in the global batch.
        total: Rows of the global batch.

    Raises:
        ValueError: The first row lies outside the batch.
    """
    if not 0 <= first < total:
        raise ValueError(f"Found a first row {first} of {total}; expected one inside the global batch.")
    token = _SHARE.set(_Share(first, total))
    try:
        yield
    finally:
        _SHARE.reset(token)


class Dropout(nn.Dropout):
    """Set entries to 0 with probability p in training and scale the rest by 1 / (1 - p); see `global_batch`. Axis 0 is the batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x with some entries dropped, or x itself outside training."""
        share = _SHARE.get()
        if share is None or not self.training or self.p == 0:
            return super().forward(x)
        if share.first + len(x) > share.total:
            raise ValueError(f"Found rows {share.first} to {share.first + len(x)} of a batch of {share.total}.")
        ones = torch.ones((share.total, *x.shape[1:]), dtype=x.dtype, device=x.device)
        mask = nn.functional.dropout(ones, self.p, training=True)
        return x * mask[share.first : share.first + len(x)]
