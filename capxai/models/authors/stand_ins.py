"""What may be named in a checkpoint's pickle, and the plain data that stands for it.

Tensors and storages become records of where their numbers lie, containers become plain containers, and objects of
torch's optimizers and layers become `Inert`. Everything else is refused by name, because a global that is not needed is
a way to run code.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from capxai.errors import UnsafeCheckpointError
from capxai.models.authors.pickles import Constructor, Key

STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
"""Storage classes of torch and the dtype of their elements, as attributes of torch."""


@dataclass(frozen=True, eq=False)
class StorageRecord(Key):
    """A run of numbers in the file.

    Attributes:
        dtype: A value of `STORAGE_DTYPES`.
        key: Its name in the file.
        length: Number of elements of the whole storage.
        start: First element that belongs to this view of it.
    """

    dtype: str
    key: str
    length: int
    start: int = 0


@dataclass(frozen=True, eq=False)
class TensorRecord(Key):
    """A tensor as a strided view of a storage; offset and strides count elements."""

    storage: StorageRecord
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def take_state(self, state: object) -> None:
        """Drop attributes that were set on the tensor."""


class Inert(Key):
    """Stands for an object of which nothing is needed: it swallows arguments, state and items."""

    def __init__(self, *arguments: object) -> None:
        """Forget the arguments."""

    def take_state(self, state: object) -> None:
        """Forget the state."""


class NumberFormat:
    """Stands for a numpy dtype such as ``f8``, of one number."""

    codes = {"f2": "e", "f4": "f", "f8": "d", "b1": "?"} | {
        f"{sign}{size}": code
        for sign, codes in (("i", "bhiq"), ("u", "BHIQ"))
        for size, code in zip((1, 2, 4, 8), codes, strict=True)
    }

    def __init__(self, name: str, *flags: object) -> None:
        self.code = self.codes[name]
        self.order = "<"

    def take_state(self, state: object) -> None:
        """Take the byte order, the second entry of numpy's state."""
        if isinstance(state, tuple) and state[1] == ">":
            self.order = ">"


def find(module: str, name: str) -> Constructor:
    """Return the stand-in for a global.

    Raises:
        UnsafeCheckpointError: It is not one that a captioner's checkpoint needs.
    """
    full = f"{'builtins' if module == '__builtin__' else module}.{name}"
    if full in _EXPECTED:
        return _EXPECTED[full]
    if _INERT.fullmatch(full):
        return Constructor(full, Inert)
    raise UnsafeCheckpointError(
        f"The checkpoint's pickle asks for '{module}.{name}', which no captioner's checkpoint needs and which could "
        "run code. "
        "Expected tensors, plain containers and torch's optimizers alone. Nothing of it was run. Do not use this file "
        "unless you "
        "trust its source; if you do, load it with PyTorch yourself and save {'state_dict': ...} alone, then import "
        "that."
    )


_INERT = re.compile(
    r"torch\.(?:optim|nn)(?:\.[a-z_][a-z_0-9]*)*\._?[A-Z][A-Za-z0-9_]*"  # classes, not functions
    r"|torch\.(?:Tensor|device|float16|float32|float64|bfloat16|int8|int16|int32|int64|uint8|bool)"
    r"|models\.modelutils\.AverageMeter"  # the authors' running mean of the loss, in checkpoints saved within an epoch
)


def _mapping(entries: Iterable[tuple[str, object]] = ()) -> dict[str, object]:
    return dict(entries)


def _default_mapping(factory: object = None) -> dict[object, object]:
    return {}


def _tensor(storage: object, offset: object, size: object, stride: object, *further: object) -> TensorRecord:
    """Stand for torch's rebuild functions; what follows the stride (gradient flag, hooks, metadata) is dropped."""
    if not (isinstance(storage, StorageRecord) and isinstance(offset, int)):
        raise TypeError("a tensor without storage or offset")
    return TensorRecord(storage, offset, _whole_numbers(size), _whole_numbers(stride))


def _parameter(data: object, *further: object) -> object:
    if not isinstance(data, TensorRecord):
        raise TypeError("a parameter without a tensor")
    return data


def _whole_numbers(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(isinstance(value, int) for value in values):
        raise TypeError("a shape that is no tuple of whole numbers")
    return values


def _encoded(text: str, encoding: str) -> bytes:
    """Stand for ``_codecs.encode``, by which Python 3 writes bytes into pickles that Python 2 can read."""
    if encoding != "latin1":
        raise ValueError("bytes in an encoding other than latin1")
    return text.encode("latin1")


def _number(number_format: object, data: object) -> object:
    """Stand for a numpy scalar; the authors' scores are such."""
    if not (isinstance(number_format, NumberFormat) and isinstance(data, bytes)):
        raise TypeError("a number without format or bytes")
    value: object = struct.unpack(number_format.order + number_format.code, data)[0]
    return value


def _storage_type(name: str) -> Constructor:
    def refuse(*arguments: object) -> object:
        raise TypeError(f"torch.{name} is called")

    return Constructor(f"torch.{name}", refuse)


def _set(items: object = ()) -> set[object]:
    if not isinstance(items, list) or any(isinstance(item, tuple) for item in items):
        raise TypeError("a set of something that torch does not write")
    return set(items)


def _sequence(items: object = ()) -> tuple[object, ...]:
    if not isinstance(items, list | tuple):
        raise TypeError(f"a sequence made of a {type(items).__name__}")
    return tuple(items)


def _no_bytes() -> bytes:
    return b""


_EXPECTED = {
    constructor.name: constructor
    for constructor in (
        Constructor("collections.OrderedDict", _mapping),
        Constructor("collections.defaultdict", _default_mapping),
        Constructor("collections.Counter", _mapping),
        Constructor("builtins.dict", _mapping),
        Constructor("builtins.set", _set),
        Constructor("builtins.frozenset", _set),
        Constructor("builtins.tuple", _sequence),
        Constructor("builtins.list", _sequence),
        Constructor("builtins.bytes", _no_bytes),
        *(Constructor(f"builtins.{name}", Inert) for name in ("int", "float", "str", "bool", "complex")),
        Constructor("torch.Size", _sequence),
        Constructor("torch._utils._rebuild_tensor", _tensor),
        Constructor("torch._utils._rebuild_tensor_v2", _tensor),
        Constructor("torch._utils._rebuild_parameter", _parameter),
        Constructor("torch._utils._rebuild_parameter_with_state", _parameter),
        *(_storage_type(name) for name in STORAGE_DTYPES),
        *(_storage_type(f"cuda.{name}") for name in STORAGE_DTYPES),
        Constructor("_codecs.encode", _encoded),
        Constructor("numpy.dtype", NumberFormat),
        Constructor("numpy.core.multiarray.scalar", _number),
        Constructor("numpy._core.multiarray.scalar", _number),
    )
}
