"""What every encoder offers."""

from __future__ import annotations

from torch import Tensor, nn


class Encoder(nn.Module):
    """A picture to a grid of features: (B, 3, H, W), normalized, to (B, C, H / stride, W / stride).

    Attributes:
        channels: C of the output.
        stride: Input pixels per output cell.
        trunk: The layers, applied one after the other.
    """

    channels: int
    stride: int

    def __init__(self, trunk: nn.Sequential) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature map of the pictures."""
        features: Tensor = self.trunk(images)
        return features
