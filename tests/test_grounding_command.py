"""The commands that calibrate the veto and caption with it, their files and their messages."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from planted_corpus import planted_model, write_planted_corpus
from typer.testing import CliRunner, Result

from capxai.cli.main import app
from capxai.data.scenes import render_picture
from capxai.errors import ConfigError, ModelError
from capxai.evaluate.lexicon import coco_lexicon
from capxai.models.folder import bundled_folder, load_model, save_model
from capxai.recipes.analysis.grounding import GroundingConfig, run
from capxai.recipes.analysis.grounding_report import CAPTIONS_FILE, REPORT_FILE
from capxai.recipes.grounding import GROUNDING_FILE, Grounding, read_grounding

SAID = ("a", "car", "near", "a", "traffic", "light", "near", "a", "knife")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says one caption, and a corpus whose splits are the same three pictures."""
    root = tmp_path_factory.mktemp("grounding")
    write_planted_corpus(root / "corpus", with_instances=True)
    manifest = json.loads((root / "corpus" / "corpus.json").read_text())
    manifest["splits"]["val"] = manifest["splits"]["test"]
    (root / "corpus" / "corpus.json").write_text(json.dumps(manifest))
    save_model(planted_model(root / "corpus" / "images"), root / "model")
    return root


def _config(folder: Path, **settings: Any) -> GroundingConfig:
    return GroundingConfig(model=folder / "model", corpus=folder / "corpus", device="cpu", quantile=0.6, **settings)


def test_the_recipe(folder: Path, tmp_path: Path) -> None:
    report = run(_config(folder, out=tmp_path / "out"))
    assert list(report.figures) == ["plain", "context", "probability", "random"]
    assert list(report.differences) == [
        "context - plain", "probability - plain", "random - plain", "context - probability", "context - random"
    ]  # fmt: skip
    # A car in pictures 1 and 2, a traffic light in 2, a knife twice in the corpus: too few for thresholds of their own.
    assert report.grounding.examples == {"car": 2, "knife": 2, "traffic light": 1} and not report.grounding.thresholds
    assert report.rare() == ("car", "knife", "traffic light")
    assert report.rates["context"] > 0
    captions = json.loads((tmp_path / "out" / CAPTIONS_FILE).read_text())
    assert [one["image_id"] for one in captions["plain"]] == [1, 2, 3] and captions["context"] != captions["plain"]
    stored = json.loads((tmp_path / "out" / REPORT_FILE).read_text())
    assert stored["figures"]["plain"]["chair_i"]["value"] == pytest.approx(4 / 9)  # 9 mentions, 5 of them true
    for name in ("context", "probability", "random"):
        recall = stored["figures"][name]["recall"]["value"] - stored["figures"]["plain"]["recall"]["value"]
        assert stored["differences"][f"{name} - plain"]["recall"]["value"] == pytest.approx(recall)
        named = any(coco_lexicon().mentions(one["caption"]) for one in captions[name])
        assert ("chair_i" in stored["figures"][name]) == named  # undefined where no object is named
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        CAPTIONS_FILE, GROUNDING_FILE, REPORT_FILE, "run.json"
    ]  # fmt: skip
    again = run(_config(folder))
    assert again.figures == report.figures and again.rates == report.rates
    _check_thresholds(folder, report.grounding)


