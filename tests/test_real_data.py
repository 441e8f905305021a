"""Real photographs through every verb: prepare, extract-features, train until the captions are known by heart, explain, evaluate.

Runs on ``../shared/coco-mini``, or on any folder in COCO's layout (``annotations/captions_train2017.json``,
``annotations/instances_train2017.json``, ``train2017/``) that the environment variable ``CAPXAI_COCO`` names; its first eighty
training pictures are used.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.data.vocabulary import tokenize

COCO = Path(os.environ.get("CAPXAI_COCO", Path(__file__).parents[2] / "shared" / "coco-mini"))
CAPTIONS = COCO / "annotations" / "captions_train2017.json"
INSTANCES = COCO / "annotations" / "instances_train2017.json"
PICTURES = 80
ENOUGH = 70
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

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CAPTIONS.is_file(), reason=f"there is no {CAPTIONS}; name a folder with CAPXAI_COCO"),
]


def run(*words: object) -> str:
    """Run a verb; return what it printed."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def first_pictures(folder: Path) -> tuple[Path, Path]:
    """Cut the annotations down to the first pictures, whatever the size of the data set."""
    paths = []
    kept = {image["id"] for image in json.loads(CAPTIONS.read_bytes())["images"][:PICTURES]}
    for path in (CAPTIONS, INSTANCES):
        content = json.loads(path.read_bytes())
        content["images"] = [image for image in content["images"] if image["id"] in kept]
        content["annotations"] = [item for item in content["annotations"] if item["image_id"] in kept]
        paths.append(folder / path.name)
        paths[-1].write_text(json.dumps(content))
    return paths[0], paths[1]


def test_photographs_are_learned_by_heart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    captions, instances = first_pictures(tmp_path)
    sources = [f"train={captions}", f"train={instances}", f"train={COCO / 'train2017'}"]
    run(
        *("prepare", "coco", "--captions", sources[0], "--instances", sources[1], "--images", sources[2]),
        *("--set", "minimum_count=1", "--out", "corpus"),
    )
    run("extract-features", "--corpus", "corpus", "--out", "features.h5")
    settings = [word for item in SETTINGS for word in ("--set", item)]
    run("train", "--corpus", "corpus", "--features", "features.h5", "--decoder", "adaptive", "--out", "run", *settings)

    run("eval", "--model", "run", "--corpus", "corpus", "--split", "train", "--chair", "--beam", "1", "--out", "eval")
    content = json.loads(captions.read_text())
    references: dict[int, set[str]] = {}
    for item in content["annotations"]:
        references.setdefault(item["image_id"], set()).add(" ".join(tokenize(item["caption"])))
    found = {
        image["image_id"]: image["caption"] for image in json.loads((tmp_path / "eval/eval.json").read_text())["images"]
    }
    assert len(found) == len(references) == PICTURES
    learned = [number for number, caption in found.items() if caption in references[number]]
    assert len(learned) >= ENOUGH

    name = next(image["file_name"] for image in content["images"] if image["id"] == learned[0])
    run("explain", COCO / "train2017" / name, "--model", "run", "--beam", "1", "--out", "explained")
    explained = json.loads((tmp_path / "explained" / Path(name).stem / "explanation.json").read_text())
    assert explained["caption"] == found[learned[0]]  # the picture itself gives what its stored features gave
