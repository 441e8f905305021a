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
    check_file,
    read_captions,
    read_categories,
    read_json,
    read_objects,
    read_pictures,
)
from capxai.data.encoded import EncodedCaptions
from capxai.data.later import ReadLater
from capxai.data.masks import decode_mask
from capxai.data.vocabulary import Vocabulary
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

        Objects are read when they are first asked for if the manifest has the hash of their file and the file has it too:
        then it is what was checked when the corpus was made. (Those of COCO's training pictures take gigabytes.)

        Raises:
            CorpusError: There is no such split, a file of it is missing or torn, or its files contradict each other.
            All problems of one file are in one message.
        """
        entry = self._entry(name)
        pictures, captions = self._read_captions(entry)
        if "instances" not in entry:
            return Split(name, pictures, captions, {picture.id: () for picture in pictures}, {}, False)
        if _hash(entry, "instances") is None:
            return Split(name, pictures, captions, *self._read_instances(entry, pictures), True)
        check_file(self.folder / entry["instances"], _hash(entry, "instances"))
        read = _InstancesOnce(self, entry, pictures)
        return Split(name, pictures, captions, ReadLater(read.objects), ReadLater(read.categories), True)

    def vocabulary(self) -> Vocabulary | None:
        """Read the words that the captions are encoded with; None for a corpus without a vocabulary.

        Raises:
            CorpusError: The file is missing or torn.
            VocabularyError: It holds no usable vocabulary.
        """
        entry = self.manifest.get("vocabulary")
        if not isinstance(entry, dict):
            return None
        return Vocabulary.from_json(read_json(self.folder / str(entry.get("file")), entry.get("sha256")))

    def encoded(self, name: str) -> EncodedCaptions | None:
        """Read the captions of one split as ids of `vocabulary`; None for a split without encoded captions.

        Raises:
            CorpusError: There is no such split, or the file is missing or torn.
        """
        entry = self._entry(name)
        if not isinstance(entry.get("encoded"), str):
            return None
        path = self.folder / entry["encoded"]
        check_file(path, _hash(entry, "encoded"))
        return EncodedCaptions.load(path)

    def _entry(self, name: str) -> Json:
        if name not in self.splits:
            raise CorpusError(f"{unknown_choice('split', name, self.splits)} (Corpus '{self.folder}'.)")
        entry: Json = self.manifest["splits"][name]
        return entry

    def _read_captions(self, entry: Json) -> tuple[tuple[Picture, ...], dict[int, tuple[str, ...]]]:
        path = self.folder / entry["captions"]
        content, problems = read_json(path, _hash(entry, "captions")), Problems(path)
        pictures = read_pictures(content, self.folder / entry["images"], problems)
        captions = read_captions(content, {picture.id for picture in pictures}, problems)
        _check_count(entry, "pictures", len(pictures), problems)
        _check_count(entry, "captions_count", sum(map(len, captions.values())), problems)
        problems.raise_if_any("a COCO caption file whose pictures all exist", _REMEDY)
        return pictures, captions

    def _read_instances(
        self, entry: Json, pictures: tuple[Picture, ...]
    ) -> tuple[dict[int, tuple[ObjectAnnotation, ...]], dict[int, str]]:
        path = self.folder / entry["instances"]
        content, problems = read_json(path, _hash(entry, "instances")), Problems(path)
        categories = read_categories(content, problems)
        objects = read_objects(content, [picture.id for picture in pictures], categories, problems)
        _check_count(entry, "objects", sum(map(len, objects.values())), problems)
        problems.raise_if_any("a COCO instance file for the pictures of its caption file", _REMEDY)
        return objects, categories


@dataclass
class _InstancesOnce:
    """The objects and the categories of one split, from one reading of their file."""

    corpus: Corpus
    entry: Json
    pictures: tuple[Picture, ...]
    _found: tuple[Mapping[int, tuple[ObjectAnnotation, ...]], Mapping[int, str]] | None = None

    def _read(self) -> tuple[Mapping[int, tuple[ObjectAnnotation, ...]], Mapping[int, str]]:
        if self._found is None:
            self._found = self.corpus._read_instances(self.entry, self.pictures)
        return self._found

    def objects(self) -> Mapping[int, tuple[ObjectAnnotation, ...]]:
        return self._read()[0]

    def categories(self) -> Mapping[int, str]:
        return self._read()[1]

    def __getstate__(self) -> JsonObject:
        """Leave what was read behind: another process reads for itself."""
        return {**self.__dict__, "_found": None}


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


def _hash(entry: Json, key: str) -> str | None:
    """Return the hash that the manifest has for a file of a split, if it has one."""
    hashes = entry.get("sha256")
    return hashes.get(key) if isinstance(hashes, dict) else None


def _check_count(entry: Json, key: str, found: int, problems: Problems) -> None:
    """Compare with the count in the manifest, where it has one: a shortened file can be valid JSON all the same."""
    if isinstance(entry.get(key), int) and entry[key] != found:
        problems.note(f"{found} usable {key.removesuffix('_count')} where {MANIFEST} says {entry[key]}")
