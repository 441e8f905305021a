"""A captioner that says the same ten words of every picture, with pictures and a corpus, for benchmarks of whole verbs.

The weights are random, which changes no time, but for those of the word head.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.nn import functional

from capxai.data.images import picture_array
from capxai.explain.attribution import Reading
from capxai.explain.explainer import read
from capxai.models.captioner import Captioner
from capxai.models.folder import save_model
from capxai.recipes import bench_feature_subjects
from capxai.recipes.bench_subjects import SIZES as MODEL_SIZES
from capxai.recipes.bench_subjects import Size, random_captioner
from capxai.types import JsonObject

CAPTION = "a man with a dog sits near a wooden bench"
"""Ten words, three of which name objects; one of these is there, the others are hallucinated."""
THERE = "dog"
SIZES = {"full": MODEL_SIZES["full"], "small": Size("compact", 32, 64, 64, 10)}
_LOGIT = 20.0
"""Of the word that is said, all others being near 0: beam search finds the caption whatever the picture shows."""
_TEACHING = 4
"""Pictures from which the word head is solved."""


@dataclass(frozen=True)
class Place:
    """A folder with a model and a corpus.

    Attributes:
        folder: The folder.
        pictures: Pictures of the corpus's only split, "test".
    """

    folder: Path
    pictures: int

    @property
    def model(self) -> Path:
        """The model folder."""
        return self.folder / "model"

    @property
    def corpus(self) -> Path:
        """The corpus folder."""
        return self.folder / "corpus"


@contextmanager
def planted(size: str, pictures: int) -> Iterator[Place]:
    """Write a model of one of the `SIZES` and as many pictures into a temporary folder, which goes when the context ends."""
    described = replace(bench_feature_subjects.SIZES[size], pictures=max(pictures, _TEACHING))
    with TemporaryDirectory(prefix="capxai-bench-") as name:
        place = Place(Path(name), pictures)
        images = place.corpus / "images"
        images.mkdir(parents=True)
        paths = bench_feature_subjects.make_pictures(images, described)
        write_corpus(place.corpus, paths[:pictures], described.picture_size)
        save_model(planted_captioner(SIZES[size], paths[:_TEACHING]), place.model)
        yield place


def planted_captioner(size: Size, pictures: Sequence[Path]) -> Captioner:
    """Build an ada-lstm with random weights that says `CAPTION` of pictures like these.

    Its word head is the least-squares answer to "the word that comes next has the logit 20, and every other word 0" at all steps of all
    these pictures.
    """
    model = random_captioner(size, list(dict.fromkeys(CAPTION.split())))
    tokens = torch.tensor([*model.vocabulary.encode(CAPTION), model.vocabulary.end])
    head, arrived = model.decoder.word_head.fc, []
    with torch.no_grad():
        for path in pictures:
            features = read(model, model.preprocessing.resize(picture_array(path)), CAPTION).features
            steps = Reading(model, None, features, tokens).unroll()
            arrived += [step.head_inputs.context[0] + step.head_inputs.hidden[0] for step in steps]
        wanted = _LOGIT * functional.one_hot(tokens, head.out_features).double().repeat(len(pictures), 1)
        head.weight.copy_(torch.linalg.lstsq(torch.stack(arrived).double(), wanted, driver="gelsd").solution.T)
        head.bias.zero_()
    model.lineage = {"name": "planted"}
    return model


def write_corpus(folder: Path, pictures: Sequence[Path], size: tuple[int, int]) -> None:
    """Write corpus files for pictures in ``folder/images``: each has a reference and an object, the `THERE` of the caption."""
    ids = range(1, len(pictures) + 1)
    width, height = size
    images = [
        {"id": number, "file_name": path.name, "width": width, "height": height}
        for number, path in zip(ids, pictures, strict=True)
    ]
    left, top, right, bottom = width // 4, height // 4, 3 * width // 4, 3 * height // 4
    shape = {"bbox": [left, top, right - left, bottom - top], "iscrowd": 0, "category_id": 1}
    outline = [left, top, right, top, right, bottom, left, bottom]
    objects = [{"id": number, "image_id": number, **shape, "segmentation": [outline]} for number in ids]
    contents: dict[str, JsonObject] = {
        "captions.json": {
            "images": images,
            "annotations": [{"id": number, "image_id": number, "caption": f"a {THERE}"} for number in ids],
        },
        "instances.json": {"images": images, "annotations": objects, "categories": [{"id": 1, "name": THERE}]},
        "corpus.json": {
            "schema": 1,
            "name": "bench",
            "splits": {"test": {"images": "images", "captions": "captions.json", "instances": "instances.json"}},
        },
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
