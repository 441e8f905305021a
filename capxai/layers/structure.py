"""Sums, products and means as modules, so that a relevance rule can be given to each of them by type or by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Add(nn.Module):
    """Sum of two summands of the same shape."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return first + second."""
        return first + second


class Gate(nn.Module):
    """Product of a gate in [0, 1] and the signal that it lets through; the gate broadcasts to the signal's shape."""

    def forward(self, gate: Tensor, signal: Tensor) -> Tensor:
        """Return gate * signal."""
        return gate * signal


class WeightedSum(nn.Module):
    """Sum over regions, weighted by attention."""

    def forward(self, weights: Tensor, values: Tensor) -> Tensor:
        """Return sum_k weights_k values_k.

        Args:
            weights: (..., K).
            values: (..., K, D).

        Returns:
            (..., D).
        """
        return torch.matmul(weights.unsqueeze(-2), values).squeeze(-2)


class Mean(nn.Module):
    """Mean over regions."""

    def forward(self, values: Tensor) -> Tensor:
        """Return the mean of (..., K, D) over K: (..., D)."""
        return values.mean(-2)


class MergeHeads(nn.Module):
    """Lay the heads' context vectors side by side."""

    def forward(self, contexts: Tensor) -> Tensor:
        """Reshape (B, N, D) to (B, N * D)."""
        return contexts.flatten(-2)
