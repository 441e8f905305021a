"""The bundled model, as a newcomer meets it: what it promises, and pictures of every kind through the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import capxai
from capxai.cli.main import app
from capxai.data.scenes import render_picture, write_corpus
from capxai.models.captioner import Captioner
from capxai.models.folder import bundled_folder
from capxai.recipes.evaluate import EvaluateConfig, run

PHOTOGRAPHS = Path(__file__).parents[2] / "shared" / "coco-mini" / "val2017"
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def model() -> Captioner:
    return capxai.load()


@pytest.fixture
def scene() -> Image.Image:
    return Image.fromarray(render_picture(0, "test", 2).image)


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def rotated(picture: Image.Image, path: Path) -> None:
    """Write the picture lying on its side, with the orientation that sets it upright."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    picture.rotate(90, expand=True).save(path, exif=exif, quality=95)


FORMATS: dict[str, Callable[[Image.Image, Path], None]] = {
    "photo.jpg": lambda picture, path: picture.save(path, quality=95),
    "grey.png": lambda picture, path: picture.convert("L").save(path),
    "palette.png": lambda picture, path: picture.convert("P").save(path),
    "alpha.png": lambda picture, path: picture.convert("RGBA").save(path),
    "deep.png": lambda picture, path: Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 257).save(path),
    "web.webp": lambda picture, path: picture.save(path, quality=95),
    "turned.jpg": rotated,
    "narrow.png": lambda picture, path: picture.resize((1, 90)).save(path),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_kind_of_picture_is_explained(
    name: str, scene: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    FORMATS[name](scene, tmp_path / name)
    result = explain(name)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "explanations" / Path(name).stem
    assert {file.name for file in folder.iterdir()} >= {
        "explanation.npz", "explanation.json", "explanation.png", "explanation.html"
    }  # fmt: skip


def test_a_turned_picture_is_explained_upright(scene: Image.Image, tmp_path: Path, model: Captioner) -> None:
    rotated(scene, tmp_path / "turned.jpg")
    seen = capxai.explain(model, tmp_path / "turned.jpg", method="attention").image
    assert (
        np.abs(seen.astype(int) - np.asarray(scene, int)).mean() < 6
    )  # JPEG noise; a picture on its side differs by tens


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="needs the coco-mini photographs beside the checkout")
def test_photographs_are_explained_and_the_limits_said(tmp_path: Path, model: Captioner) -> None:
    photographs = sorted(PHOTOGRAPHS.glob("*.jpg"))[:3]
    result = explain(*photographs, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    note = str(model.lineage["domain_note"])
    assert "photograph" in note
    assert "import-checkpoint" in result.output
    for photograph in photographs:
        page = (tmp_path / photograph.stem / "explanation.html").read_text(encoding="utf-8")
        assert "scenes" in page
        assert "photograph" in page


def test_it_is_small_and_says_how_it_was_made(model: Captioner) -> None:
    assert sum(file.stat().st_size for file in bundled_folder().iterdir()) < 10_000_000
    assert str(model.lineage["command"]).startswith("capxai train ")
    assert model.lineage["domain"] == "scenes"


def test_its_figures_hold_on_new_pictures(tmp_path: Path) -> None:
    """Pictures of another seed, which neither training nor choosing has seen."""
    corpus = tmp_path / "scenes"
    write_corpus(corpus, size=1000, seed=77)
    test, robust = (
        {name: figure.value for name, figure in report.overall.items() if figure is not None}
        for report in (
            run(EvaluateConfig(corpus=corpus, model=bundled_folder(), split=split, chair=True))
            for split in ("test", "robust")
        )
    )
    assert test["f1"] >= 0.85
    assert test["chair_i"] < 0.06
    assert robust["chair_i"] > 0.08
    assert robust["chair_i"] > 2 * test["chair_i"]


def test_relevance_adds_up_to_the_logit(model: Captioner, scene: Image.Image) -> None:
    explanation = capxai.explain(model, np.asarray(scene))
    assert explanation.pixel_relevance is not None
    for word in range(len(explanation.tokens)):
        total = sum(explanation.totals(word).present().values())
        assert abs(total - explanation.logits[word]) < 1e-4 * abs(explanation.logits[word])


def test_the_same_picture_gives_the_same_bits(model: Captioner, scene: Image.Image) -> None:
    first, second = (capxai.explain(model, np.asarray(scene)) for _ in range(2))
    assert first.tokens == second.tokens
    for name in ("pixel_relevance", "word_relevance", "logits"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_loading_runs_nothing(model: Captioner) -> None:
    stored = json.loads((bundled_folder() / "model.json").read_text(encoding="utf-8"))
    assert set(stored) >= {"specification", "vocabulary", "preprocessing", "lineage"}
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
