"""Object masks from COCO segmentations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from capxai.errors import CorpusError

_FARTHEST = 100_000  # pixels; pycocotools reserves memory by the length of a polygon's edges


def decode_mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Draw a segmentation: polygons, or a run-length code, compressed or not.

    pycocotools turns polygons into runs; the runs are checked and drawn here, because its decoder takes a code that
    breaks off for a complete one and then shows whatever was in memory.

    Returns:
        (height, width) bool, true on the object.

    Raises:
        CorpusError: There is no segmentation, it is damaged, or it is not of this size.
    """
    if isinstance(segmentation, list) and segmentation:
        united = coco_mask.merge(coco_mask.frPyObjects(_polygons(segmentation), height, width))
        lengths = _decompressed(united["counts"].decode("ascii"))
    elif isinstance(segmentation, dict):
        lengths = _run_lengths(segmentation, height, width)
    else:
        raise _unusable("is missing or empty")
    is_object = np.arange(len(lengths)) % 2 == 1  # runs off and on the object take turns, down the columns
    return np.ascontiguousarray(np.repeat(is_object, lengths).reshape(width, height).T)  # (height, width)


def _is_position(value: Any) -> bool:
    return type(value) in (int, float) and -_FARTHEST < value < _FARTHEST  # false for NaN


def _polygons(segmentation: list[Any]) -> list[list[float]]:
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise _unusable("has a polygon of fewer than three corners")
        if not all(_is_position(value) for value in polygon):
            raise _unusable("has a polygon with corners that are no positions on a picture")
    return segmentation


def _run_lengths(segmentation: dict[str, Any], height: int, width: int) -> list[int]:
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if size != [height, width]:
        raise _unusable(f"is for a picture of (height, width) {size}, and the picture has {[height, width]}")
    if isinstance(counts, str):
        lengths = _decompressed(counts)
    elif isinstance(counts, list) and all(type(count) is int for count in counts):
        lengths = counts
    else:
        raise _unusable("has a run-length code without counts")
    if any(length < 0 for length in lengths) or sum(lengths) != height * width:
        raise _unusable(f"has a run-length code of {sum(lengths)} pixels, and the picture has {height * width}")
    return lengths


def _decompressed(counts: str) -> list[int]:
    """Read COCO's compressed run lengths.

    A number is a row of characters of six bits each, less 48, the low bits first: five bits of the number, and one that
    tells whether more follow; bit 16 of the last character is the sign. From the fourth number on, what is stored is
    the difference to the number two places before (pycocotools, maskApi.c, rleToString).
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise _unusable("has a damaged run-length code")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    if shift:
        raise _unusable("has a run-length code that breaks off")
    return lengths


def _unusable(found: str) -> CorpusError:
    return CorpusError(
        f"The segmentation {found}. Expected COCO polygons or a run-length code of the picture's size. Mend the "
        "instance file, or leave out what needs masks."
    )
