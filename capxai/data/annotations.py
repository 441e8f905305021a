"""Annotation files in COCO format, checked: every problem of a file is found before one message tells them all."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from capxai.errors import CorpusError

Json = Mapping[str, Any]
BoundingBox = tuple[float, float, float, float]
_NAMED_AT_MOST = 3
_REMEDY = "Write the corpus again with 'capxai prepare', or copy the file again from where it came."


@dataclass(frozen=True)
class Picture:
    """A picture of a corpus.

    Attributes:
        id: Its id in the annotation files.
        path: Where the file is.
        width: Width in pixels, as annotated.
        height: Height in pixels, as annotated.
    """

    id: int
    path: Path
    width: int
    height: int


@dataclass(frozen=True)
class ObjectAnnotation:
    """An object on a picture.

    Attributes:
        id: Its id in the instance file.
        image_id: Id of its picture.
        category_id: Id of its category.
        category: Name of its category.
        bbox: Left, top, width, height in pixels.
        segmentation: Polygons or run-length code as in the file (`capxai.data.masks.decode_mask` draws it), or None.
        crowd: Whether it stands for a group of objects (COCO's iscrowd).
    """

    id: int
    image_id: int
    category_id: int
    category: str
    bbox: BoundingBox
    segmentation: Any = field(repr=False, hash=False)
    crowd: bool = False


class Problems:
    """Collects what is wrong with a file, counted by kind; the first few of each kind are named."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, list[str]] = {}
        self._notes: list[str] = []

    def note(self, text: str) -> None:
        """Note a problem of the file as a whole; ``text`` reads after "has"."""
        self._notes.append(text)

    def add(self, kind: str, which: object) -> None:
        """Note a problem; ``kind`` is in the plural and reads after a count ("3 captions without text")."""
        self._found.setdefault(kind, []).append(str(which))

    def raise_if_any(self, expected: str, remedy: str) -> None:
        """Raise CorpusError if anything was noted."""
        if not self._found and not self._notes:
            return
        kinds = list(self._notes)
        for kind, found in self._found.items():
            named = ", ".join(found[:_NAMED_AT_MOST]) + (", ..." if len(found) > _NAMED_AT_MOST else "")
            kinds.append(f"{len(found)} {kind} ({named})")
        raise CorpusError(f"'{self._path}' has {'; '.join(kinds)}. Expected {expected}. {remedy}")


def read_json(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Args:
        path: The file.
        sha256: The hash that it should have, or None where none is known.

    Raises:
        CorpusError: The file is missing, unreadable, cut off, changed or something else.
    """
    try:
        data = path.read_bytes()
        _compare("" if sha256 is None else hashlib.sha256(data).hexdigest(), path, sha256)
        content = json.loads(data)
    except OSError as error:
        raise CorpusError(
            f"'{path}' cannot be read ({error.strerror}). Expected a JSON file that the corpus names. {_REMEDY}"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorpusError(
            f"'{path}' is not complete JSON ({error}). Expected a whole annotation file. {_REMEDY}"
        ) from error
    if not isinstance(content, dict):
        raise CorpusError(f"'{path}' holds a JSON {type(content).__name__}. Expected an object. {_REMEDY}")
    return content


def check_file(path: Path, sha256: str | None) -> None:
    """See that a file is what it was when its hash was taken; None stands for an unknown hash.

    Raises:
        CorpusError: It is not, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CorpusError(
            f"'{path}' cannot be read ({error.strerror}). Expected a file that the corpus names. {_REMEDY}"
        ) from error
    _compare(found, path, sha256)


def _compare(found: str, path: Path, sha256: str | None) -> None:
    if sha256 is not None and found != sha256:
        raise CorpusError(
            f"'{path}' is torn or was changed: its SHA-256 is not the one in the manifest. Expected it as 'capxai prepare' wrote "
            "it, since other files of the corpus follow from it. Make the corpus again, from changed source files if need be."
        )


def read_pictures(content: Json, folder: Path, problems: Problems) -> tuple[Picture, ...]:
    """Read the table ``images`` and see that each file is in ``folder``."""
    pictures: dict[int, Picture] = {}
    present = FolderListing()
    for entry in _table(content, "images", problems):
        number, name = entry.get("id"), entry.get("file_name")
        width, height = entry.get("width"), entry.get("height")
        if not is_whole(number):
            problems.add("pictures without a whole id", repr(number))
        elif not isinstance(name, str) or not name:
            problems.add("pictures without a file name", f"image id {number}")
        elif not (is_whole(width) and is_whole(height) and width > 0 and height > 0):
            problems.add("pictures without a width and height", f"image id {number}")
        elif number in pictures:
            problems.add("image ids that occur twice", number)
        else:
            pictures[number] = Picture(number, folder / name, width, height)
            if folder / name not in present:
                problems.add("missing picture files", f"'{folder / name}'")
    return tuple(pictures.values())


def read_captions(content: Json, known: Collection[int], problems: Problems) -> dict[int, tuple[str, ...]]:
    """Read the table ``annotations`` of a caption file."""
    captions: dict[int, list[str]] = {number: [] for number in known}
    seen: set[int] = set()
    for entry in _table(content, "annotations", problems):
        number, text, own = entry.get("image_id"), entry.get("caption"), entry.get("id")
        if is_whole(own) and own in seen:
            problems.add("caption ids that occur twice", own)
        elif not _is_known(number, captions):
            problems.add("captions for pictures that it does not list", f"image id {number}")
        elif not isinstance(text, str) or not text.strip():
            problems.add("captions without text", f"image id {number}")
        else:
            captions[number].append(text)
        if is_whole(own):
            seen.add(own)
    return {number: tuple(texts) for number, texts in captions.items()}


def read_categories(content: Json, problems: Problems) -> dict[int, str]:
    """Read the table ``categories`` of an instance file."""
    categories: dict[int, str] = {}
    for entry in _table(content, "categories", problems):
        number, name = entry.get("id"), entry.get("name")
        if not is_whole(number) or not isinstance(name, str) or not name:
            problems.add("categories without a whole id and a name", f"{number!r}: {name!r}")
        elif number in categories:
            problems.add("category ids that occur twice", number)
        else:
            categories[number] = name
    return categories


def read_objects(
    content: Json, known: Iterable[int], categories: Mapping[int, str], problems: Problems
) -> dict[int, tuple[ObjectAnnotation, ...]]:
    """Read the table ``annotations`` of an instance file."""
    objects: dict[int, list[ObjectAnnotation]] = {number: [] for number in known}
    seen: set[int] = set()
    for entry in _table(content, "annotations", problems):
        number, picture, category = entry.get("id"), entry.get("image_id"), entry.get("category_id")
        box = read_box(entry.get("bbox"))
        if not is_whole(number):
            problems.add("objects without a whole id", repr(number))
        elif number in seen:
            problems.add("object ids that occur twice", number)
        elif not _is_known(picture, objects):
            problems.add("objects on pictures that the caption file does not list", f"image id {picture}")
        elif not _is_known(category, categories):
            problems.add("objects of unknown categories", f"category id {category} of object {number}")
        elif box is None:
            problems.add("objects without a box of four numbers", f"object {number}")
        else:
            seen.add(number)
            found = ObjectAnnotation(
                number,
                picture,
                category,
                categories[category],
                box,
                entry.get("segmentation"),
                bool(entry.get("iscrowd")),
            )
            objects[picture].append(found)
    return {number: tuple(found) for number, found in objects.items()}


class FolderListing:
    """Tells which files exist, with one look into each folder (asking for 100,000 files is slow on network disks)."""

    def __init__(self) -> None:
        self._names: dict[Path, set[str]] = {}

    def __contains__(self, path: Path) -> bool:
        if path.parent not in self._names:
            try:
                with os.scandir(path.parent) as entries:
                    self._names[path.parent] = {entry.name for entry in entries if entry.is_file()}
            except OSError:
                self._names[path.parent] = set()
        return path.name in self._names[path.parent]


def _table(content: Json, key: str, problems: Problems) -> Iterator[Json]:
    """Yield the entries of a table that are objects."""
    table = content.get(key)
    if not isinstance(table, list):
        problems.note(f"no list '{key}'")
        return
    for place, entry in enumerate(table):
        if isinstance(entry, dict):
            yield entry
        else:
            problems.add(f"entries of '{key}' that are no objects", f"entry {place}")


def is_whole(value: object) -> TypeGuard[int]:
    """Tell whether a value is a whole number (true and false are none)."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_id(value: object) -> TypeGuard[int]:
    """Tell whether a value is a whole number that fits into 64 bits."""
    return is_whole(value) and -(2**63) <= value < 2**63


def _is_known(value: object, known: Collection[int]) -> TypeGuard[int]:
    return is_whole(value) and value in known


def read_box(value: object) -> BoundingBox | None:
    """Read left, top, width and height; None if they are not four finite numbers."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in value):
        return None
    left, top, width, height = map(float, value)
    return left, top, width, height
