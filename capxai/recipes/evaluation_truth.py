"""What captions are compared with: a split of a corpus, or annotation files in COCO format without their pictures."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from capxai.data.annotations import (
    Json,
    ObjectAnnotation,
    Picture,
    Problems,
    read_captions,
    read_categories,
    read_json,
    read_objects,
)
from capxai.data.corpus import Split
from capxai.data.vocabulary import tokenize
from capxai.errors import CorpusError
from capxai.types import Reporter

_REMEDY = "Mend the file, or copy it again from where it came."
_ID_LIST = re.compile(r"[\s,\[\]]+")
LARGEST_LIST = 16 * 2**20
"""Bytes of an image list. A million image ids fit in."""


@dataclass(frozen=True)
class AnnotationFiles:
    """Files in COCO format that captions are compared with.

    Attributes:
        captions: The caption file with the references, or None.
        instances: The instance file with the objects, or None.
        pictures: Folder of the picture files; None where they are not at hand.
    """

    captions: Path | None
    instances: Path | None
    pictures: Path | None = None


def read_annotation_files(files: AnnotationFiles, reporter: Reporter) -> Split:
    """Read references, objects or both; the pictures are those that the caption file lists, or else the instance file.

    An instance file may know more pictures than the caption file; those are left out.

    Raises:
        CorpusError: A file is missing, torn or contradicts itself, or the instance file does not list all pictures, or
            there is no folder of pictures.
    """
    first = files.captions or files.instances
    if first is None:
        raise CorpusError("There is no annotation file. Expected one. Give --captions, --instances or both.")
    if files.pictures is not None and not files.pictures.is_dir():
        raise CorpusError(
            f"There is no folder '{files.pictures}'. Expected the folder of the picture files. Check the path given with --pictures."
        )
    content, problems = _read(first), Problems(first)
    pictures = _pictures(content, files.pictures, problems)
    ids = [picture.id for picture in pictures]
    captions: Mapping[int, tuple[str, ...]] = dict.fromkeys(ids, ())
    if files.captions is not None:
        captions = read_captions(content, ids, problems)
    if not pictures:
        problems.note("no picture")
    problems.raise_if_any("a COCO annotation file", _REMEDY)
    objects: Mapping[int, tuple[ObjectAnnotation, ...]] = dict.fromkeys(ids, ())
    categories: dict[int, str] = {}
    if files.instances is not None:
        objects, categories = _objects(files.instances, ids, reporter)
    return Split(first.stem, pictures, captions, objects, categories, files.instances is not None)


def _read(path: Path) -> Json:
    """Read a JSON object, after a look at its first character: junk of any size is refused at once."""
    try:
        with path.open("rb") as file:
            first = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except OSError as error:
        raise CorpusError(
            f"'{path}' cannot be read ({error.strerror}). Expected a COCO annotation file. Check the path given with --captions or "
            "--instances."
        ) from error
    if first != b"{":
        found = f"{first.decode('latin-1')!r} at its beginning" if first else "nothing in it"
        raise CorpusError(
            f"'{path}' has {found}. Expected a COCO annotation file, which begins with '{{'. Check the path; "
            "captions to be measured are given with --predictions."
        )
    return read_json(path)


def _pictures(content: Json, folder: Path | None, problems: Problems) -> tuple[Picture, ...]:
    """Read the table ``images``; file names and sizes may be missing, for nothing here needs them."""
    table = content.get("images")
    if not isinstance(table, list):
        problems.note("no list 'images'")
        return ()
    pictures: dict[int, Picture] = {}
    for place, entry in enumerate(table):
        number = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(number, int) or isinstance(number, bool):
            problems.add("pictures without a whole id", f"entry {place + 1} of 'images': {number!r}")
        elif number in pictures:
            problems.add("image ids that occur twice", number)
        else:
            pictures[number] = _picture(number, entry, folder)
    return tuple(pictures.values())


def _picture(number: int, entry: Json, folder: Path | None) -> Picture:
    name = entry.get("file_name")
    path = Path(name) if isinstance(name, str) and name else Path(f"{number}.jpg")
    if path.is_absolute() or ".." in path.parts:
        path = Path(path.name)  # the file names of an annotation file stay inside the folder of the pictures
    width, height = (entry.get(key) if isinstance(entry.get(key), int) else 0 for key in ("width", "height"))
    return Picture(number, folder / path if folder else path, width or 0, height or 0)


def _objects(
    path: Path, ids: Sequence[int], reporter: Reporter
) -> tuple[Mapping[int, tuple[ObjectAnnotation, ...]], dict[int, str]]:
    content, problems = _read(path), Problems(path)
    listed = {picture.id for picture in _pictures(content, None, problems)}
    known = set(ids)
    for number in ids:
        if number not in listed:
            problems.add("captioned pictures that it does not list", f"image id {number}")
    categories = read_categories(content, problems)
    objects = read_objects(_only(content, listed - known), ids, categories, problems)
    problems.raise_if_any("a COCO instance file that lists all pictures of the caption file", _REMEDY)
    if listed - known:
        reporter.note(f"'{path}' knows {len(listed - known):,} further pictures; they are left out.")
    return objects, categories


def _only(content: Json, foreign: Collection[int]) -> Json:
    """Leave out the objects of pictures that the instance file lists and nobody asks for."""
    table = content.get("annotations")
    if not foreign or not isinstance(table, list):
        return content
    kept = [entry for entry in table if not isinstance(entry, dict) or entry.get("image_id") not in foreign]
    return {**content, "annotations": kept}


def read_image_list(path: Path) -> tuple[int, ...]:
    """Read a list of image ids: whole numbers between spaces, commas or line ends, brackets allowed.

    Raises:
        CorpusError: The file cannot be read, is too large or empty, or holds something else or an id twice.
    """
    parts = [part for part in _ID_LIST.split(_list_text(path)) if part]
    problems, found = Problems(path), dict[int, None]()
    for place, part in enumerate(parts, start=1):
        if not part.isascii() or not part.isdigit() or len(part) > 19:
            problems.add("entries that are no image id", f"entry {place}: {part[:40]!r}")
        elif int(part) in found:
            problems.add("image ids that occur twice", f"entry {place}: {part}")
        else:
            found[int(part)] = None
    if not found:
        problems.note("no image id")
    problems.raise_if_any("image ids, one a line", "Mend the named entries.")
    return tuple(found)


def _list_text(path: Path) -> str:
    """Read a text file that is not too large."""
    try:
        size = path.stat().st_size
        if size > LARGEST_LIST:
            raise CorpusError(
                f"The image list '{path}' has {size / 2**20:,.1f} MiB. Expected image ids, at most {LARGEST_LIST / 2**20:.0f} MiB of "
                "them. Check that the file is the right one."
            )
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise CorpusError(
            f"The image list '{path}' cannot be read ({reason}). Expected image ids. Check the path."
        ) from error


def restricted(split: Split, images: Collection[int] | None, limit: int | None) -> Split:
    """Leave out pictures: all that a list does not name, then all after the first so many.

    Raises:
        CorpusError: The list names pictures that the split does not have.
    """
    if images is not None:
        known = {picture.id for picture in split.pictures}
        unknown = [number for number in images if number not in known]
        if unknown:
            raise CorpusError(
                f"{len(unknown)} of {len(images)} image ids of the list are not in '{split.name}' ({named(unknown)}). "
                f"Expected ids of its {len(known)} pictures. Check that list and annotations belong together."
            )
        wanted = frozenset(images)
        split = replace(split, pictures=tuple(picture for picture in split.pictures if picture.id in wanted))
    return split if limit is None else replace(split, pictures=split.pictures[:limit])


def refuse_missing_references(split: Split, remedy: str) -> None:
    """See that every picture has a reference with a word in it.

    Raises:
        CorpusError: Some have none; the first of them are named.
    """
    bare = [picture.id for picture in split.pictures if not any(map(tokenize, split.captions[picture.id]))]
    if bare:
        raise CorpusError(
            f"{len(bare)} of {len(split)} pictures of '{split.name}' have no reference caption with a word in it "
            f"({named(bare)}). Expected at least one for each picture. {remedy}"
        )


def named(ids: Sequence[int]) -> str:
    """Name the first few of some pictures."""
    return "image ids " + ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
