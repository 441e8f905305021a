"""The two containers of ``torch.save``: a zip archive since PyTorch 1.6, pickles followed by raw numbers before."""

from __future__ import annotations

import hashlib
import io
import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from capxai.errors import ModelError
from capxai.models.authors.pickles import Constructor, read_pickle
from capxai.models.authors.stand_ins import STORAGE_DTYPES, StorageRecord, TensorRecord, find

_ZIP_START = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_AGAIN = "Copy or download the file again."

ReadBytes = Callable[[StorageRecord], bytes]


@dataclass(frozen=True)
class Checkpoint:
    """What capxai takes from one of the authors' checkpoints.

    Attributes:
        weights: Their ``state_dict``, float32 where it is floating, on the CPU wherever it was saved, without the
            prefix "module." of data-parallel training.
        facts: The plain entries beside it ("epoch", "bleu-4", "cider" ...).
        container: "zip" or "legacy".
        sha256: Hash of the file.
    """

    weights: dict[str, Tensor]
    facts: dict[str, str | int | float | bool | None]
    container: str
    sha256: str


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without running what it contains; of the optimizer not even the numbers are read.

    Raises:
        UnsafeCheckpointError: Its pickle names something that could run code.
        ModelError: The file is missing, torn, no checkpoint, or has no ``state_dict``.
    """
    if not path.is_file():
        raise ModelError(
            f"There is no file '{path}'. Expected a checkpoint of the authors (.pth). Check the path given to "
            "--checkpoint."
        )
    with path.open("rb") as stream:
        container = _container(stream, path)
        content, read_bytes = _open_zip(stream, path) if container == "zip" else _open_legacy(stream, path)
        records = _state_dict(content, path)
        weights = {name: _tensor(record, read_bytes, f"'{name}' in '{path}'") for name, record in records.items()}
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    assert isinstance(content, dict)
    facts = {key: value for key, value in content.items() if isinstance(key, str) and _is_plain(value)}
    return Checkpoint(weights, facts, container, digest)


def _is_plain(value: object) -> bool:
    """Tell whether JSON can hold the value; scores of a diverged training may be NaN."""
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _container(stream: BinaryIO, path: Path) -> str:
    start = stream.read(4)
    stream.seek(0)
    if start == _ZIP_START:
        return "zip"
    if start[:1] == b"\x80":
        return "legacy"
    found = "is empty" if not start else "is not in a format of torch.save"
    raise ModelError(f"'{path}' {found}. Expected a checkpoint of the authors (.pth). {_AGAIN}")


def _open_zip(stream: BinaryIO, path: Path) -> tuple[object, ReadBytes]:
    torn = f"'{path}' is a torn zip archive. Expected a whole checkpoint. {_AGAIN}"
    try:
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelError(torn) from error
    roots = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ModelError(
            f"'{path}' is a zip archive without a checkpoint (no data.pkl). Expected what torch.save writes. {_AGAIN}"
        )

    def read(name: str) -> bytes:
        try:
            entry = archive.getinfo(roots[0] + name)
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ModelError(
                    f"'{path}' is compressed inside, which torch.save never does. Unpack nothing; {_AGAIN.lower()}"
                )
            return archive.read(entry)
        except (KeyError, zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:
            raise ModelError(torn) from error

    if roots[0] + "byteorder" in archive.namelist() and read("byteorder") != b"little":
        raise ModelError(
            f"'{path}' holds big-endian numbers. Expected little-endian ones. Save it again on a common machine."
        )
    content = read_pickle(io.BytesIO(read("data.pkl")), find, _storage_record)
    return content, lambda storage: read(f"data/{storage.key}")


def _open_legacy(stream: BinaryIO, path: Path) -> tuple[object, ReadBytes]:
    storages: dict[str, StorageRecord] = {}

    def persistent(identifier: object) -> object:
        record = _storage_record(identifier)
        if isinstance(record, StorageRecord):
            storages.setdefault(record.key, record)
        return record

    magic, protocol, system = (read_pickle(stream, find, persistent) for _ in range(3))
    if (magic, protocol) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
        raise ModelError(f"'{path}' is a pickle, but not a checkpoint. Expected what torch.save writes. {_AGAIN}")
    if not (isinstance(system, dict) and system.get("little_endian")):
        raise ModelError(
            f"'{path}' holds big-endian numbers. Expected little-endian ones. Save it again on a common machine."
        )
    content = read_pickle(stream, find, persistent)
    keys = read_pickle(stream, find, persistent)
    places = _places(stream, keys if isinstance(keys, list) else [], storages, path)

    def read_bytes(storage: StorageRecord) -> bytes:
        if storage.key not in places:
            raise ModelError(f"'{path}' lacks the numbers of a tensor. Expected a whole checkpoint. {_AGAIN}")
        start, length = places[storage.key]
        stream.seek(start)
        return stream.read(length)

    return content, read_bytes


def _places(
    stream: BinaryIO, keys: list[object], storages: dict[str, StorageRecord], path: Path
) -> dict[str, tuple[int, int]]:
    """Find where each storage lies: for every key, in order, the number of elements (int64) and then the elements."""
    size = os.fstat(stream.fileno()).st_size
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        record = storages.get(str(key))
        count = int.from_bytes(stream.read(8), "little", signed=True)
        length = count * _dtype(record).itemsize if record else -1
        start = stream.tell()
        if record is None or count != record.length or start + length > size:
            raise ModelError(f"'{path}' ends early or is torn. Expected a whole checkpoint. {_AGAIN}")
        places[record.key] = (start, length)
        stream.seek(start + length)
    return places


def _storage_record(identifier: object) -> object:
    """Read torch's identifier of what lies outside the pickle.

    It is ('storage', type, key, location, length[, view]) or ('module', class, file, source). The location is dropped:
    every tensor comes to the CPU.
    """
    if isinstance(identifier, tuple) and identifier[0] == "module":
        return identifier[1]
    if not isinstance(identifier, tuple) or len(identifier) < 5:
        raise TypeError("an identifier of something other than a storage")
    kind, key, _, length, *further = identifier[1:]
    if not (isinstance(kind, Constructor) and isinstance(length, int)):
        raise TypeError("a storage without type or length")
    dtype = STORAGE_DTYPES[kind.name.rpartition(".")[2]]
    view = further[0] if further else None
    return StorageRecord(dtype, str(key), length, int(view[1]) if view is not None else 0)


def _state_dict(content: object, path: Path) -> dict[str, TensorRecord]:
    if not isinstance(content, dict) or "state_dict" not in content:
        found = f"the keys {', '.join(map(str, list(content)[:6]))}" if isinstance(content, dict) else "no mapping"
        raise ModelError(
            f"'{path}' holds {found}. Expected a checkpoint of the authors, a mapping with the key 'state_dict'. "
            "If this is a bare state dict, save {'state_dict': it} and import that."
        )
    state = content["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, TensorRecord) for k, v in state.items()
    ):
        raise ModelError(
            f"The 'state_dict' in '{path}' is no mapping of names to tensors. Expected the state dict of a model. "
            f"{_AGAIN}"
        )
    parallel = bool(state) and all(name.startswith("module.") for name in state)
    return {name.removeprefix("module.") if parallel else name: record for name, record in state.items()}


def _dtype(storage: StorageRecord) -> torch.dtype:
    dtype = getattr(torch, storage.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _tensor(record: TensorRecord, read_bytes: ReadBytes, name: str) -> Tensor:
    """Read the numbers of a tensor and lay them out; floating ones become float32."""
    storage, dtype = record.storage, _dtype(record.storage)
    offset = storage.start + record.offset
    last = offset + sum((size - 1) * stride for size, stride in zip(record.size, record.stride, strict=False))
    negative = min((offset, *record.size, *record.stride)) < 0
    count = math.prod(record.size)
    if (
        negative
        or len(record.size) != len(record.stride)
        or count > storage.length
        or (count and last >= storage.length)
    ):
        raise ModelError(f"The tensor {name} does not fit its numbers. Expected a whole checkpoint. {_AGAIN}")
    if not count:
        return torch.empty(record.size, dtype=dtype)
    data = read_bytes(storage)
    if len(data) != storage.length * dtype.itemsize:
        raise ModelError(
            f"The tensor {name} has {len(data)} bytes. Expected {storage.length * dtype.itemsize}. {_AGAIN}"
        )
    tensor = torch.frombuffer(bytearray(data), dtype=dtype).as_strided(record.size, record.stride, offset)
    return tensor.to(torch.float32) if dtype.is_floating_point else tensor.clone()
