"""Small files of every format that ``capxai prepare`` reads, with tiny pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

Files = dict[str, Any]
SIZE = (8, 6)
CATEGORIES = [
    {"id": 3, "name": "car", "supercategory": "vehicle"},
    {"id": 48, "name": "fork", "supercategory": "kitchen"},
]


def write_picture(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").resize(size).convert("RGB").save(path)


def coco_files(name: str, ids: Sequence[int]) -> dict[str, Files]:
    """A caption file and an instance file: two captions and one object for each picture, the last one has no object."""
    images = [
        {"id": number, "file_name": f"{number:012d}.jpg", "width": SIZE[0], "height": SIZE[1], "license": 4}
        for number in ids
    ]
    captions = [
        {"id": number * 10 + place, "image_id": number, "caption": text}
        for number in ids
        for place, text in enumerate((f"A red car, number {number}.", "a car and a fork"))
    ]
    objects = [
        {"id": number * 10, "image_id": number, "category_id": 3, "bbox": [1, 1, 3, 2], "iscrowd": 0, "area": 6.0,
         "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]}
        for number in ids[:-1]
    ]  # fmt: skip
    head = {"info": {"description": name}, "licenses": [{"id": 4, "name": "by"}]}
    return {
        "captions": {**head, "images": images, "annotations": captions},
        # COCO's own files have the categories last.
        "instances": {**head, "images": images, "annotations": objects, "categories": CATEGORIES},
    }


def write_coco(root: Path, parts: Mapping[str, Sequence[int]], instances: bool = True) -> Path:
    """Write a folder as COCO's archives unpack; ``parts`` tells the image ids of each file."""
    for name, ids in parts.items():
        for kind, content in coco_files(name, ids).items():
            if kind == "captions" or instances:
                write_json(root / "annotations" / f"{kind}_{name}.json", content)
        for number in ids:
            write_picture(root / name / f"{number:012d}.jpg")
    return root


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def karpathy_file(dataset: str, splits: Mapping[str, Sequence[int]]) -> Files:
    """A file of Karpathy's: two captions for each picture; for COCO with ids and folders of COCO's."""
    images = []
    for split, ids in splits.items():
        for number in ids:
            sentences = [
                {
                    "raw": raw,
                    "tokens": raw.lower().replace("-", "").split(),
                    "imgid": number,
                    "sentid": number * 10 + place,
                }
                for place, raw in enumerate((f"A T-shirt number {number}", "a T-shirt"))
            ]
            entry = {"filename": f"{number}.jpg", "imgid": number, "split": split, "sentences": sentences}
            if dataset == "coco":
                entry |= {"filepath": "val2014", "cocoid": number + 1000}
            images.append(entry)
    return {"dataset": dataset, "images": images}


def write_karpathy(folder: Path, dataset: str, splits: Mapping[str, Sequence[int]]) -> Path:
    """Write ``dataset_*.json`` and the pictures, into ``folder/pictures``; return the file."""
    for ids in splits.values():
        for number in ids:
            write_picture(folder / "pictures" / ("val2014" if dataset == "coco" else "") / f"{number}.jpg")
    return write_json(folder / f"dataset_{dataset}.json", karpathy_file(dataset, splits))
