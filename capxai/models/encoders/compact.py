"""The small VGG-like encoder of the bundled model."""

from __future__ import annotations

from torch import nn

from capxai.models.encoders.base import Encoder

LAYOUT: tuple[int | str, ...] = (24, "M", 48, "M", 64, 64, "M", 112, 112)
"""Widths of the 3x3 convolutions, "M" for 2x2 max-pooling."""


class CompactEncoder(Encoder):
    """Convolution, batch norm and ReLU in a VGG-like stack: a 112 px picture gives 14x14 regions."""

    channels = int(LAYOUT[-1])
    stride = 8

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        width = 3
        for item in LAYOUT:
            if isinstance(item, str):
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(width, item, 3, padding=1, bias=False), nn.BatchNorm2d(item), nn.ReLU()]
            width = item
        super().__init__(nn.Sequential(*layers))
