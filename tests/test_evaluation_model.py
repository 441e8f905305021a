"""``capxai eval`` of models: from pictures, from stored features, in two processes, and again from what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_files import write_all
from typer.testing import CliRunner, Result

from capxai.cli.main import app
from capxai.data.corpus import Corpus
from capxai.data.feature_format import FeatureDescription
from capxai.data.feature_writer import FeatureWriter
from capxai.data.images import read_image
from capxai.data.scenes import write_corpus
from capxai.models.folder import load, load_model, save_model

RUNNER = CliRunner()
OPTIONS = ("--chair", "--metrics", "bleu,cider", "--set", "tokenizer=python")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, a model of pictures and one of stored features, and the features."""
    folder = tmp_path_factory.mktemp("evaluation")
    write_corpus(folder / "corpus", 50, 0)
    model = load()  # the bundled one: its captions differ from picture to picture
    save_model(model, folder / "model")
    description = features(model, folder)
    model.encoder = None
    model.specification = replace(model.specification, encoder="features")
    model.lineage["features"] = description.to_json()
    save_model(model, folder / "blind")
    return folder


def features(model: Any, folder: Path) -> FeatureDescription:
    """Write the model's features of the test split, in another order."""
    pictures = list(reversed(Corpus.open(folder / "corpus").split("test").pictures))
    pixels = np.stack([model.preprocessing.resize(read_image(picture.path)) for picture in pictures])
    with torch.no_grad():
        found = model.features(model.preprocessing.normalize(torch.from_numpy(pixels))).numpy()
    sizes = model.specification
    description = FeatureDescription(
        "region", "tiny", "0" * 64, None, sizes.regions, sizes.channels, "float32", None, "scenes", {}
    )
    other = replace(description, weights_sha256="1" * 64)
    boxes = np.zeros((len(pictures), sizes.regions, 4), np.float32)
    for name, one in (("features.h5", description), ("other.h5", other)):
        ids, extent = [picture.id for picture in pictures], [(picture.height, picture.width) for picture in pictures]
        with FeatureWriter.create_or_resume(folder / name, one, ids, extent, block=len(ids)) as writer:
            writer.write(0, found, boxes)
            writer.finish()
    return description


def invoke(*arguments: object) -> Result:
    return RUNNER.invoke(app, ["eval", *(str(argument) for argument in arguments)])


def report(*arguments: object) -> dict[str, Any]:
    """Run with ``--json`` and return what was printed."""
    result = invoke(*arguments, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_model_and_its_saved_captions_give_the_same_numbers(place: Path, tmp_path: Path) -> None:
    found = report("--model", place / "model", "--corpus", place / "corpus", *OPTIONS, "--out", tmp_path / "out")
    assert [image["image_id"] for image in found["images"]] == [
        picture.id for picture in Corpus.open(place / "corpus").split("test").pictures
    ]
    assert len({image["caption"] for image in found["images"]}) > 5
    again = report(
        "--predictions", tmp_path / "out/predictions.json", "--images", tmp_path / "out/images.txt", "--corpus", place / "corpus", *OPTIONS
    )  # fmt: skip
    assert found["overall"] == again["overall"]
    assert found["images"] == again["images"]
    provenance = found["provenance"]
    assert provenance["decoding"] == {"strategy": "beam", "beam": 3, "maximum_length": 20}
    assert provenance["weights_sha256"] == load_model(place / "model").lineage["weights_sha256"]
    for name in ("image_list_sha256", "predictions_sha256", "references_sha256", "lexicon_sha256", "tokenizer"):
        assert provenance[name] == again["provenance"][name]


def test_stored_features_give_the_captions_of_the_pictures(place: Path) -> None:
    corpus = ("--corpus", place / "corpus")
    seen = report("--model", place / "model", *corpus, "--chair")
    stored = report("--model", place / "blind", *corpus, "--features", place / "features.h5", "--chair")
    assert seen["images"] == stored["images"]
    assert seen["overall"] == stored["overall"]
    assert stored["provenance"]["features"] == str(place / "features.h5")


def test_features_that_do_not_fit_are_refused(place: Path) -> None:
    corpus = ("--corpus", place / "corpus", "--chair")
    blind = invoke("--model", place / "blind", *corpus)
    assert blind.exit_code == 1
    assert "no encoder" in blind.stderr
    foreign = invoke("--model", place / "blind", *corpus, "--features", place / "other.h5")
    assert foreign.exit_code == 1
    assert "weights_sha256" in foreign.stderr and "Expected" in foreign.stderr
    split = invoke("--model", place / "blind", *corpus, "--split", "val", "--features", place / "features.h5")
    assert split.exit_code == 1
    assert "no features of" in split.stderr


def test_a_model_captions_the_pictures_of_annotation_files(place: Path, tmp_path: Path) -> None:
    write_all(tmp_path)
    files = ("--captions", tmp_path / "captions.json", "--pictures", tmp_path / "pictures")
    found = report("--model", place / "model", *files, "--chair", "--limit", 3)
    assert [image["image_id"] for image in found["images"]] == [1, 2, 3]
    assert found["provenance"]["truth"] == "references"
    (tmp_path / "pictures" / "2.png").unlink()
    result = invoke("--model", place / "model", *files, "--chair")
    assert result.exit_code == 1
    assert "2.png" in result.stderr


def test_what_cannot_be_measured_is_refused_before_captioning(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capxai.recipes.evaluation_captions.decode", None)  # calling it would fail otherwise
    for options in (("--lexicon", tmp_path / "none.txt"), ("--compare", tmp_path / "none.json"), ("--split", "none")):
        result = invoke("--model", place / "model", "--corpus", place / "corpus", "--chair", *options)
        assert result.exit_code == 1
        assert "none" in result.stderr


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no distributed package here")
def test_two_processes_give_the_captions_of_one(place: Path, tmp_path: Path) -> None:
    words = ("eval", "--model", place / "model", "--corpus", place / "corpus", "--chair", "--device", "cpu", "--out")
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "capxai")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [*map(str, (*launcher, *words, tmp_path / "two"))],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("CHAIRi") == 1
    found = report(*words[1:], tmp_path / "one")
    shared = json.loads((tmp_path / "two" / "eval.json").read_text())
    assert shared["images"] == found["images"]
    assert shared["overall"] == found["overall"]
