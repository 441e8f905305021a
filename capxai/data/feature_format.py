"""What a feature file is: HDF5 whose arrays lie in one piece each, at places that are known before the first number is computed.

The layout is fixed when the file is made, so that blocks of rows can be written in any order, by several processes, with plain writes at a
position, and be read the same way. Nothing in the file depends on the time, the number of processes or the order of writing.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from capxai.errors import CorpusError
from capxai.types import JsonObject

FORMAT = "capxai features"
SCHEMA = 1
"""Version of the format that this capxai writes, and the newest that it reads."""

FEATURES, IMAGE_IDS, SIZES, BOXES, CHECKSUMS = "features", "image_ids", "sizes", "boxes", "checksums"
_ALIGNMENT = 4096
_TEXTS = ("kind", "encoder", "weights_sha256", "dtype", "corpus")
_NUMBERS = ("regions", "channels")
_DTYPES: dict[str, np.dtype[Any]] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
_BOX_DTYPE: np.dtype[Any] = np.dtype("<f4")


@dataclass(frozen=True)
class FeatureDescription:
    """What the numbers of a feature file are.

    Attributes:
        kind: "grid" (the cells of a feature map, row by row) or "region" (boxes of a detector).
        encoder: Name of the encoder or of where the features came from.
        weights_sha256: SHA-256, hexadecimal, of the encoder's weights as a safetensors file; "" where they are unknown.
        preprocessing: How a picture became the encoder's input (`capxai.data.preprocessing.Preprocessing.to_json`), or None.
        regions: K.
        channels: C.
        dtype: Of the stored numbers.
        grid: Rows and columns of the grid, or None.
        corpus: Name of the corpus.
        details: Whatever else determined the numbers, as JSON.
    """

    kind: Literal["grid", "region"]
    encoder: str
    weights_sha256: str
    preprocessing: JsonObject | None
    regions: int
    channels: int
    dtype: Literal["float16", "float32"]
    grid: tuple[int, int] | None
    corpus: str
    details: JsonObject

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            CorpusError: An entry cannot be what it says.
        """
        rows, columns = self.grid or (0, 0)
        sound = self.kind in ("grid", "region") and self.dtype in _DTYPES and min(self.regions, self.channels) >= 1
        if not sound or (self.grid is None) == (self.kind == "grid") or (self.grid and rows * columns != self.regions):
            raise CorpusError(
                f"Features of kind '{self.kind}' with {self.regions} regions of {self.channels} {self.dtype} channels and "
                f"grid {self.grid} cannot be. Expected 'grid' with rows x columns = regions or 'region' without a grid, "
                "sizes of at least 1, and float16 or float32. Correct the description."
            )

    @property
    def row_shape(self) -> tuple[int, int]:
        """(K, C)."""
        return self.regions, self.channels

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The stored type, little-endian."""
        return _DTYPES[self.dtype]

    @property
    def row_bytes(self) -> int:
        """Bytes of the features of one picture."""
        return self.regions * self.channels * self.numpy_dtype.itemsize

    @property
    def has_boxes(self) -> bool:
        """Whether boxes are stored beside the features."""
        return self.kind == "region"

    def to_json(self) -> JsonObject:
        """Return the fields as JSON."""
        return {**asdict(self), "grid": None if self.grid is None else list(self.grid)}

    def difference(self, other: FeatureDescription) -> str:
        """Say in which entries another description differs; "" if in none."""
        pairs = [(field.name, getattr(self, field.name), getattr(other, field.name)) for field in fields(self)]
        return ", ".join(f"{name} {one!r} instead of {two!r}" for name, one, two in pairs if one != two)


@dataclass(frozen=True)
class Header:
    """All of a feature file but its features and boxes.

    Attributes:
        description: What the numbers are.
        image_ids: (N,) int64.
        sizes: (N, 2) int32, height and width of each picture in pixels.
        block: Rows of a block, the unit of writing, of checksums and of resuming; the last block may be shorter.
        shard: (i, n) of a file that holds part i of n, counted from 1; None of a whole one.
    """

    description: FeatureDescription
    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int32]
    block: int
    shard: tuple[int, int] | None = None

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-len(self.image_ids) // self.block)

    def rows(self, block: int) -> range:
        """Return the rows of a block."""
        return range(block * self.block, min((block + 1) * self.block, len(self.image_ids)))

    def difference(self, other: Header) -> str:
        """Say how another file differs, features and boxes aside; "" if it does not."""
        found = [self.description.difference(other.description)]
        found += [
            f"{name} {getattr(self, name)!r} instead of {getattr(other, name)!r}"
            for name in ("block", "shard")
            if getattr(self, name) != getattr(other, name)
        ]
        if not (np.array_equal(self.image_ids, other.image_ids) and np.array_equal(self.sizes, other.sizes)):
            found.append(f"{len(self.image_ids)} pictures that are not the same {len(other.image_ids)}")
        return ", ".join(text for text in found if text)


@dataclass(frozen=True)
class Layout:
    """Where the arrays that are written by position begin, in bytes from the start of the file."""

    features: int
    boxes: int | None
    checksums: int
    end: int


def create_file(path: Path, header: Header) -> None:
    """Make a complete HDF5 file whose features, boxes and checksums are still zero; an existing file is replaced.

    Raises:
        OSError: The file cannot be written.
    """
    description, count = header.description, len(header.image_ids)
    bounds: Any = ("earliest", "v110")  # the object headers of later versions hold the time
    with h5py.File(path, "w", libver=bounds, alignment_threshold=_ALIGNMENT, alignment_interval=_ALIGNMENT) as file:
        _reserve(file, FEATURES, (count, *description.row_shape), description.numpy_dtype)
        if description.has_boxes:
            _reserve(file, BOXES, (count, description.regions, 4), _BOX_DTYPE)
        _reserve(file, CHECKSUMS, (header.blocks,), np.dtype("<u4"))
        file.create_dataset(IMAGE_IDS, data=header.image_ids.astype("<i8"), track_times=False)
        file.create_dataset(SIZES, data=header.sizes.astype("<i4"), track_times=False)
        _write_attributes(file, header)


def read_file(path: Path) -> tuple[Header, Layout]:
    """Read all of a feature file but the features, boxes and checksums themselves.

    Raises:
        CorpusError: The file is missing, torn, or no feature file of a version that this capxai knows.
    """
    if not path.is_file():
        raise CorpusError(f"There is no feature file '{path}'. Make one with 'capxai extract-features --out {path}'.")
    try:
        with h5py.File(path, "r") as file:
            header = _read_header(file)
            layout = _read_layout(file, header)
    except CorpusError as error:
        raise CorpusError(f"'{path}' cannot be used: {error}") from error
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise CorpusError(
            f"'{path}' cannot be read as a feature file ({reason}). Expected what 'capxai extract-features' writes. Extract "
            "the features again, or copy the file again."
        ) from error
    if (size := path.stat().st_size) < layout.end:
        raise CorpusError(
            f"'{path}' is cut off: {size:,} bytes where its header says {layout.end:,}. Expected a whole file. Copy it again."
        )
    return header, layout


def block_bytes(descriptor: int, header: Header, layout: Layout, block: int) -> tuple[bytes, bytes]:
    """Read a block as it is on the disk: its features and its boxes (empty for a grid).

    The CRC-32 of the one followed by the other is what ``checksums`` holds.

    Raises:
        OSError: The disk fails.
    """
    rows, size = header.rows(block), header.description.row_bytes
    features = os.pread(descriptor, len(rows) * size, layout.features + rows.start * size)
    if layout.boxes is None:
        return features, b""
    size = header.description.regions * 4 * _BOX_DTYPE.itemsize
    return features, os.pread(descriptor, len(rows) * size, layout.boxes + rows.start * size)


def _reserve(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Make a dataset in one piece that has its place in the file at once."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), space, properties)


def _write_attributes(file: h5py.File, header: Header) -> None:
    description = header.description
    texts = {"format": FORMAT, **{name: getattr(description, name) for name in _TEXTS}}
    texts["preprocessing"] = json.dumps(description.preprocessing, sort_keys=True, allow_nan=False)
    texts["details"] = json.dumps(description.details, sort_keys=True, allow_nan=False)
    for name, text in texts.items():
        data = text.encode()  # fixed-length, because HDF5 keeps texts of variable length in a heap beside
        file.attrs[name] = np.array(data, dtype=h5py.string_dtype("utf-8", max(len(data), 1)))
    numbers = {"schema": SCHEMA, "block": header.block, **{name: getattr(description, name) for name in _NUMBERS}}
    for name, number in numbers.items():
        file.attrs[name] = np.int64(number)
    for name, pair in (("grid", description.grid), ("shard", header.shard)):
        if pair is not None:
            file.attrs[name] = np.array(pair, dtype="<i8")


def _read_header(file: h5py.File) -> Header:
    if _text(file, "format") != FORMAT:
        raise CorpusError("it is another kind of HDF5 file. Expected one that 'capxai extract-features' wrote.")
    if (schema := int(file.attrs["schema"])) > SCHEMA:
        raise CorpusError(f"it has schema {schema}, and this capxai reads schemas up to {SCHEMA}. Upgrade capxai.")
    values: JsonObject = {name: _text(file, name) for name in _TEXTS}
    values |= {name: int(file.attrs[name]) for name in _NUMBERS}
    values |= {name: json.loads(_text(file, name)) for name in ("preprocessing", "details")}
    description = FeatureDescription(grid=_pair(file, "grid"), **values)
    ids: NDArray[np.int64] = file[IMAGE_IDS][:].astype(np.int64)
    sizes: NDArray[np.int32] = file[SIZES][:].astype(np.int32)
    header = Header(description, ids, sizes, int(file.attrs["block"]), _pair(file, "shard"))
    if sizes.shape != (len(ids), 2) or header.block < 1 or not len(ids):
        raise CorpusError(
            f"it has {ids.shape} ids, {sizes.shape} sizes and blocks of {header.block}. Extract it again."
        )
    return header


def _read_layout(file: h5py.File, header: Header) -> Layout:
    description, count = header.description, len(header.image_ids)
    features = _place(file, FEATURES, (count, *description.row_shape), description.numpy_dtype)
    boxes = _place(file, BOXES, (count, description.regions, 4), _BOX_DTYPE) if description.has_boxes else None
    checksums = _place(file, CHECKSUMS, (header.blocks,), np.dtype("<u4"))
    ends = [features + count * description.row_bytes, checksums + 4 * header.blocks]
    if boxes is not None:
        ends.append(boxes + count * description.regions * 16)
    return Layout(features, boxes, checksums, max(ends))


def _place(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    dataset = file[name]
    offset = dataset.id.get_offset()
    if dataset.shape != shape or dataset.dtype != dtype or offset is None:
        raise CorpusError(
            f"its '{name}' is {dataset.dtype} {dataset.shape}{' in pieces' if offset is None else ''}. Expected {dtype} "
            f"{shape} in one piece. Extract the features again."
        )
    return int(offset)


def _text(file: h5py.File, name: str) -> str:
    value = file.attrs.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def _pair(file: h5py.File, name: str) -> tuple[int, int] | None:
    if name not in file.attrs:
        return None
    first, second = file.attrs[name]
    return int(first), int(second)
