"""Real photographs and a model that has learned their captions by heart, made once for all tests that ask for them.

They come from ``../shared/coco-mini``, or from any folder in COCO's layout (``annotations/captions_train2017.json``,
``annotations/instances_train2017.json``, ``train2017/``, and the same of ``val2017``) that the environment variable ``CAPXAI_COCO`` names.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

COCO = Path(os.environ.get("CAPXAI_COCO", Path(__file__).parents[2] / "shared" / "coco-mini"))
PICTURES = 80
SETTINGS = (
    "hidden_size=256",
    "embedding_size=256",
    "batch_size=8",
    "learning_rate=3e-3",
    "schedule=cosine",
    "decoder_epochs=110",
    "sampling_rise=0",
    "dropout=0",
    "monitor=loss",
    "validation_pictures=16",
    "figure_splits=",
    "threads=1",  # steps this small wait for each other more than they compute
)

needs_photographs = pytest.mark.skipif(
    not (COCO / "annotations" / "captions_train2017.json").is_file(),
    reason=f"there are no annotations of COCO in {COCO}; name a folder with CAPXAI_COCO",
)


@dataclass(frozen=True)
class Photographs:
    """What has been made.

    Attributes:
        folder: Where everything lies.
        corpus: Corpus whose split "train" the model knows by heart.
        held_out: Corpus whose splits "val" and "test" it has never seen.
        model: The model folder.
        features: The encoder's features of the training pictures.
        captions: COCO's caption file, cut down to the training pictures.
    """

    folder: Path
    corpus: Path
    held_out: Path
    model: Path
    features: Path
    captions: Path

    def picture(self, name: str) -> Path:
        """Return the path of a training picture."""
        return COCO / "train2017" / name


def run(*words: object) -> str:
    """Run a verb; return what it printed."""
    from capxai.cli.main import app

    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def learn_photographs(folder: Path) -> Photographs:
    """Prepare photographs, extract their features and train a captioner on them until it knows their captions."""
    made = Photographs(
        *(folder / name for name in ("", "corpus", "held-out", "run", "features.h5")),
        folder / "captions_train.json",
    )
    _prepare(folder, made.corpus, train=("train2017", 0, PICTURES))
    _prepare(folder, made.held_out, val=("val2017", 0, PICTURES // 2), test=("val2017", PICTURES // 2, PICTURES))
    run("extract-features", "--corpus", made.corpus, "--out", made.features)
    settings = [word for item in SETTINGS for word in ("--set", item)]
    source = ("--corpus", made.corpus, "--features", made.features)
    run("train", *source, "--decoder", "adaptive", "--out", made.model, *settings)
    return made


def _prepare(folder: Path, out: Path, **splits: tuple[str, int, int]) -> None:
    """Make a corpus of splits, each of a run of pictures (from, to) of a part of COCO."""
    sources: list[object] = []
    for split, (part, first, last) in splits.items():
        for kind in ("captions", "instances"):
            path = folder / f"{kind}_{split}.json"
            path.write_text(json.dumps(_cut(kind, part, first, last)))
            sources += [f"--{kind}", f"{split}={path}"]
        sources += ["--images", f"{split}={COCO / part}"]
    run("prepare", "coco", *sources, "--set", "minimum_count=1", "--out", out)


def _cut(kind: str, part: str, first: int, last: int) -> Any:
    """Cut a file of annotations down to some of its pictures, whatever the size of the data set."""
    content, captions = (
        json.loads((COCO / "annotations" / f"{name}_{part}.json").read_bytes()) for name in (kind, "captions")
    )
    kept = {image["id"] for image in captions["images"][first:last]}
    content["images"] = [image for image in content["images"] if image["id"] in kept]
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] in kept]
    return content
