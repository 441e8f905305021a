"""The explanation folder: arrays, JSON, colors, sheet and page."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from capxai.errors import CapxaiError, ConfigError, RelevanceError
from capxai.explain import files
from capxai.explain.colors import (
    LEVELS,
    display_maps,
    diverging,
    limits,
    overlay,
    overlay_palette,
    percent,
    signed,
    smoothed,
)
from capxai.explain.explanation import Explanation
from capxai.explain.page import render_page
from capxai.explain.sheet import render_sheet


def make_explanation(tokens: tuple[str, ...] = ("a", "red", "car"), size: int = 28, **changes: Any) -> Explanation:
    """Make a conserving explanation with random signed relevance: logit = pixels + words + bias + eps."""
    random, count = np.random.default_rng(0), len(tokens)
    pixels = random.normal(0.001, 0.01, (count, size, size)).astype(np.float32)
    words = np.tril(random.normal(0.3, 0.5, (count, count))).astype(np.float32)
    bias, eps = random.normal(0.5, 0.2, count), random.normal(0, 0.01, count)
    fields: dict[str, Any] = {
        "tokens": tokens,
        "token_ids": np.arange(count) + 4,
        "logits": pixels.sum((1, 2)) + words.sum(1) + bias + eps,
        "probability": np.linspace(0.2, 0.9, count),
        "method": "lrp",
        "model": "bundled",
        "image": random.integers(0, 256, (size, size, 3), dtype=np.uint8),
        "pixel_relevance": pixels,
        "region_relevance": random.normal(size=(count, 49)),
        "word_relevance": words,
        "attention": random.dirichlet(np.ones(49), (count, 2)),
        "sentinel": random.uniform(size=count),
        "bias_relevance": bias,
        "eps_relevance": eps,
        "grid": (7, 7),
        "source": "image.jpg",
        "notes": ("This model knows only the synthetic `scenes` corpus.",),
    }
    return Explanation(**{**fields, **changes})


def decoded(uri: str) -> Image.Image:
    """Decode a PNG data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


