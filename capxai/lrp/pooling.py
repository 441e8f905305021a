"""Winner-takes-all through max-pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


class Windows(Protocol):
    """The winners of one pooling call."""

    def carry(self, relevance: Tensor) -> Tensor:
        """Return the relevance (B, C, H', W') of the output at the winners' places: (B, C, H, W)."""


@dataclass(frozen=True)
class Tiles:
    """Windows that tile the input: the way back is one multiplication with a mask, which stays one pass for all words.

    Attributes:
        mask: (B, H', k, W', k, C), 1 at the winner of each window; channels last, as convolutions on a CPU want their input.
    """

    mask: Tensor

    def carry(self, relevance: Tensor) -> Tensor:
        """See `Windows.carry`."""
        batch, rows, size, columns, _, channels = self.mask.shape
        spread = relevance.permute(0, 2, 3, 1).reshape(batch, rows, 1, columns, 1, channels) * self.mask
        return spread.reshape(batch, rows * size, columns * size, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Overlapping:
    """Windows of any kind, by the places of their winners."""

    places: Tensor
    shape: torch.Size

    def carry(self, relevance: Tensor) -> Tensor:
        """See `Windows.carry`."""
        batch, channels, height, width = self.shape
        arrived = relevance.reshape(batch, channels, -1)
        nothing = torch.zeros_like(arrived[:, :, :1]).expand(batch, channels, height * width)
        return nothing.scatter_add(2, self.places.flatten(2), arrived).reshape(self.shape)


def pool_windows(layer: nn.MaxPool2d, x: Tensor) -> Windows:
    """Find the winners of a max-pooling layer for the input x (B, C, H, W)."""
    channels_last = x.contiguous(memory_format=torch.channels_last)
    pooled, places = functional.max_pool2d(
        channels_last,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.ceil_mode,
        return_indices=True,
    )
    size = layer.kernel_size
    tiles = isinstance(size, int) and layer.stride == size and layer.padding == 0 and layer.dilation == 1
    if not isinstance(size, int) or not tiles or any(extent % size for extent in x.shape[2:]):
        return Overlapping(places, x.shape)
    batch, channels, height, width = pooled.shape
    mask = torch.zeros_like(channels_last).flatten(2)
    mask.scatter_(2, places.flatten(2), 1)
    return Tiles(mask.view_as(x).permute(0, 2, 3, 1).reshape(batch, height, size, width, size, channels))
