"""A corpus in the making: what was read from files of any format, before it is divided into splits and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capxai.data.annotations import Json
from capxai.data.findings import Findings
from capxai.data.json_tables import SourceText
from capxai.types import JsonObject


@dataclass(slots=True)
class PictureDraft:
    """A picture as its source lists it.

    Attributes:
        id: Its id, unique over all sources.
        folder: The folder of pictures of its source.
        file_name: Its file, relative to the folder (subfolders are possible).
        origin: The part of the source that it is from: "train2017", "restval", ...
        width: Width in pixels, or None where the source does not say.
        height: Height in pixels, or None where the source does not say.
        details: What else the source says about it (license, addresses, ...).
    """

    id: int
    folder: Path
    file_name: str
    origin: str
    width: int | None
    height: int | None
    details: Json

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.folder / self.file_name


@dataclass(slots=True)
class CaptionDraft:
    """A caption.

    Attributes:
        id: Its id in its source, or None where it has none.
        text: The caption, as written.
        words: The words as the source splits it, or None where the source does not.
    """

    id: int | None
    text: str
    words: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ObjectTable:
    """The objects of one instance file: where the text of each one is, and what one must know to choose among them.

    Attributes:
        source: The file.
        ids: (M,) int64, the id of each object.
        image_ids: (M,) int64, the picture of each object.
        category_ids: (M,) int64.
        spans: (M, 2) int64, where the text of each object begins and ends.
        categories: The entries of the table ``categories`` by their id.
        sizes: Width and height of every picture that the file lists, by its id; None where it does not say.
        head: The values ``info`` and ``licenses``, where the file has them.
    """

    source: SourceText
    ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    spans: NDArray[np.int64]
    categories: Mapping[int, Json]
    sizes: Mapping[int, tuple[int, int] | None]
    head: JsonObject

    def keep(self, wanted: NDArray[np.bool_]) -> ObjectTable:
        """Return the table with the marked objects alone; ``wanted`` is (M,)."""
        return ObjectTable(
            self.source,
            self.ids[wanted],
            self.image_ids[wanted],
            self.category_ids[wanted],
            self.spans[wanted],
            self.categories,
            self.sizes,
            self.head,
        )


@dataclass
class Draft:
    """All that was read.

    Attributes:
        findings: What was wrong or odd; whatever is bad is not in the draft any more.
        pictures: The pictures by id, in the order of their sources.
        captions: The captions of every picture, by its id.
        objects: One table for each instance file.
        sources: Path, hash and length of every file that was read.
        head: The values ``info`` and ``licenses`` of the first caption file that has them.
        with_words: Whether the captions carry the words as their source splits them.
    """

    findings: Findings = field(default_factory=Findings)
    pictures: dict[int, PictureDraft] = field(default_factory=dict)
    captions: dict[int, list[CaptionDraft]] = field(default_factory=dict)
    objects: list[ObjectTable] = field(default_factory=list)
    sources: list[JsonObject] = field(default_factory=list)
    head: JsonObject = field(default_factory=dict)
    with_words: bool = False

    def add_source(self, source: SourceText) -> None:
        """Remember where the draft comes from, and what is odd about the file as a whole."""
        entry = {"file": str(source.path.absolute()), "sha256": source.sha256, "bytes": source.size}
        if entry not in self.sources:
            self.sources.append(entry)
        if source.encoding == "utf-8-sig":
            self.findings.odd("files that begin with a byte order mark", f"'{source.path.name}'")
        elif source.encoding != "utf-8":
            self.findings.odd(f"files in {source.encoding.upper()} where UTF-8 is usual", f"'{source.path.name}'")

    def drop(self, unwanted: Callable[[PictureDraft], bool]) -> int:
        """Take pictures and their captions out; return how many pictures."""
        dropped = [number for number, picture in self.pictures.items() if unwanted(picture)]
        for number in dropped:
            del self.pictures[number]
            self.captions.pop(number, None)
        return len(dropped)