def page_data(page: str) -> dict[str, Any]:
    """Read the data that the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_save_writes_the_arrays_of_the_interface(tmp_path: Path) -> None:
    explanation = make_explanation()
    folder = explanation.save(tmp_path / "out" / "image")
    assert sorted(path.name for path in folder.iterdir()) == sorted(files.FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["image"]
    with np.load(folder / "explanation.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    described = {name: (array.dtype.kind, array.dtype.itemsize, array.shape) for name, array in arrays.items()}
    assert described.pop("tokens")[0::2] == ("U", (3,))
    assert described == {
        "token_ids": ("i", 8, (3,)),
        "logits": ("f", 4, (3,)),
        "probability": ("f", 4, (3,)),
        "pixel_relevance": ("f", 4, (3, 28, 28)),
        "region_relevance": ("f", 4, (3, 49)),
        "word_relevance": ("f", 4, (3, 3)),
        "attention": ("f", 4, (3, 2, 49)),
        "sentinel": ("f", 4, (3,)),
        "image": ("u", 1, (28, 28, 3)),
    }
    assert arrays["pixel_relevance"].tobytes() == explanation.pixel_relevance.tobytes()  # type: ignore[union-attr]


def test_arrays_that_a_method_lacks_are_left_out(tmp_path: Path) -> None:
    lacking = ("pixel_relevance", "word_relevance", "sentinel", "bias_relevance", "eps_relevance")
    none: dict[str, Any] = dict.fromkeys(lacking)
    explanation = make_explanation(**none)
    explanation.save(tmp_path / "image")
    with np.load(tmp_path / "image" / "explanation.npz", allow_pickle=False) as stored:
        assert not set(lacking) & set(stored.files)
    loaded = Explanation.load(tmp_path / "image")
    assert all(getattr(loaded, name) is None for name in lacking)
    assert loaded.totals(1).picture == pytest.approx(float(explanation.region_relevance[1].sum()))  # type: ignore[index]


def test_load_gives_back_what_was_saved(tmp_path: Path) -> None:
    explanation = make_explanation(tokens=("café", "<script>", "<end>"))
    loaded = Explanation.load(explanation.save(tmp_path / "image"))
    for name in explanation.__dataclass_fields__:
        saved, read = getattr(explanation, name), getattr(loaded, name)
        if isinstance(saved, np.ndarray):
            assert saved.dtype == read.dtype
            assert np.array_equal(saved, read), name
        else:
            assert saved == read
    assert loaded.caption == "café <script>"


def test_json_states_shares_that_add_up_to_one(tmp_path: Path) -> None:
    explanation = make_explanation()
    explanation.save(tmp_path / "image", scale="word")
    described = json.loads((tmp_path / "image" / "explanation.json").read_text(encoding="utf-8"))
    assert described["schema_version"] == 1
    assert (described["caption"], described["method"], described["scale"]) == ("a red car", "lrp", "word")
    assert described["image_size"] == {"height": 28, "width": 28}
    assert described["share_of"] == "logit"
    assert described["notes"] == list(explanation.notes)
    for word in described["words"]:
        assert set(word) == {"token", "id", "logit", "probability", "relevance", "share"}
        assert sum(word["share"].values()) == pytest.approx(1, abs=1e-5)
        for part in ("picture", "words", "bias", "eps"):
            assert word["share"][part] == pytest.approx(word["relevance"][part] / word["logit"])


def test_shares_without_conservation_are_of_absolute_totals() -> None:
    explanation = make_explanation(
        tokens=("car",),
        pixel_relevance=np.full((1, 28, 28), 3 / 784),
        word_relevance=[[-1.0]],
        bias_relevance=None,
        eps_relevance=None,
    )
    shares = explanation.shares(0)
    assert shares.picture == pytest.approx(0.75, abs=1e-6)
    assert shares.words == pytest.approx(-0.25, abs=1e-6)
    assert shares.bias is None
    assert shares.eps is None


def test_a_logit_of_zero_has_no_shares_and_writes_no_nan(tmp_path: Path) -> None:
    explanation = make_explanation(logits=np.zeros(3))
    explanation.save(tmp_path / "image")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in JSON")

    text = (tmp_path / "image" / "explanation.json").read_text(encoding="utf-8")
    described = json.loads(text, parse_constant=refuse)
    assert described["words"][0]["share"] == {"picture": None, "words": None, "bias": None, "eps": None}
    assert "NaN" not in (tmp_path / "image" / "explanation.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": np.zeros(4)}, r"logits has shape \(4,\); expected \(3\)"),
        (
            {"pixel_relevance": np.zeros((3, 28, 27))},
            r"pixel_relevance has shape \(3, 28, 27\); expected \(3, 28, 28\)",
        ),
        ({"region_relevance": np.zeros((3, 50))}, r"expected \(3, 49\)"),
        ({"attention": np.zeros((2, 49))}, r"expected \(3, 49\) or \(3, any, 49\)"),
        ({"image": np.zeros((28, 28), np.uint8)}, r"image has shape"),
        ({"bias_relevance": [1.0, math.nan, 2.0]}, "bias_relevance holds 1 values that are not finite"),
        ({"word_relevance": np.ones((3, 3))}, r"word_relevance\[0, 1\] is not zero"),
        ({"probability": [0.5, -0.1, 3.0]}, "expected \\[0, 1\\]"),
        ({"tokens": ()}, "no words"),
    ],
)
def test_wrong_arrays_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RelevanceError, match=message):
        replace(make_explanation(), **changes)


def test_an_existing_explanation_is_kept_unless_forced(tmp_path: Path) -> None:
    folder = make_explanation().save(tmp_path / "image")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "mine.txt").write_text("keep")
    other = make_explanation(tokens=("a", "bus"))
    with pytest.raises(CapxaiError, match="--force"):
        other.save(folder)
    assert {name: (folder / name).read_bytes() for name in before} == before
    other.save(folder, force=True)
    assert Explanation.load(folder).tokens == ("a", "bus")
    assert (folder / "mine.txt").read_text() == "keep"


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "render_page", fail)
    with pytest.raises(CapxaiError, match="No space left"):
        make_explanation().save(tmp_path / "image")
    assert list(tmp_path.iterdir()) == []


def test_saving_below_a_file_and_unknown_scales_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(CapxaiError, match="Cannot write to"):
        make_explanation().save(tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    with pytest.raises(ConfigError, match="Did you mean 'word'"):
        make_explanation().save(tmp_path / "image", scale="words")


def test_loading_what_is_torn_or_missing_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CapxaiError, match="is missing"):
        Explanation.load(tmp_path)
    folder = make_explanation().save(tmp_path / "image")
    described = folder / "explanation.json"
    described.write_text(described.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(CapxaiError, match="schema version 99"):
        Explanation.load(folder)
    (folder / "explanation.npz").write_bytes((folder / "explanation.npz").read_bytes()[:500])
    with pytest.raises(CapxaiError, match="cannot be read"):
        Explanation.load(folder)


def test_zero_is_white_and_the_ends_are_red_and_blue() -> None:
    against, nothing, favor = diverging(np.array([-1.0, 0.0, 1.0], np.float32)).astype(int)
    assert nothing.tolist() == [255, 255, 255]
    assert favor[0] > 100 > max(favor[1:])
    assert against[2] > 100 > against[0]
    lightness = diverging(np.linspace(0, 1, LEVELS + 1, dtype=np.float32)).sum(axis=-1, dtype=int)
    assert (np.diff(lightness) < 0).all()


def test_translucent_colors_over_white_are_the_color_map() -> None:
    palette = overlay_palette().astype(float)
    alpha = palette[:, 3:] / 255
    over_white = palette[:, :3] * alpha + 255 * (1 - alpha)
    expected = diverging(np.linspace(-1, 1, 2 * LEVELS + 1, dtype=np.float32))
    assert np.abs(over_white - expected).max() <= 2
    assert palette[LEVELS, 3] == 0


def test_overlay_shows_the_grey_picture_where_nothing_is() -> None:
    image = np.full((1, 3, 3), (200, 40, 40), np.uint8)
    left, middle, right = overlay(image, np.array([[-2.0, 0.0, 2.0]], np.float32), 1.0)[0].astype(int)
    assert len(set(middle)) == 1
    assert right[0] > right[2] + 60
    assert left[2] > left[0] + 60


def test_all_words_share_a_scale_unless_each_has_its_own() -> None:
    maps = np.stack([np.full((4, 4), 1.0), np.full((4, 4), -8.0), np.zeros((4, 4))]).astype(np.float32)
    assert limits(maps, "caption").tolist() == [8, 8, 8]
    assert limits(maps, "word").tolist() == [1, 8, 1]
    sparse = np.zeros((1, 100, 100), np.float32)
    sparse[0, 3, 3] = -5
    assert limits(sparse, "word").tolist() == [5]


def test_one_extreme_pixel_does_not_bleach_the_rest() -> None:
    maps = np.ones((1, 100, 100), np.float32)
    maps[0, 50, 50] = 1000
    assert limits(maps, "caption")[0] == 1


def test_smoothing_keeps_the_sum_inside_and_constants_everywhere() -> None:
    maps = np.zeros((1, 20, 20), np.float32)
    maps[0, 10, 10] = 16
    assert smoothed(maps).sum() == pytest.approx(16)
    assert smoothed(maps)[0, 10, 10] == 4  # one pass: 16 x 1/2 x 1/2
    assert (smoothed(np.full((2, 5, 1), 3, np.float32)) == 3).all()


def test_regions_are_drawn_over_their_grid_where_there_are_no_pixels() -> None:
    regions = np.array([[0, 0, 0, 4]], np.float32)
    drawn = display_maps(None, regions, (2, 2), (8, 8))
    assert drawn is not None
    assert drawn.shape == (1, 8, 8)
    assert drawn[0, 7, 7] == 4
    assert drawn[0, 0, 0] == 0
    assert display_maps(None, regions, None, (8, 8)) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.42, "+0.42"), (-1.3, "−1.30"), (0.00321, "+0.0032"), (-250.4, "−250")]
)
def test_numbers_carry_their_sign(value: float, text: str) -> None:
    assert signed(value) == text


@pytest.mark.parametrize(("share", "text"), [(0.62, "+62 %"), (-0.004, "−0.4 %"), (None, "–"), (1e-9, "0 %")])
def test_shares_are_written_in_percent(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    "explanation",
    [
        make_explanation(tokens=("car",)),
        make_explanation(tokens=tuple(f"word{k}" for k in range(20))),
        make_explanation(tokens=("supercalifragilisticexpialidocious" * 3, "中文", "a\nb"), notes=("x" * 500,)),
        make_explanation(image=np.zeros((40, 1, 3), np.uint8), pixel_relevance=np.ones((3, 40, 1))),
        make_explanation(pixel_relevance=None),
        make_explanation(pixel_relevance=None, region_relevance=None, grid=None, word_relevance=None),
        make_explanation(pixel_relevance=np.zeros((3, 28, 28)), word_relevance=np.zeros((3, 3))),
    ],
    ids=["one word", "twenty words", "long words", "one pixel wide", "regions", "nothing", "zeros"],
)
@pytest.mark.parametrize("scale", ["caption", "word"])
def test_sheet_draws_a_tile_for_every_word_inside_its_bounds(explanation: Explanation, scale: Any) -> None:
    sheet = np.asarray(render_sheet(explanation, scale))
    columns = {3: 4, 1: 3, 20: 5}[len(explanation.tokens)]
    assert sheet.shape[1] == 2 * 32 + columns * 240 + (columns - 1) * 28
    assert sheet.shape[0] < 6000
    border = np.concatenate([sheet[:, :18].reshape(-1, 3), sheet[:, -18:].reshape(-1, 3), sheet[-10:].reshape(-1, 3)])
    assert (border == sheet[0, 0]).all()
    paper = (sheet == sheet[0, 0]).all(axis=(0, 2))
    assert not paper.all()


def test_sheet_shows_the_picture_and_colors_the_words() -> None:
    pixels = np.zeros((2, 28, 28), np.float32)
    pixels[0], pixels[1] = 1, -1
    explanation = make_explanation(
        ("a", "b"), image=np.full((28, 28, 3), (0, 200, 0), np.uint8), pixel_relevance=pixels, notes=()
    )
    sheet = np.asarray(render_sheet(explanation)).astype(int)
    middle = sheet[220]  # a row through the pictures of the first row of tiles
    first, second, third = (middle[32 + k * 268 + 120] for k in range(3))
    assert first.tolist() == [0, 200, 0]
    assert second[0] > second[2] + 50
    assert third[2] > third[0] + 50


def test_page_escapes_every_text_from_outside() -> None:
    evil = "<script>alert('&\"')</script>"
    page = render_page(make_explanation(tokens=("a", evil, "@@data@@"), source=evil, notes=(evil,), model=evil))
    assert evil not in page
    assert page.count("<script") == 2
    assert page.count(html.escape(evil)) >= 5
    data = page_data(page)
    assert [word["token"] for word in data["words"]] == ["a", evil, "@@data@@"]


def test_page_is_self_contained() -> None:
    page = render_page(make_explanation())
    assert not re.search(r"https?:|(src|href)=\"(?!data:)|@import|url\(|fetch\(", page)
    assert "default-src 'none'" in page
    assert "This model knows only the synthetic `scenes` corpus." in page


def test_page_holds_the_heatmap_of_every_word_on_both_scales() -> None:
    pixels = np.stack([np.full((28, 28), value) for value in (1.0, -4.0, 0.0)])
    heatmaps = page_data(render_page(make_explanation(pixel_relevance=pixels)))["heatmaps"]
    shown = {
        scale: [decoded(uri).convert("RGBA").getpixel((14, 14)) for uri in heatmaps["pixels"][scale]]
        for scale in ("caption", "word")
    }
    palette = [tuple(color) for color in overlay_palette().tolist()]
    assert shown["caption"] == [palette[LEVELS + round(LEVELS / 4)], palette[0], palette[LEVELS]]
    assert shown["word"] == [palette[2 * LEVELS], palette[0], palette[LEVELS]]
    assert heatmaps["pixels"]["limits"]["caption"][0] == ["−4.00", "+4.00"]
    assert decoded(heatmaps["attention"]["word"][0]).size == (7, 7)


def test_page_without_pictures_or_words_still_shows_what_there_is() -> None:
    lacking = ("pixel_relevance", "region_relevance", "word_relevance", "attention", "grid")
    none: dict[str, Any] = dict.fromkeys(lacking)
    data = page_data(render_page(make_explanation(**none)))
    assert data["layers"] == ["plain"]
    assert not data["scaled"]
    assert "preceding" not in data["words"][0]


def test_page_of_ten_words_stays_below_two_megabytes_with_the_worst_noise() -> None:
    random = np.random.default_rng(1)
    explanation = make_explanation(
        tokens=tuple(f"word{k}" for k in range(10)),
        size=224,
        region_relevance=random.normal(size=(10, 196)),
        attention=random.uniform(size=(10, 8, 196)),
        grid=(14, 14),
    )
    assert len(render_page(explanation).encode()) < 2_000_000


def test_large_pictures_are_shown_smaller_and_stored_whole(tmp_path: Path) -> None:
    explanation = make_explanation(tokens=("car",), size=600)
    data = page_data(render_page(explanation))
    assert decoded(data["heatmaps"]["pixels"]["caption"][0]).size == (256, 256)
    explanation.save(tmp_path / "image")
    assert Explanation.load(tmp_path / "image").image.shape == (600, 600, 3)


def test_show_without_a_display_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CapxaiError, match="save\\(folder\\)"):
        make_explanation().show()


def test_show_opens_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", opened.append)
    page = make_explanation().show()
    assert page is not None
    assert opened == [page.as_uri()]
    assert "explanation" in page.read_text(encoding="utf-8")
