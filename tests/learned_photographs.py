"""Real photographs and a model that has learned their captions by heart, made once for all tests that ask for them.

They come from ``../shared/coco-mini``, or from any folder in COCO's layout (``annotations/captions_train2017.json``,
``annotations/instances_train2017.json``, ``train2017/``, and the same of ``val2017``) that the environment variable ``CAPXAI_COCO`` names.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

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
PARTS = ("captions", "instances")

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
        held_out: Corpus whose split "val" it has never seen.
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
        _cut(folder, "train", "captions"),
    )
    _prepare(folder, "train", made.corpus)
    _prepare(folder, "val", made.held_out)
    run("extract-features", "--corpus", made.corpus, "--out", made.features)
    settings = [word for item in SETTINGS for word in ("--set", item)]
    source = ("--corpus", made.corpus, "--features", made.features)
    run("train", *source, "--decoder", "adaptive", "--out", made.model, *settings)
    return made


def _prepare(folder: Path, split: str, out: Path) -> None:
    captions, instances = (_cut(folder, split, part) for part in PARTS)
    run(
        *("prepare", "coco", "--captions", f"{split}={captions}", "--instances", f"{split}={instances}"),
        *("--images", f"{split}={COCO / f'{split}2017'}", "--set", "minimum_count=1", "--out", out),
    )


def _cut(folder: Path, split: str, part: str) -> Path:
    """Cut a file of annotations down to the first pictures, whatever the size of the data set."""
    path = folder / f"{part}_{split}2017.json"
    if path.is_file():
        return path
    captions = json.loads((COCO / "annotations" / f"captions_{split}2017.json").read_bytes())
    kept = {image["id"] for image in captions["images"][:PICTURES]}
    content = captions if part == "captions" else json.loads((COCO / "annotations" / path.name).read_bytes())
    content["images"] = [image for image in content["images"] if image["id"] in kept]
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] in kept]
    path.write_text(json.dumps(content))
    return path
