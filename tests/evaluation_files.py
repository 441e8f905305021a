"""Small annotation files in COCO format with captions for them, made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

REFERENCES = {
    1: ["a man riding a horse on a beach", "a person on a horse near the sea"],
    2: ["two dogs playing with a frisbee in a park", "dogs and a frisbee on green grass"],
    3: ["a red bus parked at the side of a street", "a big bus stands on the road"],
    4: ["a plate of food with a sandwich and fries", "a sandwich on a white plate"],
}
OBJECTS = {1: ["person", "horse"], 2: ["dog", "dog", "frisbee"], 3: ["bus", "car"], 4: ["sandwich", "fork"]}
CAPTIONS = {
    1: "a man riding a horse with a dog",
    2: "two dogs and a cat in a park",
    3: "a red bus parked on a street",
    4: "a plate with a sandwich and a fork",
}
"""A dog and a cat are not there: 2 of 7 mentions (man, horse, dog; dogs, cat; bus; sandwich, fork make 8, of which 2 are false)."""

OTHERS = {1: "a man on a horse", 2: "a dog and a frisbee", 3: "a train on a street", 4: "a white plate with a sandwich"}
NAMES = ["person", "horse", "dog", "frisbee", "bus", "car", "sandwich", "fork", "cat", "train"]


def caption_file(references: dict[int, list[str]] | None = None) -> dict[str, Any]:
    """Return a caption file."""
    texts = REFERENCES if references is None else references
    rows = [(number, text) for number, group in texts.items() for text in group]
    return {
        "images": [{"id": number, "file_name": f"{number}.png", "width": 64, "height": 48} for number in texts],
        "annotations": [{"id": k, "image_id": number, "caption": text} for k, (number, text) in enumerate(rows)],
    }


def instance_file(objects: dict[int, list[str]] | None = None) -> dict[str, Any]:
    """Return an instance file."""
    found = OBJECTS if objects is None else objects
    rows = [(number, name) for number, names in found.items() for name in names]
    return {
        "images": [{"id": number, "file_name": f"{number}.png", "width": 64, "height": 48} for number in found],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)],
        "annotations": [
            {"id": k, "image_id": number, "category_id": NAMES.index(name) + 1, "bbox": [1, 1, 9, 9], "iscrowd": 0}
            for k, (number, name) in enumerate(rows)
        ],
    }


def results(captions: dict[int, str]) -> list[dict[str, Any]]:
    """Return COCO results."""
    return [{"image_id": number, "caption": text} for number, text in captions.items()]


def write(path: Path, value: object) -> Path:
    """Write JSON, or text as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def write_all(folder: Path) -> None:
    """Write captions.json, instances.json, ours.json, theirs.json and the pictures."""
    write(folder / "captions.json", caption_file())
    write(folder / "instances.json", instance_file())
    write(folder / "ours.json", results(CAPTIONS))
    write(folder / "theirs.json", results(OTHERS))
    (folder / "pictures").mkdir()
    for number in REFERENCES:
        Image.new("RGB", (64, 48), (60 * number, 90, 200 - 40 * number)).save(folder / "pictures" / f"{number}.png")
