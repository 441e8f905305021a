"""Layers that are linear in their signal: how to apply one with other weights, and its transpose.

A rule needs of a layer only what stands here, so a rule is written once for dense and convolutional layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from capxai.errors import RelevanceError

Folded = Mapping[nn.Module, tuple[Tensor, Tensor | None]]
"""Weights and bias to use instead of a layer's own, where a batch norm is folded into it."""


class AffineMap(Protocol):
    """z = w x + b for a fixed layer."""

    @property
    def weight(self) -> Tensor:
        """The weight, batch norm folded in."""

    @property
    def bias(self) -> Tensor | None:
        """One number per output unit, or None."""

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return w x without bias."""

    def transpose(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """Return w' s with the shape of x."""

    def layout(self, tensor: Tensor) -> Tensor:
        """Return the tensor in the memory layout in which this map is fastest."""

    def spread(self, per_output: Tensor) -> Tensor:
        """Return a vector of one number per output unit in a shape that broadcasts to z."""


@dataclass(frozen=True)
class Dense:
    """`nn.Linear`: x (..., in), z (..., out), weight (out, in)."""

    weight: Tensor
    bias: Tensor | None

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return x w'."""
        return functional.linear(x, weight)

    def transpose(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """Return s w. Written for two axes, because that product is batched over all words of a caption in one call."""
        return torch.mm(s.reshape(-1, s.shape[-1]), weight).reshape(x.shape)

    def layout(self, tensor: Tensor) -> Tensor:
        """Return the tensor as it is."""
        return tensor

    def spread(self, per_output: Tensor) -> Tensor:
        """Return the vector as it is."""
        return per_output


@dataclass(frozen=True)
class Convolution:
    """`nn.Conv2d` with zero padding: x (B, in, H, W), z (B, out, H', W'), weight (out, in / groups, kh, kw)."""

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution without bias."""
        return functional.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def transpose(self, s: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """Return the transposed convolution with the height and width of x.

        With stride 1 it is written as a convolution with the flipped kernel: the same sum, but it stays one call when all words of a
        caption are batched, where a transposed convolution would be called word by word.
        """
        height, width = weight.shape[-2:]
        flipped_padding = (height - 1 - self.padding[0], width - 1 - self.padding[1])
        if self.stride == (1, 1) and self.dilation == (1, 1) and self.groups == 1 and min(flipped_padding) >= 0:
            flipped = self.layout(weight.flip(2, 3).transpose(0, 1))
            return functional.conv2d(s, flipped, None, 1, flipped_padding)
        bare = functional.conv_transpose2d  # output_padding restores rows that the stride left out
        shortage = [
            size - ((out - 1) * step - 2 * pad + hole * (extent - 1) + 1)
            for size, out, step, pad, hole, extent in zip(
                x.shape[-2:], s.shape[-2:], self.stride, self.padding, self.dilation, weight.shape[-2:], strict=True
            )
        ]
        return bare(s, weight, None, self.stride, self.padding, tuple(shortage), self.groups, self.dilation)

    def layout(self, tensor: Tensor) -> Tensor:
        """Return the tensor in channels-last layout."""
        return tensor.contiguous(memory_format=torch.channels_last)

    def spread(self, per_output: Tensor) -> Tensor:
        """Return (out,) as (out, 1, 1)."""
        return per_output[:, None, None]


def affine_map(layer: nn.Module, folded: Folded) -> AffineMap:
    """Read the affine map of a layer, its batch norm folded in where there is one.

    Raises:
        RelevanceError: The layer is neither dense nor a plain two-dimensional convolution.
    """
    if isinstance(layer, nn.Linear):
        return Dense(*_weights(layer, folded))
    if isinstance(layer, nn.Conv2d):
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise RelevanceError(
                f"A convolution with padding '{layer.padding if isinstance(layer.padding, str) else layer.padding_mode}' has no rule. "
                "Relevance needs zero padding given in pixels."
            )
        pair = [_pair(value) for value in (layer.stride, layer.padding, layer.dilation)]
        return Convolution(*_weights(layer, folded), pair[0], pair[1], pair[2], layer.groups)
    raise RelevanceError(
        f"The rule is for dense layers and convolutions, but was given to a {type(layer).__name__}. "
        "Correct the composite: an earlier entry that matches the layer wins."
    )


def _weights(layer: nn.Linear | nn.Conv2d, folded: Folded) -> tuple[Tensor, Tensor | None]:
    if layer in folded:
        return folded[layer]
    return layer.weight.detach(), None if layer.bias is None else layer.bias.detach()


def _pair(value: tuple[int, ...] | int) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
