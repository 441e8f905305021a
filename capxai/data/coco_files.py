"""Reads caption and instance files in COCO format into a draft, whatever is wrong with them."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capxai.data.annotations import Json, is_id, read_box
from capxai.data.caption_texts import usable_caption
from capxai.data.drafts import CaptionDraft, Draft, ObjectTable, PictureDraft
from capxai.data.findings import Findings
from capxai.data.json_tables import Entry, SourceText, is_broken, read_source, walk
from capxai.errors import CorpusError
from capxai.types import SILENT, JsonObject, Reporter

_OWN_KEYS = {"id", "file_name", "width", "height"}
_HEAD = ("info", "licenses")
_TABLES = ("images", "annotations", "categories")


@dataclass(frozen=True)
class CaptionFile:
    """A caption file in COCO format and the folder of its pictures.

    Attributes:
        name: What it is called: "train2017", "val", ...
        path: The file.
        images: The folder that its file names are relative to.
    """

    name: str
    path: Path
    images: Path


def read_coco(captions: Sequence[CaptionFile], instances: Sequence[Path], reporter: Reporter = SILENT) -> Draft:
    """Read caption files and instance files.

    Whatever cannot be used is noted in ``findings`` of the draft and left out of it; nothing is raised, so that one pass
    finds all. Whether picture files exist is not looked at here.
    """
    draft = Draft()
    with reporter.track("Reading annotation files", len(captions) + len(instances)) as advance:
        for file in captions:
            _read_or_note(draft, file.path, lambda source, file=file: _add_captions(draft, source, file))
            advance(1)
        for path in instances:
            _read_or_note(draft, path, lambda source: add_objects(draft, source))
            advance(1)
    return draft


def read_instances(draft: Draft, paths: Sequence[Path]) -> None:
    """Add instance files to a draft of any origin."""
    for path in paths:
        _read_or_note(draft, path, lambda source: add_objects(draft, source))


def _read_or_note(draft: Draft, path: Path, add: Any) -> None:
    try:
        source = read_source(path)
        draft.add_source(source)
        add(source)
    except CorpusError as error:
        draft.findings.torn(str(error))


@dataclass
class _CaptionReader:
    """What one caption file has told so far."""

    draft: Draft
    file: CaptionFile
    listed: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    caption_ids: set[int] = field(default_factory=set)
    captions: list[tuple[int, CaptionDraft]] = field(default_factory=list)

    @property
    def findings(self) -> Findings:
        return self.draft.findings

    def where(self, what: object) -> str:
        return f"{what} in {self.file.path.name}"

    def add_picture(self, entry: Json) -> None:
        number, name = entry.get("id"), entry.get("file_name")
        if not is_id(number):
            self.findings.bad("pictures without a whole id", self.where(repr(number)))
            return
        again = number in self.listed
        self.listed.add(number)
        if again:
            self.findings.bad("image ids that occur twice", self.where(number))
        elif number in self.draft.pictures:
            self.findings.bad("image ids that occur in two files", self.where(number))
            self.refused.add(number)
        elif not isinstance(name, str) or not name:
            self.findings.bad("pictures without a file name", self.where(f"image id {number}"))
            self.refused.add(number)
        else:
            self._add_sound(number, name, entry)

    def _add_sound(self, number: int, name: str, entry: Json) -> None:
        size = read_size(entry)
        if size is None and not (entry.get("width") is None and entry.get("height") is None):
            found = f"image id {number}: {entry.get('width')!r} x {entry.get('height')!r}"
            self.findings.bad("pictures of an impossible width or height", self.where(found))
            self.refused.add(number)
            return
        width, height = size or (None, None)
        details = {key: value for key, value in entry.items() if key not in _OWN_KEYS}
        picture = PictureDraft(number, self.file.images, name, self.file.name, width, height, details)
        self.draft.pictures[number] = picture
        self.draft.captions[number] = []

    def add_caption(self, entry: Json) -> None:
        number, image_id = entry.get("id"), entry.get("image_id")
        name = f"caption {number}" if "id" in entry else f"a caption of image id {image_id!r}"
        if "id" in entry and not is_id(number):
            self.findings.bad("captions with an id that is no whole number", self.where(repr(number)))
        elif number in self.caption_ids:
            self.findings.bad("caption ids that occur twice", self.where(number))
        elif not is_id(image_id):
            self.findings.bad("captions with an image id that is no whole number", self.where(f"{name}: {image_id!r}"))
        elif (text := usable_caption(entry.get("caption"), self.where(name), self.findings)) is not None:
            if is_id(number):
                self.caption_ids.add(number)
            self.captions.append((image_id, CaptionDraft(number, text)))

    def attach(self) -> None:
        """Give the captions to their pictures, now that all pictures are known."""
        for image_id, caption in self.captions:
            if image_id not in self.listed:
                self.findings.bad("captions of pictures that are not listed", self.where(f"image id {image_id}"))
            elif image_id not in self.refused:
                self.draft.captions[image_id].append(caption)


def _add_captions(draft: Draft, source: SourceText, file: CaptionFile) -> None:
    reader = _CaptionReader(draft, file)
    seen = set()
    for entry in walk(source, ("images", "annotations")):
        seen.add(entry.key)
        if entry.place < 0:
            _whole_value(draft.head, source, entry, draft.findings)
        elif not isinstance(entry.value, dict):
            draft.findings.bad(f"entries of '{entry.key}' that are no objects", reader.where(f"entry {entry.place}"))
        elif entry.key == "images":
            reader.add_picture(entry.value)
        else:
            reader.add_caption(entry.value)
    _note_missing(draft.findings, source, {"images", "annotations"} - seen, "captions")
    reader.attach()


def _whole_value(head: JsonObject, source: SourceText, entry: Entry, findings: Findings) -> None:
    """Keep the head of a file; a table that is no list is noted."""
    if entry.key in _TABLES:
        if not isinstance(entry.value, list):
            findings.torn(f"'{source.path}' has no list '{entry.key}'. Expected a file in COCO format.")
    elif entry.key in _HEAD and entry.finite:
        head.setdefault(entry.key, entry.value)


def _note_missing(findings: Findings, source: SourceText, missing: set[str], kind: str) -> None:
    for key in sorted(missing):
        findings.torn(f"'{source.path}' has no list '{key}'. Expected a COCO file of {kind}.")


def read_size(entry: Json) -> tuple[int, int] | None:
    """Read width and height of an entry of ``images``; None if they are no whole numbers above 0."""
    width, height = entry.get("width"), entry.get("height")
    return (width, height) if is_id(width) and is_id(height) and min(width, height) > 0 else None


@dataclass
class _ObjectReader:
    """What one instance file has told so far."""

    findings: Findings
    name: str
    ids: array[int] = field(default_factory=lambda: array("q"))
    image_ids: array[int] = field(default_factory=lambda: array("q"))
    category_ids: array[int] = field(default_factory=lambda: array("q"))
    spans: array[int] = field(default_factory=lambda: array("q"))
    categories: dict[int, Json] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int] | None] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)

    def where(self, what: object) -> str:
        return f"{what} in {self.name}"

    def columns(self) -> tuple[array[int], ...]:
        return self.ids, self.image_ids, self.category_ids, self.spans

    def add(self, entry: Entry) -> None:
        """Take over an entry of one of the three tables."""
        value = entry.value
        if not isinstance(value, dict):
            self.findings.bad(f"entries of '{entry.key}' that are no objects", self.where(f"entry {entry.place}"))
        elif entry.key == "annotations":
            self._add_object(entry, value)
        elif not is_id(number := value.get("id")):
            self.findings.bad(f"entries of '{entry.key}' without a whole id", self.where(f"{number!r}"))
        elif entry.key == "images":
            self.sizes[number] = read_size(value)
        elif not isinstance(value.get("name"), str) or not value["name"]:
            self.findings.bad("categories without a name", self.where(f"category id {number}"))
        elif number in self.categories:
            self.findings.bad("category ids that occur twice", self.where(number))
        else:
            self.categories[number] = value

    def _add_object(self, entry: Entry, value: Json) -> None:
        number, image_id, category = value.get("id"), value.get("image_id"), value.get("category_id")
        if not (is_id(number) and is_id(image_id) and is_id(category)):
            found = f"id {number!r}, image id {image_id!r}, category id {category!r}"
            self.findings.bad("objects whose ids are no whole numbers", self.where(found))
        elif number in self.seen:
            self.findings.bad("object ids that occur twice", self.where(number))
        elif not entry.finite or read_box(value.get("bbox")) is None:
            self.findings.bad("objects without a box of four finite numbers", self.where(f"object {number}"))
        else:
            self.seen.add(number)
            self.ids.append(number)
            self.image_ids.append(image_id)
            self.category_ids.append(category)
            self.spans.extend((entry.start, entry.end))


def add_objects(draft: Draft, source: SourceText) -> None:
    """Read an instance file into a draft.

    Raises:
        CorpusError: The file is no whole JSON.
    """
    reader = _ObjectReader(draft.findings, source.path.name)
    head: JsonObject = {}
    if is_broken(source.text):
        raise CorpusError(f"'{source.path}' holds bytes that are no UTF-8. Expected UTF-8. Copy the file again.")
    seen: set[str] = set()
    for entry in walk(source, _TABLES):
        seen.add(entry.key)
        if entry.place < 0:
            _whole_value(head, source, entry, draft.findings)
        else:
            reader.add(entry)
    _note_missing(draft.findings, source, set(_TABLES) - seen, "instances")
    ids, image_ids, category_ids, spans = (np.frombuffer(part, dtype=np.int64) for part in reader.columns())
    table = ObjectTable(
        source, ids, image_ids, category_ids, spans.reshape(-1, 2), reader.categories, reader.sizes, head
    )
    known = _note_unknown(draft.findings, table, category_ids, reader.categories, "objects of unknown categories")
    listed = _note_unknown(draft.findings, table, image_ids, reader.sizes, "objects of pictures that are not listed")
    draft.objects.append(table.keep(known & listed))


def _note_unknown(
    findings: Findings, table: ObjectTable, numbers: NDArray[np.int64], known: Collection[int], kind: str
) -> NDArray[np.bool_]:
    """Note the objects whose number is not among the known ones; return which are sound, (M,)."""
    sound = np.isin(numbers, np.fromiter(known, dtype=np.int64, count=len(known)))
    for place in np.flatnonzero(~sound):
        findings.bad(kind, f"{numbers[place]} of object {table.ids[place]} in {table.source.path.name}")
    return sound
