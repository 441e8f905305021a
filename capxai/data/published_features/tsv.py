"""Tab-separated files of bottom-up features, as Anderson et al. published them.

A line is a picture: ``image_id  image_w  image_h  num_boxes  boxes  features``, the last two base64 of little-endian
float32, (num_boxes, 4) and (num_boxes, 2048). Both variants are read: 36 regions for every picture, and 10 to 100 as the
detector was sure of. The ten columns of LXMERT's files (``img_id  img_h  img_w  objects_id  objects_conf  attrs_id
attrs_conf  num_boxes  boxes  features``) are read as well. A set comes as one file or as several (``.tsv.0``, ``.tsv.1``).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from capxai.data.annotations import Problems
from capxai.data.published_features.source import DAMAGE_REMEDY, PublishedFeatures, PublishedPicture
from capxai.errors import CorpusError

_LONGEST_LINE = 64 * 2**20  # 100 regions of 2048 channels take 1.1 MB
_FLOAT = np.dtype("<f4")


class _Columns(NamedTuple):
    """Where a layout has its columns."""

    image: int
    width: int
    height: int
    regions: int
    boxes: int
    features: int


_LAYOUTS = {6: _Columns(0, 1, 2, 3, 4, 5), 10: _Columns(0, 2, 1, 7, 8, 9)}
_HEADINGS = (b"image_id", b"img_id")


class TsvFeatures(PublishedFeatures):
    """Region features in tab-separated files.

    One pass over the files notes where each picture's line begins and checks the lengths of its columns; their numbers are decoded when
    a picture is read.

    Args:
        path: What was asked for.
        files: The files, in order.
        channels: C.

    Raises:
        CorpusError: Lines are cut off or are no such lines; all are counted in one message.
    """

    format = "tsv"

    def __init__(self, path: Path, files: Sequence[Path], channels: int) -> None:
        problems = Problems(path)
        pictures = tuple(picture for file in files for picture in _listed(file, channels, problems))
        problems.raise_if_any(
            f"lines of 6 columns with base64 of num_boxes x 4 and num_boxes x {channels} float32", DAMAGE_REMEDY
        )
        super().__init__(path, pictures, channels)
        self._open: tuple[Path, BinaryIO] | None = None

    def close(self) -> None:
        """Close the file that was read last."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _read(self, picture: PublishedPicture) -> tuple[NDArray[Any], NDArray[Any] | None]:
        if self._open is None or self._open[0] != picture.file:
            self.close()
            self._open = picture.file, picture.file.open("rb")
        stream = self._open[1]
        stream.seek(picture.offset)
        fields = stream.readline(_LONGEST_LINE).rstrip(b"\r\n").split(b"\t")
        columns = _LAYOUTS.get(len(fields))
        if columns is None or fields[columns.image].decode() != picture.name:
            raise CorpusError("the file has changed since it was listed")
        boxes = _decoded(fields[columns.boxes], "boxes").reshape(picture.regions, -1)
        return _decoded(fields[columns.features], "features").reshape(picture.regions, -1), boxes


def _listed(file: Path, channels: int, problems: Problems) -> Iterator[PublishedPicture]:
    """Yield the pictures of a file, and note every line that is not one."""
    for line, offset, fields in _lines(file, problems):
        picture = _picture(f"{file.name}, line {line}", fields, channels, problems)
        if picture is not None:
            yield PublishedPicture(*picture, has_boxes=True, file=file, line=line, offset=offset)


def _lines(file: Path, problems: Problems) -> Iterator[tuple[int, int, list[bytes]]]:
    """Yield number, offset and columns of each line; a heading and empty lines are passed over."""
    offset = 0
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE), b""), start=1):
                if len(line) == _LONGEST_LINE:
                    problems.add(f"lines of over {_LONGEST_LINE / 2**20:.0f} MiB", f"{file.name}, line {number}")
                    return
                fields = line.rstrip(b"\r\n").split(b"\t")
                if line.strip() and not (number == 1 and fields[0] in _HEADINGS):
                    yield number, offset, fields
                offset += len(line)
    except OSError as error:
        raise CorpusError(
            f"'{file}' cannot be read ({error.strerror}). Expected a .tsv file of region features. Check the path and its rights."
        ) from error


def _picture(
    where: str, fields: list[bytes], channels: int, problems: Problems
) -> tuple[str, tuple[int, int], int] | None:
    """Return name, size and number of regions of a line, or note what is wrong with it."""
    columns = _LAYOUTS.get(len(fields))
    if columns is None:
        problems.add("lines with another number of columns than 6 or 10", f"{where}: {len(fields)}")
        return None
    try:
        name = fields[columns.image].decode("ascii")
        height, width, count = (int(fields[place]) for place in (columns.height, columns.width, columns.regions))
    except ValueError:
        problems.add("lines whose first columns are no id, width, height and number of boxes", where)
        return None
    if min(height, width, count) < 1 or not name:
        problems.add("lines with a size or number of boxes below 1", f"{where}: {width} x {height}, {count}")
        return None
    found = _encoded_bytes(fields[columns.boxes]), _encoded_bytes(fields[columns.features])
    expected = count * 4 * _FLOAT.itemsize, count * channels * _FLOAT.itemsize
    if found != expected:
        problems.add(_kind_of_mismatch(found, expected, count), f"{where}: image {name}")
        return None
    return name, (height, width), count


def _kind_of_mismatch(found: tuple[int, int], expected: tuple[int, int], count: int) -> str:
    channels, rest = divmod(found[1], count * _FLOAT.itemsize)
    if found[0] == expected[0] and found[1] > 0 and not rest:
        return f"lines with {channels} channels a region where {expected[1] // (count * _FLOAT.itemsize)} were expected"
    return "lines whose boxes or features are cut off"


def _encoded_bytes(text: bytes) -> int:
    """Return how many bytes base64 text stands for; -1 if it cannot be complete."""
    return -1 if len(text) % 4 else len(text) // 4 * 3 - (len(text) - len(text.rstrip(b"=")))


def _decoded(text: bytes, what: str) -> NDArray[Any]:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), _FLOAT)
    except (binascii.Error, ValueError) as error:
        raise CorpusError(f"{what} that are no base64 ({error})") from error
