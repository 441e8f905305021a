"""``capxai analyze hallucination`` on captioners whose object word comes from the language alone, or from the picture alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from planted_captioners import COLORS, OBJECTS, caption_of, planted_captioner, write_colors
from small_models import DECODERS

from capxai.explain.explainer import explain
from capxai.models.folder import load_model
from capxai.recipes.analysis.hallucination import HallucinationConfig, run
from capxai.recipes.analysis.hallucination_report import HallucinationReport

SOURCES = ("language", "picture")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planted")
    write_colors(root / "corpus")
    for decoder in DECODERS:
        for source in SOURCES:
            planted_captioner(decoder, source, root / "corpus" / "images", root / f"{decoder}-{source}")
        planted_captioner(decoder, "picture", root / "corpus" / "images", root / f"{decoder}-leak", leak=1.0)
    return root


def _run(folder: Path, name: str) -> HallucinationReport:
    methods = ("lrp", "gradient", "gradient-x-input")
    return run(HallucinationConfig(model=folder / name, corpus=folder / "corpus", pictures=0, method=methods, eps=1e-5))


def _column(report: HallucinationReport, name: str) -> np.ndarray:
    return report.words.table[:, report.words.names.index(name)]


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_word_from_the_language_alone(folder: Path, decoder: str) -> None:
    report = _run(folder, f"{decoder}-language")
    assert report.words.captions == ("a red car",) * 4  # whatever the picture shows
    assert report.words.present == (True, True, False, False)
    for level in ("pixels", "regions"):
        assert np.abs(_column(report, f"lrp {level} share")).max() < 1e-6
        assert np.abs(_column(report, f"lrp {level} against words")).max() < 1e-6
        assert np.abs(_column(report, f"gradient {level} absolute mean")).max() < 1e-6
    whole = _column(report, "lrp words share") + _column(report, "lrp eps share")
    np.testing.assert_allclose(whole, 1, atol=1e-4)
    assert _column(report, "lrp words share").min() > 0.9


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_word_from_the_picture_alone(folder: Path, decoder: str) -> None:
    report = _run(folder, f"{decoder}-picture")
    assert report.words.captions == tuple(caption_of("picture", number) for number in COLORS)
    assert report.words.categories == tuple(OBJECTS.values()) and all(report.words.present)
    assert np.abs(_column(report, "lrp words share")).max() < 1e-6
    assert np.abs(_column(report, "gradient words sum")).max() < 1e-6
    np.testing.assert_allclose(_column(report, "gradient-x-input regions against words"), 1, atol=1e-6)
    for level in ("pixels", "regions"):
        np.testing.assert_allclose(_column(report, f"lrp {level} against words"), 1, atol=1e-6)
        whole = _column(report, f"lrp {level} share") + _column(report, "lrp eps share")
        np.testing.assert_allclose(whole, 1, atol=1e-4)
    assert _column(report, "lrp pixels share").min() > 0.9


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("source", SOURCES)
def test_the_other_side_really_has_no_say(folder: Path, decoder: str, source: str) -> None:
    """Change the other side: the logits of the object words stay as they are."""
    model = load_model(folder / f"{decoder}-{source}")
    objects = [model.vocabulary.encode(word)[0] for word in ("car", "dog")]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        features = torch.rand(2, 16, 112, generator=generator)
        tokens = torch.tensor([[1, 4, 5], [1, 4, 5]])
        if source == "picture":
            features, tokens = features[:1].expand(2, -1, -1), torch.tensor([[1, 4, 5], [6, 7, 2]])
        seen = model.read(model.remember(features), model.embed(tokens))
        one, other = model.speak(seen)[:, 2, objects]
    assert one.abs().max() > 1e-3
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(one.abs().max()))


@pytest.mark.parametrize("decoder", DECODERS)
def test_where_both_sides_speak_both_have_a_share(folder: Path, decoder: str) -> None:
    model = load_model(folder / f"{decoder}-leak")
    found = explain(model, folder / "corpus" / "images" / "1.png", caption="a red car")
    assert found.region_relevance is not None and found.word_relevance is not None
    logit = abs(found.logits[2])
    assert (
        np.abs(found.region_relevance[2]).sum() > 0.01 * logit and np.abs(found.word_relevance[2]).sum() > 0.01 * logit
    )
