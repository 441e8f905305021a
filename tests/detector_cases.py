"""A corpus of twenty pictures in two splits, and what the tests of detectors need of it."""

from __future__ import annotations

import json
from pathlib import Path

from ablation_cases import COUNT, reference_of, write_corpus

CALIBRATION, MEASURED = range(1, 15), range(15, COUNT + 1)


def write_split_corpus(folder: Path) -> None:
    """Write the pictures of `ablation_cases`, the first fourteen as "val", the others as "robust"."""
    write_corpus(folder)
    splits = {}
    for name, numbers in (("val", CALIBRATION), ("robust", MEASURED)):
        images = [{"id": n, "file_name": f"{n}.png", "width": 36, "height": 40} for n in numbers]
        captions = [{"id": n, "image_id": n, "caption": reference_of(n)} for n in numbers]
        (folder / f"{name}.json").write_text(json.dumps({"images": images, "annotations": captions}))
        splits[name] = {"images": "images", "captions": f"{name}.json"}
    (folder / "corpus.json").write_text(json.dumps({"schema": 1, "name": "blocks", "splits": splits}))
