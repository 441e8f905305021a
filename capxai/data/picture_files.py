"""Looks at the picture files of a draft: whether they are there, how large they are, and whether they are whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageFile

from capxai.data.annotations import FolderListing
from capxai.data.drafts import Draft, PictureDraft
from capxai.types import Reporter

_TURNED = range(5, 9)  # EXIF orientations that swap width and height
_ORIENTATION = 0x0112
_AT_ONCE = 4096
_SHRINK = 8


@dataclass(frozen=True)
class _Looked:
    """What a picture file shows: its size as stored and as it is to be seen, or what is wrong with it."""

    stored: tuple[int, int] = (0, 0)
    seen: tuple[int, int] = (0, 0)
    error: str = ""


def drop_missing(draft: Draft) -> None:
    """Note pictures without a file and take them out; note files that stand for several pictures."""
    listing = FolderListing()
    paths: dict[Path, int] = {}
    missing: set[int] = set()
    for number, picture in draft.pictures.items():
        path = picture.path
        if path not in listing:
            draft.findings.bad("missing picture files", f"'{path}'")
            missing.add(number)
        elif path in paths:
            draft.findings.odd("picture files that stand for more than one image id", f"{number} and {paths[path]}")
        else:
            paths[path] = number
    draft.drop(lambda picture: picture.id in missing)


def look_into(draft: Draft, every: bool, reporter: Reporter) -> None:
    """Read the sizes of the pictures whose source does not tell them.

    Pictures that cannot be read are noted and taken out.

    Args:
        draft: The draft.
        every: Whether to look into all pictures: decode them (at an eighth of their size, which needs all of the file) and
            compare their sizes with the annotated ones.
        reporter: Where progress is shown.
    """
    wanted = [
        picture for picture in draft.pictures.values() if every or picture.width is None or picture.height is None
    ]
    if not wanted:
        return
    refused: set[int] = set()
    look = _decode if every else _read_size
    with reporter.track("Looking into the pictures", len(wanted)) as advance:
        for picture, found in _in_threads(look, wanted):
            if not _accept(draft, picture, found):
                refused.add(picture.id)
            advance(1)
    draft.drop(lambda picture: picture.id in refused)


def drop_without_captions(draft: Draft) -> None:
    """Note pictures without a caption and take them out."""
    for number, captions in draft.captions.items():
        if not captions:
            draft.findings.bad("pictures without a usable caption", f"image id {number}")
    draft.drop(lambda picture: not draft.captions[picture.id])


def _in_threads(
    look: Callable[[Path], _Looked], pictures: Sequence[PictureDraft]
) -> Iterator[tuple[PictureDraft, _Looked]]:
    """Look into pictures on all cores, in their order (decoding runs outside of Python's lock)."""
    with ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:
        for first in range(0, len(pictures), _AT_ONCE):
            some = pictures[first : first + _AT_ONCE]
            yield from zip(some, pool.map(look, [picture.path for picture in some]), strict=True)


def _accept(draft: Draft, picture: PictureDraft, found: _Looked) -> bool:
    """Take over or compare the size of a picture; False if the picture cannot be used."""
    annotated = (picture.width, picture.height)
    if found.error:
        draft.findings.bad("pictures that cannot be read", f"'{picture.path}': {found.error}")
        return False
    if None in annotated:
        picture.width, picture.height = found.seen
    elif annotated not in (found.stored, found.seen):
        sizes = f"{annotated[0]} x {annotated[1]} annotated, {found.seen[0]} x {found.seen[1]} found"
        draft.findings.bad("pictures of another size than annotated", f"image id {picture.id}: {sizes}")
        return False
    elif annotated != found.seen:
        draft.findings.odd("pictures annotated as stored, which their EXIF orientation turns", f"image id {picture.id}")
    return True


def _read_size(path: Path) -> _Looked:
    return _look(path, lambda image: None)


def _decode(path: Path) -> _Looked:
    def load(image: ImageFile.ImageFile) -> None:
        # A JPEG can be decoded at a fraction of its size: all of its bytes are needed, most of the arithmetic is not.
        image.draft("RGB", (max(1, image.width // _SHRINK), max(1, image.height // _SHRINK)))
        image.load()

    return _look(path, load)


def _look(path: Path, load: Callable[[ImageFile.ImageFile], None]) -> _Looked:
    try:
        with Image.open(path) as image:
            stored = (image.width, image.height)
            turned = image.getexif().get(_ORIENTATION) in _TURNED
            load(image)
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged files
        return _Looked(error=str(error) or type(error).__name__)
    return _Looked(stored, stored[::-1] if turned else stored)
