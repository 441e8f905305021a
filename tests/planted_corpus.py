"""A corpus with planted boxes and masks, and a tiny model that knows its three pictures."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from capxai.data.images import read_image
from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.explain.attribution import Reading
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.encoders.compact import CompactEncoder
from capxai.models.specification import Specification

SIDE = 32
WIDTH, HEIGHT = 48, 40
WORDS = ("<pad>", "<start>", "<end>", "<unk>", "a", "car", "traffic", "light", "knife", "near")
OBJECTS = {
    1: {"car": [(4, 5, 20, 15)], "knife": [(30, 22, 10, 12)]},
    2: {"car": [(0, 0, 16, 10), (24, 20, 24, 20)], "traffic light": [(10, 12, 8, 18)]},
    3: {"knife": [(8, 8, 30, 6)]},
}
"""Boxes (left, top, width, height) by picture and category; the mask is the lower right triangle of each box."""
CAPTION = "a car near a traffic light near a knife"


def planted_model(images: Path, silent: Collection[int] = ()) -> Captioner:
    """A tiny model with random weights, but for a word head solved by least squares: it says CAPTION of every picture.

    About the pictures that are ``silent`` it says nothing.
    """
    with torch.random.fork_rng():
        torch.manual_seed(3)
        sizes = Specification("compact", "ada-lstm", CompactEncoder.channels, 16, 32, 32, len(WORDS))
        captioner = build_captioner(sizes, Vocabulary(WORDS), Preprocessing(SIDE)).eval()
    caption = torch.tensor([*captioner.vocabulary.encode(CAPTION), captioner.vocabulary.end])
    arrived, spoken = [], []
    for number in OBJECTS:
        tokens = caption[-1:] if number in silent else caption
        picture = captioner.preprocessing.resize(read_image(images / f"{number}.png"))
        with torch.no_grad():
            pixels = captioner.preprocessing.normalize(torch.from_numpy(picture)[None])
            steps = Reading(captioner, pixels, captioner.features(pixels), tokens).unroll()
        arrived += [step.head_inputs.context[0] + step.head_inputs.hidden[0] for step in steps]
        spoken.append(tokens)
    wanted = 10 * torch.nn.functional.one_hot(torch.cat(spoken), len(WORDS)).float()
    head = captioner.decoder.word_head.fc
    head.weight.data = (
        torch.linalg.lstsq(torch.stack(arrived).double(), wanted.double()).solution.T.float().contiguous()
    )
    head.bias.data.zero_()
    captioner.lineage = {"name": "tiny"}
    return captioner


def write_planted_corpus(folder: Path, with_instances: bool) -> None:
    """Write three pictures of noise, with objects or without."""
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in OBJECTS:
        noise = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "images" / f"{number}.png")
    images = [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in OBJECTS]
    names = sorted({name for objects in OBJECTS.values() for name in objects})
    captions = [{"id": n, "image_id": n, "caption": "a picture"} for n in OBJECTS]
    instances = [
        {"image_id": n, "category_id": names.index(name), "bbox": box, "segmentation": _triangle(box), "iscrowd": 0}
        for n, objects in OBJECTS.items()
        for name, boxes in objects.items()
        for box in boxes
    ]
    for number, entry in enumerate(instances):
        entry["id"] = number
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    split = {"images": "images", "captions": "captions.json"}
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    if with_instances:
        split["instances"] = "instances.json"
        content = {"images": images, "annotations": instances, "categories": categories}
        (folder / "instances.json").write_text(json.dumps(content))
    (folder / "corpus.json").write_text(json.dumps({"schema": 1, "name": "planted", "splits": {"test": split}}))


def inside(box: tuple[int, int, int, int], row: int, column: int) -> bool:
    """Tell whether a pixel is in the lower right triangle of a box, its diagonal included."""
    left, top, width, height = box
    across, down = column - left, row - top
    return 0 <= across < width and 0 <= down < height and across * height + down * width >= width * height


def _triangle(box: tuple[int, int, int, int]) -> dict[str, object]:
    """Return the run-length code of a triangle, down the columns."""
    cells = [inside(box, row, column) for column in range(WIDTH) for row in range(HEIGHT)]
    counts, last = [0], False
    for cell in cells:
        if cell != last:
            counts.append(0)
            last = cell
        counts[-1] += 1
    return {"size": [HEIGHT, WIDTH], "counts": counts}
