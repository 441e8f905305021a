"""Writes a draft that is divided into splits as a corpus folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from capxai.data.annotations import Json
from capxai.data.corpus import MANIFEST, SCHEMA
from capxai.data.divisions import Division, order
from capxai.data.drafts import CaptionDraft, Draft, ObjectTable, PictureDraft
from capxai.data.encoded import build_vocabulary, encode_words
from capxai.data.vocabulary import Vocabulary, tokenize
from capxai.files import replacing, write_json_atomically
from capxai.types import JsonObject, Reporter

TRAIN = "train"
VOCABULARY = "vocabulary.json"
Tokens = Literal["capxai", "published"]
Words = dict[int, list[list[str]]]
_PUBLISHED_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class CorpusPlan:
    """What the corpus is to be.

    Attributes:
        name: Its name.
        splits: The pictures' splits; pictures without one are left out.
        objects: The objects of every split that has an instance file, one table for each file they are from.
        categories: Entries of the table ``categories`` by their id.
        minimum_count: How often a word must occur in the training captions to be in the vocabulary.
        tokens: "capxai" for this package's words, "published" for the words as the authors of the method had them: as they
            stand in Karpathy's files, and for COCO the runs of letters, digits and underscores in lower case.
        details: More for the manifest.
    """

    name: str
    splits: Division
    objects: Mapping[str, Sequence[ObjectTable]]
    categories: Mapping[int, Json]
    minimum_count: int
    tokens: Tokens
    details: JsonObject


def write_prepared(draft: Draft, plan: CorpusPlan, folder: Path, reporter: Reporter) -> JsonObject:
    """Write annotations, vocabulary, encoded captions and the manifest.

    Args:
        draft: What was read; all its pictures have a size.
        plan: What to make of it.
        folder: An empty folder.
        reporter: Where progress is shown.

    Returns:
        The manifest.

    Raises:
        VocabularyError: No word of the training captions is frequent enough.
        CapxaiError: The disk is full.
    """
    members = _members(draft, plan.splits)
    entries: JsonObject = {}
    vocabulary: Vocabulary | None = None
    with reporter.track("Writing splits", len(members)) as advance:
        for split in sorted(members, key=lambda name: name != TRAIN):  # its words make the vocabulary
            entries[split] = _write_split(draft, plan, split, members[split], folder)
            if split == TRAIN or vocabulary is not None:
                words = _words(draft, members[split], plan.tokens)
                if split == TRAIN:
                    texts = (caption for captions in words.values() for caption in captions)
                    vocabulary = build_vocabulary(texts, plan.minimum_count)
                assert vocabulary is not None
                _write_encoded(words, vocabulary, folder, split, entries[split])
            advance(1)
    manifest: JsonObject = {"schema": SCHEMA, "name": plan.name, **plan.details}
    if vocabulary is not None:
        manifest["vocabulary"] = _write_vocabulary(vocabulary, plan, folder)
    manifest["splits"] = {split: entries[split] for split in order(entries)}
    manifest |= {"sources": draft.sources, "left_out": draft.findings.bad_counts, "notices": draft.findings.odd_counts}
    write_json_atomically(folder / MANIFEST, manifest)
    return manifest


def _members(draft: Draft, division: Division) -> dict[str, list[PictureDraft]]:
    members: dict[str, list[PictureDraft]] = {}
    for number, picture in draft.pictures.items():
        if number in division:
            members.setdefault(division[number], []).append(picture)
    return members


def _write_split(
    draft: Draft, plan: CorpusPlan, split: str, pictures: Sequence[PictureDraft], folder: Path
) -> JsonObject:
    root, images = _images(pictures)
    captions = _captions(draft, split, pictures)
    path = folder / "annotations" / f"captions_{split}.json"
    parts = [*_head(draft.head), ("images", _dumped(images)), ("annotations", _dumped(captions))]
    entry: JsonObject = {"images": str(root), "captions": f"annotations/{path.name}"}
    entry |= {
        "pictures": len(images),
        "captions_count": len(captions),
        "sha256": {"captions": _write_tables(path, parts)},
    }
    if split in plan.objects:
        _write_objects(plan, split, images, folder, entry)
    return entry


def _write_objects(plan: CorpusPlan, split: str, images: Sequence[JsonObject], folder: Path, entry: JsonObject) -> None:
    tables = plan.objects[split]
    path = folder / "annotations" / f"instances_{split}.json"
    parts = [*_head(tables[0].head), ("images", _dumped(images)), ("annotations", _objects(tables))]
    entry["sha256"]["instances"] = _write_tables(path, [*parts, ("categories", _dumped(plan.categories.values()))])
    entry["instances"] = f"annotations/{path.name}"
    entry["objects"] = sum(len(table.ids) for table in tables)
    seen = np.unique(np.concatenate([table.image_ids for table in tables]))
    entry["pictures_without_objects"] = len(images) - len(seen)


def _images(pictures: Sequence[PictureDraft]) -> tuple[Path, list[JsonObject]]:
    """Return the folder that all pictures lie below, and the table ``images`` with names relative to it."""
    folders = {folder: Path(os.path.abspath(folder)) for folder in {picture.folder for picture in pictures}}
    root = Path(os.path.commonpath(list(folders.values())))
    prefixes = {folder: "" if place == root else f"{place.relative_to(root)}/" for folder, place in folders.items()}
    images = []
    for picture in pictures:
        absolute = os.path.isabs(picture.file_name)
        name = picture.file_name if absolute else prefixes[picture.folder] + picture.file_name
        size = {"width": picture.width, "height": picture.height}
        images.append({"id": picture.id, "file_name": name, **size, **picture.details})
    return root, images


def _captions(draft: Draft, split: str, pictures: Sequence[PictureDraft]) -> list[JsonObject]:
    """Return the table ``annotations`` of a caption file; ids are made where they are missing or would occur twice."""
    found = [(picture.id, caption) for picture in pictures for caption in draft.captions[picture.id]]
    ids = {caption.id for _, caption in found}
    if None in ids or len(ids) < len(found):
        draft.findings.odd("captions numbered anew, as ids were missing or not unique", f"split {split}", len(found))
        return [_caption(number, image_id, caption) for number, (image_id, caption) in enumerate(found, start=1)]
    return [_caption(caption.id, image_id, caption) for image_id, caption in found]


def _caption(number: int | None, image_id: int, caption: CaptionDraft) -> JsonObject:
    return {"id": number, "image_id": image_id, "caption": caption.text}


def _head(head: Json) -> list[tuple[str, str]]:
    return [(key, json.dumps(value)) for key, value in head.items()]


def _dumped(entries: Iterable[Json]) -> Iterable[str]:
    return map(json.dumps, entries)


def _objects(tables: Sequence[ObjectTable]) -> Iterable[str]:
    """Yield the text of each object as it stands in its file."""
    for table in tables:
        for start, end in table.spans.tolist():
            yield table.source.text[start:end]


def _write_tables(path: Path, parts: Sequence[tuple[str, str | Iterable[str]]]) -> str:
    """Write a JSON object of the given keys, with the text of a value or the texts of a list; return the hash of the file."""
    digest = hashlib.sha256()
    with replacing(path) as temporary, temporary.open("xb") as file:
        for text in _texts(parts):
            data = text.encode()
            digest.update(data)
            file.write(data)
    return digest.hexdigest()


def _texts(parts: Sequence[tuple[str, str | Iterable[str]]]) -> Iterator[str]:
    for place, (key, value) in enumerate(parts):
        yield f"{',' if place else '{'}\n{json.dumps(key)}: "
        if isinstance(value, str):
            yield value
        else:
            yield "["
            yield from (f",\n{text}" if number else text for number, text in enumerate(value))
            yield "]"
    yield "}\n"


def _words(draft: Draft, pictures: Sequence[PictureDraft], tokens: Tokens) -> Words:
    """Split the captions of every picture; equal words share their memory."""
    return {
        picture.id: [list(map(sys.intern, _split(caption, tokens))) for caption in draft.captions[picture.id]]
        for picture in pictures
    }


def _split(caption: CaptionDraft, tokens: Tokens) -> Sequence[str]:
    if tokens == "capxai":
        return tokenize(caption.text)
    return caption.words if caption.words is not None else _PUBLISHED_WORD.findall(caption.text.lower())


def _write_encoded(words: Words, vocabulary: Vocabulary, folder: Path, split: str, entry: JsonObject) -> None:
    encoded = encode_words(words, vocabulary)
    path = folder / "encoded" / f"{split}.npz"
    encoded.save(path)
    entry["encoded"] = f"encoded/{path.name}"
    entry["sha256"]["encoded"] = hashlib.sha256(path.read_bytes()).hexdigest()
    entry["words"] = len(encoded.tokens)
    entry["unknown_words"] = int(np.count_nonzero(encoded.tokens == vocabulary.unknown))


def _write_vocabulary(vocabulary: Vocabulary, plan: CorpusPlan, folder: Path) -> JsonObject:
    path = folder / VOCABULARY
    write_json_atomically(path, vocabulary.to_json(), indent=None)
    return {
        "file": VOCABULARY,
        "minimum_count": plan.minimum_count,
        "tokens": plan.tokens,
        "size": len(vocabulary),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
