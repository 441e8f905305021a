"""Why this word and not that one: the relevance of one logit minus that of another, from the numbers to the page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import CAPTION, DECODERS, WORDS, picture_model, picture_reading, reading, small_model
from test_page_browser import driver as driver
from tiny_captioner import tiny_captioner
from typer.testing import CliRunner

import capxai
from capxai.cli.main import app
from capxai.errors import CapxaiError, RelevanceError, VocabularyError
from capxai.explain.attribution import Words
from capxai.explain.explanation import Contrast, Explanation
from capxai.explain.methods import METHODS, Maps, Options, Request
from capxai.explain.page import render_page
from capxai.explain.question import NO_CONTRAST, asked
from capxai.models.captioner import Captioner
from capxai.models.folder import save_model

LINEAR = ("lrp", "gradient", "gradient-x-input")
CAR, ROAD = WORDS.index("car"), WORDS.index("road")
TEXT = "a red car on the road"


def _explain(model: Captioner, method: str, places: list[int], tokens: list[int], against: list[int] | None) -> Maps:
    readings = (reading(model) if model.encoder is None else picture_reading(model)).together()
    asked_for = Words(
        torch.zeros(len(places), dtype=torch.int64),
        torch.tensor(places),
        torch.tensor(tokens),
        None if against is None else torch.tensor(against),
    )
    return METHODS[method](Request(readings, asked_for))


def _arrays(maps: Maps) -> dict[str, torch.Tensor]:
    found = {"pixels": maps.pixels, "regions": maps.regions, "words": maps.words, "kept": maps.kept}
    return {name: array for name, array in found.items() if array is not None}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("method", LINEAR)
def test_a_contrast_is_the_difference_of_two_explanations_and_turns_its_sign(decoder: str, method: str) -> None:
    for model in (small_model(decoder), picture_model("compact", decoder, 32, torch.float64)):
        places, others = [1, 4], [ROAD, WORDS.index("on")]
        said = [CAPTION[place] for place in places]
        contrast, turned, one, other = (
            _arrays(_explain(model, method, places, *pair))
            for pair in ((said, others), (others, said), (said, None), (others, None))
        )
        assert set(contrast) == set(one) and len(one) >= 2
        for name, array in contrast.items():
            expected = one[name] - other[name]
            torch.testing.assert_close(array, expected, rtol=1e-6, atol=1e-12)
            torch.testing.assert_close(array, -turned[name], rtol=1e-6, atol=1e-12)
            assert name == "kept" or expected.abs().max() > 1e-8


@pytest.mark.parametrize("decoder", DECODERS)
def test_grad_cam_is_that_of_the_difference_of_logits(decoder: str) -> None:
    model = small_model(decoder)
    seen = reading(model)
    found = _explain(model, "grad-cam", [1], [CAR], [ROAD]).regions
    leaf = seen.features.clone().requires_grad_()
    logits = (
        replace(seen, features=leaf)
        .model.unroll(model.remember(leaf), lambda t, _: model.embed(seen.inputs)[t][None], 2)[1]
        .logits[0]
    )
    (logits[CAR] - logits[ROAD]).backward()
    assert leaf.grad is not None and found is not None
    expected = torch.relu((leaf.grad.mean(1, keepdim=True) * leaf).sum(2))
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-9)
    apart = _explain(model, "grad-cam", [1], [CAR], None), _explain(model, "grad-cam", [1], [ROAD], None)
    assert apart[0].regions is not None and apart[1].regions is not None
    assert (found - (apart[0].regions - apart[1].regions)).abs().max() > 1e-3  # no difference of two clipped maps


@pytest.mark.parametrize("decoder", DECODERS)
def test_parts_add_up_to_the_difference_of_logits(decoder: str) -> None:
    model = tiny_captioner(decoder).double()
    found = capxai.explain(model, _noise(), caption=TEXT, why="car", against="road")
    plain = capxai.explain(model, _noise(), caption=TEXT)
    assert found.tokens == ("car",) and found.before == ("a", "red") and found.after == ("on", "the", "road")
    assert found.caption == plain.caption == TEXT and found.inputs(0) == ("<start>", "a", "red")
    assert found.contrast is not None and found.contrast.token == "road" and found.title(0) == "car rather than road"
    logits = _slow_logits(model, ("<start>", "a", "red"))
    difference = float(logits[CAR] - logits[ROAD])
    assert found.explained(0) == pytest.approx(difference, abs=1e-5)
    assert found.contrast.probability == pytest.approx(float(torch.softmax(logits, 0)[ROAD]), abs=1e-6)
    assert found.probability[0] == plain.probability[2] and found.logits[0] == plain.logits[2]
    assert sum(found.totals(0).present().values()) == pytest.approx(difference, abs=1e-5)
    assert sum(found.shares(0).present().values()) == pytest.approx(1, abs=1e-3)


def _slow_logits(model: Captioner, words: tuple[str, ...]) -> torch.Tensor:
    """The logits after some words, step by step."""
    images = model.preprocessing.normalize(torch.from_numpy(_noise())[None]).double()
    with torch.no_grad():
        memory = model.encode(images)
        state = model.start(memory)
        for word in words:
            step = model.step(memory, model.embed(torch.tensor([WORDS.index(word)])), state)
            state = step.state
        return step.logits[0]


def _noise(size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_one_word_alone_is_that_row_of_the_whole_explanation() -> None:
    model = tiny_captioner("mh-fc").double()
    for method in METHODS:
        whole = capxai.explain(model, _noise(), method, TEXT)
        alone = capxai.explain(model, _noise(), method, TEXT, why="car")
        assert alone.contrast is None and alone.title(0) == "car"
        for name in ("pixel_relevance", "region_relevance", "attention", "bias_relevance"):
            one, row = getattr(alone, name), getattr(whole, name)
            assert (one is None) == (row is None)
            if one is not None:
                np.testing.assert_allclose(one[0], row[2], rtol=0, atol=1e-6)
        if whole.word_relevance is not None and alone.word_relevance is not None:
            np.testing.assert_allclose(alone.word_relevance[0], whole.word_relevance[2, :3], rtol=0, atol=1e-6)


def test_a_word_that_is_said_twice_is_explained_where_it_stands_first() -> None:
    found = capxai.explain(tiny_captioner(), _noise(), caption="a car on a road", why="a", against="the")
    assert found.before == () and found.after == ("car", "on", "a", "road")


def test_the_folder_says_that_it_is_a_contrast(tmp_path: Path) -> None:
    found = capxai.explain(tiny_captioner(), _noise(), caption=TEXT, why="car", against="road")
    found.save(tmp_path / "one")
    described = json.loads((tmp_path / "one" / "explanation.json").read_text())
    assert described["share_of"] == "difference of logits" and described["caption"] == TEXT
    assert described["before"] == ["a", "red"] and described["after"] == ["on", "the", "road"]
    other = described["contrast"]
    assert (other["token"], other["token_id"]) == ("road", ROAD)
    assert other["logit_difference"] == pytest.approx(described["words"][0]["logit"] - other["logit"])
    with np.load(tmp_path / "one" / "explanation.npz") as stored:
        assert stored["contrast_token"] == "road" and stored["before"].tolist() == ["a", "red"]
        assert float(stored["contrast_logit"]) == other["logit"]
    again = Explanation.load(tmp_path / "one")
    assert again.contrast == found.contrast and again.title(0) == found.title(0) and again.before == found.before
    assert again.totals(0) == found.totals(0)
    text = (tmp_path / "one" / "explanation.html").read_text()
    assert "Why did the model say “car” rather than “road”?" in text and "logit of road" in text
    with Image.open(tmp_path / "one" / "explanation.png") as sheet:
        plain = replace(found, contrast=None)
        plain.save(tmp_path / "two")
        with Image.open(tmp_path / "two" / "explanation.png") as other_sheet:
            assert sheet.height > other_sheet.height  # the line that names both words
    del described["contrast"]
    (tmp_path / "one" / "explanation.json").write_text(json.dumps(described))
    with pytest.raises(CapxaiError, match="only one of explanation.json and explanation.npz holds a contrast"):
        Explanation.load(tmp_path / "one")


def test_names_in_a_contrast_are_escaped() -> None:
    found = capxai.explain(tiny_captioner(), _noise(), caption=TEXT, why="car", against="road")
    page = render_page(replace(found, contrast=Contrast("<b>&", 3, 0.5, 0.1), before=("<i>", "red")))
    assert "<b>" not in page and "<i>" not in page.split("</main>")[0] and "&lt;i&gt;" in page


def test_a_contrast_has_one_word() -> None:
    found = capxai.explain(tiny_captioner(), _noise(), caption=TEXT)
    with pytest.raises(RelevanceError, match="contrast with 6 explained words"):
        replace(found, contrast=Contrast("road", ROAD, 0.0, 0.5))


@pytest.mark.parametrize(
    ("method", "why", "against", "error", "message"),
    [
        ("lrp", "car", "roat", VocabularyError, "'roat' is not in the vocabulary.*did you mean 'road'"),
        ("lrp", "kar", None, VocabularyError, "'kar' is not in the vocabulary.*did you mean 'car'"),
        ("lrp", "car", "Car", VocabularyError, "'car' was given twice"),
        ("lrp", "red car", "road", VocabularyError, "'red car' after --why has 2 words"),
        ("lrp", None, "road", VocabularyError, "without a word to set it against.*--why WORD --not road"),
        *((method, "car", "road", RelevanceError, f"'{method}' does not start from a logit") for method in NO_CONTRAST),
    ],
)
def test_what_cannot_be_asked(method: str, why: Any, against: Any, error: type[CapxaiError], message: str) -> None:
    with pytest.raises(error, match=message):
        asked(tiny_captioner().vocabulary, method, why, against)


def test_a_word_that_the_caption_does_not_say() -> None:
    with pytest.raises(VocabularyError, match=r"does not say 'road'.*one of its words \(a, red, car\).*--caption"):
        capxai.explain(tiny_captioner(), _noise(), caption="a red car", why="road")


def test_every_method_that_starts_from_a_logit_can_be_asked() -> None:
    model = tiny_captioner()
    for method in set(METHODS) - set(NO_CONTRAST):
        found = capxai.explain(model, _noise(), method, TEXT, why="car", against="road", options=Options())
        assert found.contrast is not None and found.pixel_relevance is not None and found.pixel_relevance.any()


def test_the_command(tmp_path: Path) -> None:
    save_model(tiny_captioner(), tmp_path / "model")
    Image.fromarray(_noise()).save(tmp_path / "one.png")
    base = ["explain", str(tmp_path / "one.png"), "--model", str(tmp_path / "model"), "--caption", TEXT, "--quiet"]
    runner = CliRunner()
    done = runner.invoke(app, [*base, "--why", "car", "--not", "road", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert re.search(r"car rather than road: logit -?[\d.]+ against -?[\d.]+, difference", done.stdout)
    assert "Shares are of the difference of logits." in done.stdout
    record = json.loads((tmp_path / "out" / "one" / "run.json").read_text())
    assert "car" in json.dumps(record) and "road" in json.dumps(record)
    refused = runner.invoke(app, [*base, "--why", "car", "--not", "car", "--out", str(tmp_path / "two")])
    assert refused.exit_code == 1 and "was given twice" in refused.output and not (tmp_path / "two").exists()
    silent = runner.invoke(app, [*base[:-1], "--caption", "a road", "--why", "car", "--out", str(tmp_path / "three")])
    assert silent.exit_code == 1 and "does not say 'car'" in silent.output


def test_the_page_in_a_browser(driver: Any, tmp_path: Path) -> None:
    found = capxai.explain(tiny_captioner(), _noise(), caption=TEXT, why="car", against="road")
    found.save(tmp_path / "one")
    driver.get((tmp_path / "one" / "explanation.html").as_uri())
    assert driver.find_element("id", "word").text == "car rather than road"
    assert "difference" in driver.find_element("id", "confidence").text
    words = driver.find_elements("css selector", "#sentence > *")
    assert [word.text for word in words] == TEXT.split() and [word.tag_name for word in words].count("button") == 1
    assert driver.find_element("id", "low").text.endswith("for “road”")
    chips = driver.find_elements("css selector", "#chips li")
    assert [chip.find_element("tag name", "span").text for chip in chips] == ["<start>", "a", "red"]
    colors = [word.value_of_css_property("background-color") for word in words[:2]]
    assert colors == [chip.value_of_css_property("background-color") for chip in chips[1:]]
    assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
