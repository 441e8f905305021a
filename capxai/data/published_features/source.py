"""What every format of published region features offers, and what their numbers must be."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capxai.errors import CorpusError
from capxai.types import FloatArray

CHANNELS = 2048
"""C of bottom-up features, unless something else is asked for."""

DAMAGE_REMEDY = "Download or copy the file again, or take these pictures out of it."


@dataclass(frozen=True, slots=True)
class PublishedPicture:
    """A picture of a source, known before its features are read.

    Attributes:
        name: What the source calls it: a number or the name of the picture's file.
        size: Height and width in pixels, or None where the source does not say.
        regions: How many regions it has.
        has_boxes: Whether they have boxes.
        file: The file that holds it.
        line: Its line in that file, counted from 1; 0 where it has the file for itself.
        offset: Bytes before that line.
    """

    name: str
    size: tuple[int, int] | None
    regions: int
    has_boxes: bool
    file: Path
    line: int = 0
    offset: int = 0

    @property
    def where(self) -> str:
        """The place, as it reads in a message."""
        return f"'{self.file}', line {self.line}" if self.line else f"'{self.file}'"

    @property
    def number(self) -> int | None:
        """The number at the end of the name ("COCO_val2014_000000000042.jpg" is 42), or None."""
        match = re.search(r"(\d+)$", stem_of(self.name))
        return int(match[1]) if match else None


@dataclass(frozen=True)
class RegionArrays:
    """The regions of one picture.

    Attributes:
        features: (K, C) float32, finite.
        boxes: (K, 4) float32, left, top, right, bottom in pixels; None where the source has none.
    """

    features: FloatArray
    boxes: FloatArray | None


class PublishedFeatures(ABC):
    """A source whose pictures are listed at once and read one at a time: memory holds the list and one picture.

    Args:
        path: The file or folder.
        pictures: All pictures, in the order of reading.
        channels: C, the same for all.

    Attributes:
        format: Name of the format.
    """

    format: str

    def __init__(self, path: Path, pictures: tuple[PublishedPicture, ...], channels: int) -> None:
        self.path = path
        self.pictures = pictures
        self.channels = channels

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.pictures)

    def __iter__(self) -> Iterator[tuple[PublishedPicture, RegionArrays]]:
        """Read all pictures, one at a time."""
        for picture in self.pictures:
            yield picture, self.read(picture)

    def read(self, picture: PublishedPicture) -> RegionArrays:
        """Read the regions of a picture.

        Raises:
            CorpusError: They are damaged or are not what features and boxes can be; the message names the file (and line).
        """
        try:
            features, boxes = self._read(picture)
            return _checked(features, boxes, (picture.regions, self.channels))
        except CorpusError as error:
            raise CorpusError(f"{picture.where} (picture {picture.name}): {error}") from error
        except Exception as error:  # a decoder may fail on damaged bytes with nearly any exception
            raise CorpusError(f"{picture.where} (picture {picture.name}): {first_line(error)}") from error

    def close(self) -> None:  # noqa: B027 - most formats hold nothing open
        """Release what is open."""

    @abstractmethod
    def _read(self, picture: PublishedPicture) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return features and boxes as they are stored."""


def stem_of(name: str) -> str:
    """Return the name of a picture without folders and the ending of a picture file."""
    return re.sub(r"\.(jpe?g|png)$", "", name.replace("\\", "/").rsplit("/", 1)[-1], flags=re.IGNORECASE)


def first_line(error: BaseException) -> str:
    """Say in a few words what a foreign exception said."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _checked(features: NDArray[Any], boxes: NDArray[Any] | None, shape: tuple[int, int]) -> RegionArrays:
    if features.shape == (shape[1], shape[0]) != shape:
        features = features.T  # some archives hold a region in each column
    if features.shape != shape:
        raise CorpusError(f"features of shape {features.shape} where {shape} was expected")
    _check_numbers(features, "features")
    if boxes is None:
        return RegionArrays(np.ascontiguousarray(features, np.float32), None)
    if boxes.shape != (shape[0], 4):
        raise CorpusError(f"boxes of shape {boxes.shape} where {(shape[0], 4)} was expected")
    _check_numbers(boxes, "boxes")
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise CorpusError(
            "boxes whose right is left of their left, or bottom above their top (expected x1, y1, x2, y2)"
        )
    if boxes.max() <= 1:
        raise CorpusError(f"boxes as shares of the picture (largest number {boxes.max():g}) where pixels were expected")
    return RegionArrays(np.ascontiguousarray(features, np.float32), np.ascontiguousarray(boxes, np.float32))


def _check_numbers(values: NDArray[Any], what: str) -> None:
    if values.dtype.kind not in "fiu":
        raise CorpusError(f"{what} of type {values.dtype} where numbers were expected")
    if not np.isfinite(values).all():
        raise CorpusError(f"{what} with {np.count_nonzero(~np.isfinite(values))} numbers that are NaN or infinite")
