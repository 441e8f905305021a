"""Projections of encoder features to what a decoder reads."""

from __future__ import annotations

from torch import Tensor, nn

from capxai.layers.structure import Mean


class RegionProjection(nn.Module):
    """V = relu(conv1x1(I)) as a linear map of each region, (B, K, C) to (B, K, H)."""

    def __init__(self, channels: int, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, hidden_size)
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Return the projected regions."""
        values: Tensor = self.relu(self.linear(features))
        return values


class GlobalProjection(nn.Module):
    """g = relu(W_g mean(I)), (B, K, C) to (B, E)."""

    def __init__(self, channels: int, embedding_size: int) -> None:
        super().__init__()
        self.mean = Mean()
        self.linear = nn.Linear(channels, embedding_size)
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Return the vector of the whole picture."""
        summary: Tensor = self.relu(self.linear(self.mean(features)))
        return summary
