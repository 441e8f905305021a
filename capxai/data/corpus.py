"""Corpus folders: a manifest, pictures, and captions and objects in COCO format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capxai.data.annotations import (
    Json,
    ObjectAnnotation,
    Picture,
    Problems,
    read_captions,
    read_categories,
    read_json,
    read_objects,
    read_pictures,
)
from capxai.data.masks import decode_mask
from capxai.errors import CorpusError, unknown_choice
from capxai.types import JsonObject

MANIFEST = "corpus.json"
SCHEMA = 1
_REMEDY = "Write the corpus again with 'capxai prepare', or mend the file."


@dataclass(frozen=True)
class Split:
    """The pictures of one split and what is said about them.

    Attributes:
        name: The name of the split ("train", "val", ...).
        pictures: The pictures, in the order of the caption file.
        captions: The reference captions of every picture, by its id; empty where it has none.
        objects: The objects of every picture, by its id; empty where it has none.
        categories: Names of the object categories, by their id; empty if the split has no instance file.
        has_objects: Whether the split has an instance file at all.
    """

    name: str
    pictures: tuple[Picture, ...]
    captions: Mapping[int, tuple[str, ...]]
    objects: Mapping[int, tuple[ObjectAnnotation, ...]]
    categories: Mapping[int, str]
    has_objects: bool
    _places: dict[int, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._places.update({picture.id: place for place, picture in enumerate(self.pictures)})

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.pictures)

    def picture(self, image_id: int) -> Picture:
        """Find a picture by its id.

        Raises:
            CorpusError: The split has no such picture.
        """
        if image_id not in self._places:
            raise CorpusError(
                f"Image id {image_id} is not in the split '{self.name}'. Expected one of its {len(self)} ids. Check "
                "that the id and the split belong together."
            )
        return self.pictures[self._places[image_id]]

    def mask(self, annotation: ObjectAnnotation) -> NDArray[np.bool_]:
        """Draw the mask of an object.

        Returns:
            (H, W) bool of the size of its picture, true on the object.

        Raises:
            CorpusError: The segmentation is missing or damaged, or is not of the size of the picture.
        """
        picture = self.picture(annotation.image_id)
        try:
            return decode_mask(annotation.segmentation, picture.height, picture.width)
        except CorpusError as error:
            where = f"Object {annotation.id} of picture {picture.id} ('{picture.path.name}')"
            raise CorpusError(f"{where}: {error}") from error


@dataclass(frozen=True)
class Corpus:
    """A corpus folder whose manifest has been read; its splits are read when they are asked for.

    Attributes:
        folder: The corpus folder.
        name: The name of the corpus ("scenes", "coco", ...).
        manifest: All that ``corpus.json`` says.
    """

    folder: Path
    name: str
    manifest: JsonObject

    @classmethod
    def open(cls, folder: str | Path) -> Corpus:
        """Read the manifest of a corpus folder.

        Raises:
            CorpusError: The folder or its manifest is missing, torn, or of a version that this capxai does not know.
        """
        folder = Path(folder)
        path = folder / MANIFEST
        if not path.is_file():
            found = f"has no {MANIFEST}" if folder.is_dir() else "does not exist as a folder"
            raise CorpusError(
                f"'{folder}' {found}. Expected a corpus folder. Make one with 'capxai prepare scenes --out DIR' (or "
                "coco, flickr30k, karpathy) and name it with --corpus."
            )
        manifest = read_json(path)
        problems = Problems(path)
        if manifest.get("schema") != SCHEMA:
            problems.note(f"the unknown schema {manifest.get('schema')!r} (this capxai reads {SCHEMA})")
        if not isinstance(manifest.get("name"), str):
            problems.note("no text 'name'")
        _check_splits(manifest.get("splits"), problems)
        problems.raise_if_any("a manifest with schema, name and splits", _REMEDY)
        return cls(folder, manifest["name"], manifest)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self.manifest["splits"])

    def split(self, name: str) -> Split:
        """Read one split.

        Raises:
            CorpusError: There is no such split, a file of it is missing or torn, or its files contradict each other.
            All problems of one file are in one message.
        """
        if name not in self.splits:
            raise CorpusError(f"{unknown_choice('split', name, self.splits)} (Corpus '{self.folder}'.)")
        entry = self.manifest["splits"][name]
        pictures, captions = self._read_captions(entry)
        objects, categories = self._read_instances(entry, pictures)
        return Split(name, pictures, captions, objects, categories, "instances" in entry)

    def _read_captions(self, entry: Json) -> tuple[tuple[Picture, ...], dict[int, tuple[str, ...]]]:
        path = self.folder / entry["captions"]
        content, problems = read_json(path), Problems(path)
        pictures = read_pictures(content, self.folder / entry["images"], problems)
        captions = read_captions(content, {picture.id for picture in pictures}, problems)
        _check_count(entry, "pictures", len(pictures), problems)
        _check_count(entry, "captions_count", sum(map(len, captions.values())), problems)
        problems.raise_if_any("a COCO caption file whose pictures all exist", _REMEDY)
        return pictures, captions

    def _read_instances(
        self, entry: Json, pictures: tuple[Picture, ...]
    ) -> tuple[dict[int, tuple[ObjectAnnotation, ...]], dict[int, str]]:
        if "instances" not in entry:
            return {picture.id: () for picture in pictures}, {}
        path = self.folder / entry["instances"]
        content, problems = read_json(path), Problems(path)
        categories = read_categories(content, problems)
        objects = read_objects(content, [picture.id for picture in pictures], categories, problems)
        _check_count(entry, "objects", sum(map(len, objects.values())), problems)
        problems.raise_if_any("a COCO instance file for the pictures of its caption file", _REMEDY)
        return objects, categories


def _check_splits(splits: object, problems: Problems) -> None:
    if not isinstance(splits, dict) or not splits:
        problems.note("no 'splits'")
        return
    for name, entry in splits.items():
        if not isinstance(entry, dict):
            problems.add("splits that are no table", name)
            continue
        for key in ("images", "captions", "instances"):
            if not isinstance(entry.get(key), str) and (key in entry or key != "instances"):
                problems.add(f"splits without a path for '{key}'", name)


def _check_count(entry: Json, key: str, found: int, problems: Problems) -> None:
    """Compare with the count in the manifest, where it has one: a shortened file can be valid JSON all the same."""
    if isinstance(entry.get(key), int) and entry[key] != found:
        problems.note(f"{found} usable {key.removesuffix('_count')} where {MANIFEST} says {entry[key]}")