def _check_thresholds(folder: Path, grounding: Grounding) -> None:
    """Recompute the pooled threshold with loops."""
    model = load_model(folder / "model")
    ids = [model.vocabulary.words.index(word) for word in SAID]
    values = []
    for number, steps in ((1, (1, 8)), (2, (1, 4)), (3, (8,))):
        with Image.open(folder / "corpus" / "images" / f"{number}.png") as opened:
            pixels = model.preprocessing.resize(np.asarray(opened.convert("RGB")))
        with torch.no_grad():
            memory = model.encode(model.preprocessing.normalize(torch.from_numpy(np.array(pixels))[None]))
            state, last = model.start(memory), model.vocabulary.start
            for t, word in enumerate(ids):
                step = model.step(memory, model.embed(torch.tensor([last])), state)
                if t in steps:
                    x = step.head_inputs.context[0] + step.head_inputs.hidden[0]
                    at_sum = x * model.decoder.word_head.fc.weight[word]
                    z = step.logits[0, word]
                    kept = z / (z + (0.01 if z >= 0 else -0.01))
                    signed = x + torch.where(x >= 0, 0.01, -0.01)
                    values.append(float((step.head_inputs.context[0] / signed * at_sum * kept).sum()))
                state, last = step.state, word
    assert grounding.pooled == pytest.approx(float(np.quantile(values, 0.6)), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"calibrate": "test"}, "'test' is both calibrated on and measured.*--split"),
        ({"quantile": 1.0}, "quantile is 1. Expected a share between 0 and 1"),
        ({"measure": "contex"}, "Unknown measure 'contex'.*Did you mean 'context'"),
        ({"calibration_pictures": -1}, "calibration_pictures is -1"),
        ({"eps": 0.1}, "lrp with eps 0.01"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GroundingConfig(**settings)


def _invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_calibrate_install_and_caption(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    picture = folder / "corpus" / "images" / "1.png"
    caption = ("caption", picture, "--model", tmp_path / "model", "--grounded", "--json", "--quiet")
    missing = _invoke(*caption)
    assert missing.exit_code == 1 and f"has no {GROUNDING_FILE}" in missing.output and "--install" in missing.output
    base = ("analyze", "grounding", "--model", tmp_path / "model", "--corpus", folder / "corpus", "--quantile", "0.6")
    done = _invoke(*base, "--install", "--quiet")
    assert done.exit_code == 0, done.output
    assert "5 true mentions of 3 categories" in done.stdout and "all categories' is used: car, knife" in done.stdout
    kept = _invoke(*base, "--install", "--quiet")
    assert kept.exit_code == 1 and "is there already, and it was kept" in kept.output
    found = _invoke(*caption)
    assert found.exit_code == 0, found.output
    one = json.loads(found.stdout)["pictures"][0]
    plain = json.loads(_invoke(*(part for part in caption if part != "--grounded")).stdout)["pictures"][0]
    assert plain["vetoed"] is None and one["vetoed"] and one["caption"] != plain["caption"]
    for veto in one["vetoed"]:
        assert veto["value"] < veto["threshold"] and veto["word"] in ("car", "traffic", "knife")
        said = [*one["caption"].split(), "<end>"]
        assert veto["instead"] == said[veto["step"]] != veto["word"]


def test_a_grounding_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    grounding = Grounding("a" * 64, "b" * 64, "context", 0.1, 0.5, {"car": 0.25}, {"car": 30}, {"verb": "x"})
    path = tmp_path / GROUNDING_FILE
    path.write_text(json.dumps(grounding.to_json()))
    assert read_grounding(tmp_path, "a" * 64, "b" * 64, "runs/x") == grounding
    with pytest.raises(
        ModelError, match=r"calibrated for other weights \(SHA-256 aaaaaaaaaaaa.*'runs/x'.*--model runs/x"
    ):
        read_grounding(tmp_path, "c" * 64, "b" * 64, "runs/x")
    with pytest.raises(ModelError, match="calibrated with another lexicon"):
        read_grounding(tmp_path, "a" * 64, "c" * 64, "runs/x")
    whole = grounding.to_json()
    torn: list[tuple[object, str]] = [
        ({**whole, "schema": 9}, "schema is 9"),
        ({name: value for name, value in whole.items() if name != "pooled"}, "there is no 'pooled' in it"),
        ({**whole, "pooled": math.nan}, "a threshold is no number"),
        ({**whole, "measure": 3}, "its measure is no text"),
        ({**whole, "thresholds": []}, "cannot be read"),
        ([], "cannot be read"),
    ]
    for content, message in torn:
        path.write_text(json.dumps(content))
        with pytest.raises(ModelError, match=message):
            read_grounding(tmp_path, "a" * 64, "b" * 64, "runs/x")


def test_the_bundled_model_is_grounded_out_of_the_box(tmp_path: Path) -> None:
    weights = json.loads((bundled_folder() / "model.json").read_text())["lineage"]["weights_sha256"]
    grounding = read_grounding(bundled_folder(), weights, coco_lexicon().sha256, "bundled")
    assert grounding.quantile == pytest.approx(0.1) and len(grounding.thresholds) >= 10
    Image.fromarray(render_picture(0, "test", 2).image).save(tmp_path / "one.png")
    done = _invoke("caption", tmp_path / "one.png", "--grounded", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    assert isinstance(json.loads(done.stdout)["pictures"][0]["vetoed"], list)
