"""Writes the corpus in COCO format."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from capxai.data.corpus import MANIFEST, SCHEMA
from capxai.data.new_corpus import new_corpus
from capxai.data.scenes.backgrounds import REFERENCE_SIZE
from capxai.data.scenes.categories import BY_NAME, CATEGORIES, P_BIAS, P_HAZE, PAIRS, SPLITS
from capxai.data.scenes.picture import PlacedObject, Scene, render_picture
from capxai.errors import CorpusError
from capxai.types import SILENT, Advance, JsonObject, Reporter

DEFAULT_SIZE = 5000
SMALLEST_SPLIT = 8
IDS_PER_SPLIT = 1_000_000
ANNOTATIONS_PER_PICTURE = 10
JPEG_QUALITY = 95


@dataclass
class _SplitTables:
    """The tables of one split, as they are filled."""

    images: list[JsonObject] = field(default_factory=list)
    captions: list[JsonObject] = field(default_factory=list)
    instances: list[JsonObject] = field(default_factory=list)


def split_sizes(size: int) -> dict[str, int]:
    """Return the number of pictures of each split of a corpus with ``size`` training pictures.

    Raises:
        CorpusError: The size is out of range.
    """
    if not SMALLEST_SPLIT <= size <= IDS_PER_SPLIT:
        raise CorpusError(
            f"A corpus of {size} training pictures was asked for; {SMALLEST_SPLIT} to {IDS_PER_SPLIT} are possible. "
            "Choose another --size."
        )
    parts = {"train": 1, "val": 10, "test": 5, "robust-val": 10, "robust": 5}
    return {split: max(SMALLEST_SPLIT, size // parts[split]) for split in SPLITS}


def image_id(split: str, index: int) -> int:
    """Return the id of a picture: unique over the corpus, from 1 in train, from 1,000,001 in val, and so on."""
    return SPLITS.index(split) * IDS_PER_SPLIT + index + 1


def _instance(placed: PlacedObject, picture: int, number: int) -> JsonObject:
    encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(placed.mask, dtype=np.uint8))
    return {
        "id": picture * ANNOTATIONS_PER_PICTURE + number,
        "image_id": picture,
        "category_id": BY_NAME[placed.category].id,
        "bbox": list(placed.bbox),
        "area": int(np.count_nonzero(placed.mask)),
        "iscrowd": 0,
        "segmentation": {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")},
    }


def _add(tables: _SplitTables, scene: Scene, picture: int) -> None:
    height, width = scene.image.shape[:2]
    tables.images.append({"id": picture, "file_name": f"{picture:012d}.jpg", "width": width, "height": height})
    for number, caption in enumerate(scene.captions):
        tables.captions.append(
            {"id": picture * ANNOTATIONS_PER_PICTURE + number, "image_id": picture, "caption": caption}
        )
    tables.instances.extend(_instance(placed, picture, number) for number, placed in enumerate(scene.objects))


def _write_json(path: Path, content: JsonObject, indent: int | None = None) -> None:
    path.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def _write_annotations(folder: Path, split: str, tables: _SplitTables) -> None:
    head = {
        "info": {"description": f"scenes, split {split}, rendered by capxai", "version": str(SCHEMA)},
        "licenses": [],
    }
    categories = [{"id": item.id, "name": item.name, "supercategory": item.supercategory} for item in CATEGORIES]
    captions = {**head, "images": tables.images, "annotations": tables.captions}
    instances = {**head, "images": tables.images, "annotations": tables.instances, "categories": categories}
    _write_json(folder / f"captions_{split}.json", captions)
    _write_json(folder / f"instances_{split}.json", instances)


def _write_split(folder: Path, split: str, count: int, seed: int, advance: Advance) -> JsonObject:
    """Write pictures and annotations of one split and return its entry of the manifest."""
    images = folder / "images" / split
    images.mkdir(parents=True)
    tables = _SplitTables()
    for index in range(count):
        scene = render_picture(seed, split, index)
        picture = image_id(split, index)
        Image.fromarray(scene.image).save(images / f"{picture:012d}.jpg", quality=JPEG_QUALITY, subsampling=0)
        _add(tables, scene, picture)
        advance(1)
    _write_annotations(folder / "annotations", split, tables)
    return {
        "images": f"images/{split}",
        "captions": f"annotations/captions_{split}.json",
        "instances": f"annotations/instances_{split}.json",
        "pictures": count,
        "captions_count": len(tables.captions),
        "objects": len(tables.instances),
    }


def write_corpus(
    out: Path, size: int = DEFAULT_SIZE, seed: int = 0, force: bool = False, reporter: Reporter = SILENT
) -> JsonObject:
    """Render the corpus and write it to a folder in COCO format.

    Everything goes to a temporary folder beside ``out`` first, which is renamed at the end: an interrupted run
    leaves nothing.

    Args:
        out: The corpus folder to make.
        size: Number of training pictures; val and robust-val get a tenth of it, test and robust a fifth.
        seed: Seed of everything random.
        force: Whether to replace a corpus that is already there.
        reporter: Where progress is shown.

    Returns:
        The manifest, as written to ``corpus.json``.

    Raises:
        CorpusError: ``out`` exists and is not to be replaced or is no corpus, or the size or the seed is out of range.
    """
    sizes = split_sizes(size)
    if seed < 0:
        raise CorpusError(f"Seed {seed} was given; a seed is 0 or more. Choose another --seed.")
    with new_corpus(out, force) as partial:
        (partial / "annotations").mkdir()
        with reporter.track("Rendering scenes", sum(sizes.values())) as advance:
            splits = {split: _write_split(partial, split, count, seed, advance) for split, count in sizes.items()}
        manifest: JsonObject = {
            "schema": SCHEMA,
            "name": "scenes",
            "seed": seed,
            "size": size,
            "image_size": REFERENCE_SIZE,
            "p_bias": P_BIAS,
            "p_haze": P_HAZE,
            "pairs": [list(pair) for pair in PAIRS],
            "splits": splits,
        }
        _write_json(partial / MANIFEST, manifest, indent=2)
    return manifest
