"""An HDF5 file per picture, as the paper's authors extract them.

Their released code writes ``<picture file>.hdf5`` (``000000334477.jpg.hdf5``) into the folders ``train``, ``val`` and
``test``, with the datasets ``image_features`` (K, 2048) and ``image_boxes`` (K, 4), in pixels of the picture. A picture in
which their detector was sure of fewer than 36 regions has fewer, and their training code fills up with zeros. The picture's
size is not in the file. Datasets of the other names of `FEATURE_NAMES` and `BOX_NAMES` are read too, and sizes from datasets
or attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
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


def look(file: Path) -> Contents:
    """Return what a file holds, reading no features."""
    with h5py.File(file, "r") as group:
        sides = [_number(group, names) for names in (HEIGHT_NAMES, WIDTH_NAMES)]
        size = None if None in sides else (int(sides[0] or 0), int(sides[1] or 0))
        return Contents(
            group[name_of_features(group.keys())].shape, first_present(BOX_NAMES, group.keys()) is not None, size
        )


def read(file: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return features and boxes."""
    with h5py.File(file, "r") as group:
        boxes = first_present(BOX_NAMES, group.keys())
        return group[name_of_features(group.keys())][()], None if boxes is None else group[boxes][()]


KIND = FileKind("hdf5", (".hdf5", ".h5"), look, read)


def _number(group: h5py.File, names: Sequence[str]) -> int | None:
    """Read a number that is a dataset or an attribute."""
    for place in (group, group.attrs):
        name = first_present(names, place.keys())
        if name is not None:
            return int(np.asarray(place[name]).reshape(-1)[0])
    return None
