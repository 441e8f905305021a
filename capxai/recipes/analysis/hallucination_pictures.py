"""Pictures inside a page: each stored once, as small as all of them together have to be."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from capxai.data.images import read_image
from capxai.errors import ImageError

SIDES = (224, 160, 112)
"""Longest sides in pixels that are tried, one after the other, until the pictures have room."""
JPEG_QUALITY = 78
MOST_BYTES = 20 * 2**20
"""Of all pictures together, as they stand in the file."""
_BASE64 = 4 / 3


@dataclass(frozen=True)
class Packed:
    """Pictures of a page.

    Attributes:
        uris: The different pictures as data URIs.
        places: By image id: the place in ``uris``. A picture that cannot be read, or has no room, is left out.
    """

    uris: list[str]
    places: dict[int, int]


def pack_pictures(paths: Mapping[int, Path], most_bytes: int = MOST_BYTES) -> Packed:
    """Shrink pictures to JPEG; two files with the same content are stored once.

    Args:
        paths: Picture files by image id, the most important first: later ones are left out where even the smallest size is too much.
        most_bytes: Of all data URIs together.
    """
    encoded = {number: data for number, path in paths.items() if (data := _read(path)) is not None}
    for side in SIDES[1:]:
        if _size(encoded) <= most_bytes:
            break
        encoded = {number: _jpeg(Image.open(io.BytesIO(data)), side) for number, data in encoded.items()}
    places: dict[int, int] = {}
    known: dict[bytes, int] = {}
    uris: list[str] = []
    room = most_bytes
    for number, data in encoded.items():
        if data not in known:
            uri = "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
            if len(uri) > room:
                continue
            room -= len(uri)
            known[data] = len(uris)
            uris.append(uri)
        places[number] = known[data]
    return Packed(uris, places)


def _size(encoded: Mapping[int, bytes]) -> float:
    return _BASE64 * sum(len(data) + 24 for data in set(encoded.values()))


def _read(path: Path) -> bytes | None:
    try:
        return _jpeg(Image.fromarray(read_image(path)), SIDES[0])
    except ImageError:
        return None


def _jpeg(picture: Image.Image, side: int) -> bytes:
    picture.thumbnail((side, side))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return stream.getvalue()
