"""The one autograd function through which relevance flows.

What flows backwards between functions of this kind is relevance, so autograd's own bookkeeping adds it at every fan-out. State lives with
the call: a module that runs twice has two sets of activations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class Ledger:
    """What nodes keep for themselves instead of passing it on, summed up node by node.

    It is a leaf of the graph: each node returns what it keeps as if it were the leaf's gradient, and autograd adds.

    Attributes:
        account: (B, 3) float64 zeros; its gradient is the kept relevance in logit units, columns as in `COLUMNS`.
    """

    COLUMNS = ("bias", "eps", "other heads")

    def __init__(self, batch: int, device: torch.device) -> None:
        self.account = torch.zeros(batch, len(self.COLUMNS), dtype=torch.float64, device=device, requires_grad=True)


@dataclass(frozen=True)
class Kept:
    """Relevance that a node keeps, with the batch as the first axis of each tensor; None means nothing."""

    bias: Tensor | None = None
    eps: Tensor | None = None
    other_heads: Tensor | None = None

    def as_row(self, template: Tensor) -> Tensor:
        """Sum each entry to one number per item of the batch: (B, 3) float64.

        Args:
            template: The node's relevance (B, ...), for batch size and device.
        """
        zero = template.new_zeros(template.shape[0], dtype=torch.float64)
        parts = (self.bias, self.eps, self.other_heads)
        return torch.stack(
            [zero if part is None else part.reshape(part.shape[0], -1).sum(1, dtype=torch.float64) for part in parts],
            dim=1,
        )


Propagate = Callable[[Tensor], tuple[tuple[Tensor, ...], Kept]]
"""Relevance of the output to the relevance of each signal and what is kept."""

Node = Callable[..., tuple[Tensor, Propagate]]
"""Signals to the plain output and the way back."""


class Ruled(torch.autograd.Function):
    """A node of the graph whose way back is a relevance rule instead of a derivative."""

    @staticmethod
    def forward(ctx: Any, node: Node, layer_name: str, account: Tensor | None, *signals: Tensor) -> Tensor:
        """Run the plain forward pass and keep the way back with this call."""
        output, ctx.propagate = node(*signals)
        ctx.layer_name = layer_name
        ctx.keeps_account = account is not None
        return output

    @staticmethod
    def backward(ctx: Any, *relevances: Tensor) -> tuple[Tensor | None, ...]:
        """Pass relevance to the signals and, where there is a ledger, what is kept to it."""
        (relevance,) = relevances
        parts, kept = ctx.propagate(relevance)
        return None, None, kept.as_row(relevance) if ctx.keeps_account else None, *parts
