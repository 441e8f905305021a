"""Folders with a file per picture: what the files of each kind are called, and how one is looked at and read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from capxai.data.annotations import Problems
from capxai.data.published_features.source import (
    DAMAGE_REMEDY,
    PublishedFeatures,
    PublishedPicture,
    first_line,
)
from capxai.errors import CorpusError

FEATURE_NAMES = ("image_features", "features", "feature", "feat", "feats", "x")
"""Names under which files hold features, in the order in which they are looked for."""

BOX_NAMES = ("image_boxes", "boxes", "bbox", "bboxes")
HEIGHT_NAMES = ("image_h", "image_height", "img_h", "height")
WIDTH_NAMES = ("image_w", "image_width", "img_w", "width")


@dataclass(frozen=True)
class Contents:
    """What a file holds, without its features.

    Attributes:
        features: Shape of the features.
        boxes: Whether there are boxes.
        size: Height and width of the picture, or None.
    """

    features: tuple[int, ...]
    boxes: bool
    size: tuple[int, int] | None


@dataclass(frozen=True)
class FileKind:
    """A kind of file that holds one picture.

    Attributes:
        format: Name of the format.
        endings: How its files end.
        look: Returns what a file holds; raises any exception at damage.
        read: Returns the features and boxes of a file; raises any exception at damage.
    """

    format: str
    endings: tuple[str, ...]
    look: Callable[[Path], Contents]
    read: Callable[[Path], tuple[NDArray[Any], NDArray[Any] | None]]


class PictureFiles(PublishedFeatures):
    """Region features in a folder (and the folders inside it) with a file per picture.

    Every file is opened once to learn the shapes of its arrays, and again when its picture is read.

    Args:
        path: The folder.
        files: The files of features, in order.
        kind: How they are read.
        channels: C.

    Raises:
        CorpusError: Files are damaged or hold something else; all are counted in one message.
    """

    def __init__(self, path: Path, files: Sequence[Path], kind: FileKind, channels: int) -> None:
        self.format = kind.format
        self._kind = kind
        problems = Problems(path)
        listed = [_listed(file, kind, channels, problems) for file in files]
        problems.raise_if_any(f"files of regions x {channels} features, one for each picture", DAMAGE_REMEDY)
        super().__init__(path, tuple(picture for picture in listed if picture is not None), channels)

    def _read(self, picture: PublishedPicture) -> tuple[NDArray[Any], NDArray[Any] | None]:
        return self._kind.read(picture.file)


def first_present(names: Sequence[str], present: Collection[str]) -> str | None:
    """Return the first name that is there."""
    return next((name for name in names if name in present), None)


def name_of_features(present: Collection[str]) -> str:
    """Return the name under which a file holds its features.

    Raises:
        CorpusError: There is none of the known names.
    """
    name = first_present(FEATURE_NAMES, present)
    if name is None:
        raise CorpusError(f"holds {', '.join(sorted(present)) or 'nothing'} and none of {', '.join(FEATURE_NAMES)}")
    return name


def _listed(file: Path, kind: FileKind, channels: int, problems: Problems) -> PublishedPicture | None:
    try:
        contents = kind.look(file)
    except Exception as error:  # a decoder may fail on damaged bytes with nearly any exception
        problems.add("files that cannot be read", f"{file.name}: {first_line(error)}")
        return None
    shape = contents.features
    if len(shape) != 2 or channels not in shape or min(shape) < 1:
        problems.add("files whose features have another shape", f"{file.name}: {shape}")
        return None
    regions = shape[0] if shape[1] == channels else shape[1]
    return PublishedPicture(_name(file, kind), contents.size, regions, contents.boxes, file)


def _name(file: Path, kind: FileKind) -> str:
    """Return the picture's name: that of the file without the ending of the kind ("9.npz", "000000000009.jpg.hdf5")."""
    return next((file.name[: -len(ending)] for ending in kind.endings if file.name.endswith(ending)), file.name)
