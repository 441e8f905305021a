"""Questions about many numbers, answered at the speed of memory: by their bits, since numpy computes slowly in half precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BITS: dict[int, tuple[type[np.unsignedinteger[Any]], int, int]] = {
    2: (np.uint16, 0x7FFF, 0x7C00),
    4: (np.uint32, 0x7FFFFFFF, 0x7F800000),
}
"""By the bytes of a number: the integer of its size, all its bits but the sign, and those of infinity (NaN has larger ones)."""


def finite_and_zero_rows(values: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Look at each row of an array.

    Args:
        values: (n, ...) float16 or float32, contiguous.

    Returns:
        (n,) whether a row holds finite numbers only, and (n,) whether it holds nothing but zeros.
    """
    kind, magnitude, infinity = _BITS[values.dtype.itemsize]
    largest = (values.reshape(len(values), -1).view(kind) & kind(magnitude)).max(axis=1)
    return largest < infinity, largest == 0


def repeated(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers that occur more than once, ascending; at once where they ascend already, as in most files."""
    if (numbers[1:] > numbers[:-1]).all():
        return numbers[:0]
    ordered = np.sort(numbers)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
