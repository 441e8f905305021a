"""Pictures as the detector wants them: normalized, scaled, padded, and grouped by the size that results."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from capxai.types import ImageArray

STRIDE = 32
"""Pixels per cell of the detector's last stage (C5); its input is padded to a multiple of it."""

Size = tuple[int, int]
"""Height and width in pixels."""


def scaled_size(size: Size, short_side: int, long_side: int) -> Size:
    """Return the size of a picture whose short side becomes ``short_side``, but whose long side stays below ``long_side``.

    torchvision's rule for its detectors, with at least one pixel a side (its own fails on a picture of 1 x 5,000).
    """
    scale = min(short_side / min(size), long_side / max(size))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def padded_size(size: Size) -> Size:
    """Return the size rounded up to whole cells."""
    return -(-size[0] // STRIDE) * STRIDE, -(-size[1] // STRIDE) * STRIDE


def groups_of_equal_size(sizes: Sequence[Size], most: int) -> list[list[int]]:
    """Return the places of the pictures that can share a batch, at most ``most`` in one.

    Only pictures that are padded alike do: with more padding than when alone, a picture's features would depend on its company.
    """
    groups: dict[Size, list[int]] = {}
    for place, size in enumerate(sizes):
        groups.setdefault(padded_size(size), []).append(place)
    return [places[start : start + most] for places in groups.values() for start in range(0, len(places), most)]


def prepare(image: ImageArray, size: Size, mean: Tensor, std: Tensor) -> Tensor:
    """Normalize, scale (bilinear, as the detector was trained) and pad with zeros.

    Args:
        image: (H, W, 3) uint8 RGB in [0, 255].
        size: Height and width to scale to.
        mean: (3, 1, 1), of channels in [0, 1].
        std: (3, 1, 1).

    Returns:
        (3, H', W') float32 on the device of ``mean``; H' and W' are multiples of `STRIDE`.
    """
    pixels = torch.tensor(image, device=mean.device).permute(2, 0, 1).float() / 255
    scaled = functional.interpolate(((pixels - mean) / std)[None], size=size, mode="bilinear", align_corners=False)[0]
    height, width = padded_size(size)
    return functional.pad(scaled, (0, width - size[1], 0, height - size[0]))
