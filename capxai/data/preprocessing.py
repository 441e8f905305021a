"""From a picture of any size to the numbers that an encoder expects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from capxai.errors import ModelError
from capxai.types import ImageArray, JsonObject

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of the ImageNet training pictures, per RGB channel, in [0, 1] (torchvision's weights expect it)."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of the ImageNet training pictures, per RGB channel, in [0, 1]."""

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the input of an encoder.

    The whole picture is squeezed into a square; nothing is cropped away, so that every pixel of it is explained.

    Attributes:
        image_size: Side S of the square, in pixels.
        mean: Subtracted from each RGB channel, in [0, 1].
        std: Divides each RGB channel, in [0, 1].
    """

    image_size: int
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            ModelError: The size is below 1, a mean or deviation is not a finite number, or a deviation is not positive.
        """
        sound = self.image_size >= 1 and len(self.mean) == len(self.std) == 3
        if not (sound and all(map(math.isfinite, (*self.mean, *self.std))) and all(value > 0 for value in self.std)):
            raise ModelError(
                f"The preprocessing (size {self.image_size}, mean {self.mean}, std {self.std}) cannot be used. "
                "Expected a size of at least 1 pixel, three finite means and three positive deviations. Restore the "
                "model folder from where it came."
            )

    def resize(self, image: ImageArray) -> ImageArray:
        """Squeeze (H, W, 3) uint8 RGB to (S, S, 3), bilinear with antialiasing.

        A picture that already has the size comes back as it is.
        """
        if image.shape == (self.image_size, self.image_size, 3):
            return image
        square = Image.fromarray(image).resize((self.image_size, self.image_size), Image.Resampling.BILINEAR)
        return np.array(square, dtype=np.uint8)

    def normalize(self, images: Tensor) -> Tensor:
        """Scale to [0, 1], subtract the mean, divide by the deviation.

        Args:
            images: (B, S, S, 3) uint8 RGB in [0, 255], on any device.

        Returns:
            (B, 3, S, S) float32 on the same device.

        Raises:
            ValueError: The pictures are not (B, H, W, 3) uint8.
        """
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[3] != 3:
            raise ValueError(f"Found {tuple(images.shape)} {images.dtype}; expected (B, H, W, 3) uint8 RGB.")
        mean = torch.tensor(self.mean, device=images.device)[:, None, None]
        std = torch.tensor(self.std, device=images.device)[:, None, None]
        planes = images.permute(0, 3, 1, 2).contiguous()  # (B, 3, S, S)
        return planes.to(torch.float32).div_(255).sub_(mean).div_(std)

    def bounds(self) -> tuple[Channels, Channels]:
        """Return the smallest and the largest value that each channel can have after `normalize`."""
        channels = list(zip(self.mean, self.std, strict=True))
        low = tuple(-mean / std for mean, std in channels)
        high = tuple((1 - mean) / std for mean, std in channels)
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def to_json(self) -> JsonObject:
        """Describe the preprocessing for a model folder."""
        return {"image_size": self.image_size, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Preprocessing:
        """Read what ``to_json`` wrote.

        Raises:
            ModelError: An entry is missing, of the wrong kind, or cannot be used.
        """
        size = value.get("image_size")
        if not isinstance(size, int) or isinstance(size, bool):
            raise _torn(f"image_size {size!r}")
        return cls(size, _channels(value, "mean"), _channels(value, "std"))


def _channels(value: Mapping[str, object], key: str) -> Channels:
    numbers = value.get(key)
    if not isinstance(numbers, list) or len(numbers) != 3:
        raise _torn(f"{key} {numbers!r}")
    if not all(type(number) in (int, float) for number in numbers):
        raise _torn(f"{key} {numbers!r}")
    red, green, blue = (float(number) for number in numbers)
    return red, green, blue


def _torn(found: str) -> ModelError:
    return ModelError(
        f"The stored preprocessing has {found}. Expected a whole 'image_size' and three numbers each for 'mean' and "
        "'std'. Restore the model folder from where it came."
    )
