"""NumPy files of region features: ``<id>.npz`` with features (and boxes), or ``<id>.npy`` with features alone.

Of an archive the first array of `FEATURE_NAMES` and of `BOX_NAMES` is taken, and the size where it is there. Whatever else an
archive holds (the project bottom-up-attention.pytorch adds a pickled ``info``) is left unread, and nothing is unpickled. A
folder ``NAME_att`` of archives beside a folder ``NAME_box`` of ``<id>.npy``, as the tools of self-critical.pytorch write
them, belongs together; ``NAME_fc`` is left aside.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from capxai.data.published_features.picture_files import (
    BOX_NAMES,
    HEIGHT_NAMES,
    WIDTH_NAMES,
    Contents,
    FileKind,
    first_present,
    name_of_features,
)
from capxai.errors import CorpusError

FEATURE_FOLDER, BOX_FOLDER, MEAN_FOLDER = "_att", "_box", "_fc"
"""Endings of the names of the folders that self-critical.pytorch writes."""


def look(file: Path) -> Contents:
    """Return what an archive or array file holds, reading no more than the headers."""
    outside = _box_file(file)
    if file.suffix == ".npy":
        with file.open("rb") as stream:
            return Contents(_shape(stream), outside is not None, None)
    with zipfile.ZipFile(file) as archive:
        names = _names(archive)
        with archive.open(name_of_features(names) + ".npy") as stream:
            shape = _shape(stream)
    with _opened(file) as arrays:
        sides = [first_present(choices, names) for choices in (HEIGHT_NAMES, WIDTH_NAMES)]
        size = [int(arrays[name]) for name in sides if name is not None]
    boxes = first_present(BOX_NAMES, names) is not None or outside is not None
    return Contents(shape, boxes, (size[0], size[1]) if len(size) == 2 else None)


def read(file: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return features and boxes."""
    outside = _box_file(file)
    boxes = None if outside is None else np.load(outside, allow_pickle=False)
    if file.suffix == ".npy":
        return np.load(file, allow_pickle=False), boxes
    with _opened(file) as arrays:
        inside = first_present(BOX_NAMES, arrays.files)
        return arrays[name_of_features(arrays.files)], arrays[inside] if inside else boxes


KIND = FileKind("npz", (".npz", ".npy"), look, read)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    with np.load(file, allow_pickle=False) as arrays:
        yield arrays


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist()]


def _shape(stream: IO[bytes]) -> tuple[int, ...]:
    """Read the shape of an array from the head of its file."""
    version = np.lib.format.read_magic(stream)
    head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = head(stream)
    if dtype.hasobject:
        raise CorpusError("features that are pickled objects, which are not read")
    return tuple(shape)


def _box_file(file: Path) -> Path | None:
    """Return the file of boxes in the folder beside, if there is one."""
    folder = file.parent
    if not folder.name.endswith(FEATURE_FOLDER):
        return None
    boxes = folder.with_name(folder.name.removesuffix(FEATURE_FOLDER) + BOX_FOLDER) / f"{file.stem}.npy"
    return boxes if boxes.is_file() else None
