"""Where the relevance of object words lies: maps worked out by hand, and a recomputation with loops through the public API."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from planted_corpus import CAPTION, HEIGHT, OBJECTS, SIDE, WIDTH, inside, planted_model, write_planted_corpus
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.data.corpus import Corpus
from capxai.errors import CapxaiError, ConfigError, CorpusError, RelevanceError
from capxai.evaluate.correctness import (
    THRESHOLDS,
    Placement,
    box_area,
    place,
    resize_nearest,
    score_methods,
)
from capxai.evaluate.lexicon import coco_lexicon
from capxai.evaluate.objects import BOOTSTRAP_DRAWS
from capxai.explain.attribution import Reading
from capxai.explain.explainer import explain
from capxai.explain.methods import Options
from capxai.models.captioner import Captioner
from capxai.models.encoders.compact import CompactEncoder
from capxai.models.folder import load_model, save_model
from capxai.recipes.analysis.correctness import CorrectnessConfig, run
from capxai.recipes.analysis.correctness_report import (
    BARS_FILE,
    CURVES_FILE,
    REPORT_FILE,
    WORDS_FILE,
    CorrectnessReport,
)
from capxai.recipes.analysis.experiment import FOLDER
from capxai.recipes.analysis.mentions import mentions_of
from capxai.recipes.analysis.stream import Look
from capxai.recipes.object_words import object_area, seen_categories

TRUE_WORDS = [(1, 1, "car"), (1, 8, "knife"), (2, 1, "car"), (2, 5, "traffic light"), (3, 8, "knife")]
"""Picture, position and category of the words that name something that is there; "light" is the last word of its name."""


def _relevance() -> np.ndarray:
    return np.array([[4.0, -9.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]], dtype=np.float32)


def _area(*cells: tuple[int, int], shape: tuple[int, int] = (3, 4)) -> np.ndarray:
    area = np.zeros(shape, dtype=bool)
    for row, column in cells:
        area[row, column] = True
    return area


def test_a_map_on_paper() -> None:
    mask, boxes = _area((0, 0), (0, 1)), _area((0, 0), (0, 1), (1, 0), (1, 1))
    found = place(_relevance(), mask, boxes)
    assert found.mask_share == pytest.approx(4 / 10)  # -9 counts as 0
    assert found.mask_area == pytest.approx(2 / 12)
    assert found.box_area == pytest.approx(4 / 12)
    # Of the maximum, 4, the values are 1, 1/4, 2/4, 3/4: 1 falls at 0.3, 2 at 0.6 and 3 at 0.8.
    assert found.box_shares == pytest.approx(
        (7 / 10, 7 / 10, 7 / 10, 6 / 9, 6 / 9, 6 / 9, 4 / 7, 4 / 7, 4 / 4, 4 / 4), abs=1e-12
    )
    assert found.points_at_mask and found.points_at_box and found.positive


def test_the_map_is_left_as_it_was() -> None:
    relevance, mask, boxes = _relevance(), _area((0, 0)), _area((2, 2))
    place(relevance, mask, boxes)
    np.testing.assert_array_equal(relevance, _relevance())
    second = place(relevance, mask, boxes)
    assert second == place(_relevance(), mask, boxes)


def test_a_map_without_positive_relevance_points_nowhere() -> None:
    found = place(-np.abs(_relevance()), _area((0, 0)), _area((0, 0)))
    assert found == Placement(0.0, 1 / 12, (0.0,) * len(THRESHOLDS), 1 / 12, False, False, False)


@pytest.mark.parametrize(
    ("relevance", "mask"),
    [(np.zeros((2, 2)), _area((0, 0))), (np.zeros((3, 4)), _area()), (np.full((3, 4), np.nan), _area((0, 0)))],
)
def test_what_cannot_be_compared_is_refused(relevance: np.ndarray, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        place(relevance, mask, mask)


def test_nearest_resizing_takes_the_pixel_below_the_center() -> None:
    small = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(resize_nearest(small, 4, 4), np.kron(small, np.ones((2, 2), dtype=bool)))
    np.testing.assert_array_equal(resize_nearest(np.kron(small, np.ones((3, 3), dtype=bool)), 2, 2), small)
    np.testing.assert_array_equal(resize_nearest(small, 2, 2), small)


def test_boxes_cover_every_pixel_they_touch_and_end_at_the_border() -> None:
    np.testing.assert_array_equal(box_area([(0.5, 1.0, 1.0, 1.0)], 3, 4), _area((1, 0), (1, 1)))
    np.testing.assert_array_equal(box_area([(3.0, 2.0, 9.0, 9.0), (-5.0, 0.0, 6.0, 1.0)], 3, 4), _area((2, 3), (0, 0)))


def _placement(share: float, area: float, points: bool = True) -> Placement:
    return Placement(share, area, (share,) * len(THRESHOLDS), 2 * area, points, points, share > 0)


def test_means_are_over_words_and_intervals_over_pictures() -> None:
    pictures = [7, 7, 9]
    good = [_placement(0.6, 0.1), _placement(0.8, 0.2, False), _placement(0.4, 0.4)]
    blind = [_placement(0.1, 0.1), _placement(0.2, 0.2, False), _placement(0.0, 0.4, False)]
    scores = score_methods(pictures, {"good": good, "random": blind}, ("random", "absent"), seed=3)
    figures = scores["good"].figures
    assert figures["mask_share"].value == pytest.approx(0.6)
    assert figures["ratio_of_means"].value == pytest.approx(1.8 / 0.7)
    assert figures["mean_of_ratios"].value == pytest.approx((6 + 4 + 1) / 3)
    assert figures["points_at_mask"].value == pytest.approx(2 / 3)
    assert figures["correctness"].value == pytest.approx(0.6)
    assert figures["box_area"].value == pytest.approx(1.4 / 3)
    assert [found.value for found in scores["good"].thresholds] == pytest.approx([0.6] * len(THRESHOLDS))
    assert scores["good"].above["random"].value == pytest.approx((0.5 + 0.6 + 0.4) / 3)
    assert list(scores["good"].above) == ["random"] and not scores["random"].above
    assert scores["good"].boxes_above["random"].value == pytest.approx(
        (0.5 + 0.6 + 0.4) / 3
    )  # boxes hold the same shares
    assert list(scores["good"].to_json()["correctness_above"]) == ["random"]
    assert scores["random"].without_positive == 1
    low, high = _slow_interval(pictures, [found.mask_share for found in good], seed=3)
    assert (figures["mask_share"].low, figures["mask_share"].high) == pytest.approx((low, high))
    assert low == pytest.approx(0.4) and high == pytest.approx(0.7)  # only picture 9, only picture 7


def _slow_interval(pictures: list[int], values: list[float], seed: int) -> tuple[float, float]:
    """Draw the pictures again and average word by word."""
    kinds = sorted(set(pictures))
    generator = np.random.default_rng(seed)
    means = []
    for times in generator.multinomial(len(kinds), [1 / len(kinds)] * len(kinds), size=BOOTSTRAP_DRAWS):
        drawn = [value for k, n in zip(kinds, times, strict=True) for _ in range(n) for p, value in zip(pictures, values, strict=True) if p == k]  # fmt: skip  # noqa: E501
        means.append(sum(drawn) / len(drawn))
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def test_no_word_and_missing_placements_are_refused() -> None:
    with pytest.raises(CorpusError, match="nothing to measure"):
        score_methods([], {})
    with pytest.raises(ValueError, match="lrp have not one placement"):
        score_methods([1, 2], {"lrp": [_placement(0.5, 0.1)]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with planted boxes, one without instances, and a model that knows the first one."""
    root = tmp_path_factory.mktemp("correctness")
    write_planted_corpus(root / "corpus", with_instances=True)
    write_planted_corpus(root / "captions-only", with_instances=False)
    save_model(planted_model(root / "corpus" / "images"), root / "model")
    return root


@pytest.fixture(scope="module")
def model(folder: Path) -> Captioner:
    return load_model(folder / "model")


def _config(folder: Path, **settings: object) -> CorrectnessConfig:
    return CorrectnessConfig(model=folder / "model", corpus=folder / "corpus", device="cpu", **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report(folder: Path) -> CorrectnessReport:
    return run(_config(folder, seed=5, out=folder / "out"))


def test_the_recipe_agrees_with_loops_through_the_public_api(
    folder: Path, model: Captioner, report: CorrectnessReport
) -> None:
    assert report.pictures == report.pictures_with_words == 3
    assert {word.caption for word in report.words} == {CAPTION}
    assert [(word.image_id, word.position, word.category) for word in report.words] == TRUE_WORDS
    for name in ("lrp", "gradient (regions)", "attention", "random"):
        for word, found in zip(report.words, report.placements[name], strict=True):
            relevance = _slow_map(folder, model, name, word.image_id, word.caption)[word.position]
            expected = _slow_placement(relevance, OBJECTS[word.image_id][word.category])
            assert (found.mask_share, found.mask_area, found.box_area) == pytest.approx(expected[:3], abs=1e-6)
            assert found.box_shares == pytest.approx(expected[3], abs=1e-6)
            assert (found.points_at_mask, found.points_at_box) == expected[4:]


def _slow_map(folder: Path, model: Captioner, name: str, number: int, caption: str) -> np.ndarray:
    method = name.removesuffix(" (regions)")
    options = Options(seed=5 + number)
    found = explain(model, folder / "corpus" / "images" / f"{number}.png", method, caption, options=options)
    if method == name:
        assert found.pixel_relevance is not None
        return found.pixel_relevance
    assert found.region_relevance is not None and found.grid is not None
    grid = torch.from_numpy(found.region_relevance).unflatten(1, found.grid)[:, None]
    return torch.nn.functional.interpolate(grid, (SIDE, SIDE), mode="bilinear")[:, 0].numpy()


def _slow_placement(relevance: np.ndarray, boxes: list[tuple[int, int, int, int]]) -> tuple[object, ...]:
    """Go through the pixels of the model's input one by one."""
    peak, at = 0.0, (0, 0)
    pixels = []
    for row in range(SIDE):
        for column in range(SIDE):
            y, x = int((row + 0.5) * HEIGHT / SIDE), int((column + 0.5) * WIDTH / SIDE)
            in_mask = any(inside(box, y, x) for box in boxes)
            in_box = any(b[0] <= x < b[0] + b[2] and b[1] <= y < b[1] + b[3] for b in boxes)
            value = max(0.0, float(relevance[row, column]))
            pixels.append((value, in_mask, in_box))
            if value > peak:
                peak, at = value, (row, column)
    total = sum(value for value, _, _ in pixels)
    share = sum(value for value, in_mask, _ in pixels if in_mask) / total
    kept = [[(value, in_box) for value, _, in_box in pixels if value >= t * peak] for t in THRESHOLDS]
    shares = [sum(value for value, in_box in some if in_box) / sum(value for value, _ in some) for some in kept]
    winner = pixels[at[0] * SIDE + at[1]]
    areas = [sum(pixel[which] for pixel in pixels) / len(pixels) for which in (1, 2)]
    return share, areas[0], areas[1], shares, winner[1], winner[2]


def test_all_methods_score_the_same_words(report: CorrectnessReport) -> None:
    assert {len(found) for found in report.placements.values()} == {len(report.words)}
    assert set(report.methods) >= {"lrp", "lrp (regions)", "gradient", "grad-cam", "attention", "random"}
    assert "grad-cam (regions)" not in report.methods  # its pixels are its regions, spread
    areas = {tuple(found.mask_area for found in values) for values in report.placements.values()}
    assert len(areas) == 1


def test_the_report_is_written_and_kept(folder: Path, report: CorrectnessReport) -> None:
    written = json.loads((folder / "out" / REPORT_FILE).read_text())
    assert written == json.loads(json.dumps(report.to_json()))
    assert written["provenance"]["config"]["seed"] == 5
    assert written["methods"]["lrp"]["mask_share"]["value"] == report.methods["lrp"].figures["mask_share"].value
    rows = (folder / "out" / WORDS_FILE).read_text().splitlines()
    assert len(rows) == 1 + len(report.words) * len(report.methods)
    assert rows[0].startswith("image_id,position,word,category,caption,method,mask_share")
    for name in (BARS_FILE, CURVES_FILE):
        for level in ("", "_regions"):
            assert Image.open(folder / "out" / name.format(level)).format == "PNG"
    assert not (folder / "out" / FOLDER).exists()  # the progress is of no use any more
    with pytest.raises(CapxaiError, match="--force"):
        run(_config(folder, method=("random",), out=folder / "out"))


def test_chosen_methods_and_levels(folder: Path, report: CorrectnessReport) -> None:
    chosen = run(_config(folder, seed=5, method=("lrp", "attention"), level=("pixels",), pictures=1))
    assert list(chosen.methods) == ["lrp", "attention"] and chosen.pictures == 1
    for one, other in zip(chosen.placements["lrp"], report.placements["lrp"][:2], strict=True):  # of a batch of three
        assert (one.mask_share, *one.box_shares) == pytest.approx((other.mask_share, *other.box_shares), abs=1e-6)
    assert list(chosen.methods["lrp"].above) == ["attention"]


def test_a_name_of_two_words_is_read_at_its_last_and_false_mentions_are_left_out(
    folder: Path, model: Captioner
) -> None:
    split = Corpus.open(folder / "corpus").split("test")
    caption, picture = "a car near a traffic light near a knife near a car", split.picture(2)
    tokens = torch.tensor(model.vocabulary.encode(caption))
    reading = Reading(model, None, torch.zeros(1, 16, CompactEncoder.channels), tokens)
    found = mentions_of(
        Look((picture,), (caption,), reading.together()), coco_lexicon(), {2: seen_categories(split, picture)}
    )
    assert [(word.place, word.last, word.text, word.category, word.present) for word in found] == [
        (1, 1, "car", "car", True),
        (4, 5, "traffic light", "traffic light", True),
        (8, 8, "knife", "knife", False),
        (11, 11, "car", "car", True),
    ]


def test_the_area_unites_all_objects_of_a_category(folder: Path) -> None:
    split = Corpus.open(folder / "corpus").split("test")
    area = object_area(split, split.picture(2), "car", SIDE)
    assert area is not None
    assert area.boxes[0, 0] and area.boxes[-1, -1] and not area.boxes[-1, 0]
    assert area.mask.sum() < area.boxes.sum() and not (area.mask & ~area.boxes).any()
    with pytest.raises(CorpusError, match="no instance of 'dog'"):
        object_area(split, split.picture(2), "dog", SIDE)


def test_errors_say_what_to_do(folder: Path) -> None:
    with pytest.raises(RelevanceError, match="Did you mean 'lrp'"):
        run(_config(folder, method=("lpr",)))
    with pytest.raises(CorpusError, match="no instance file"):
        run(CorrectnessConfig(model=folder / "model", corpus=folder / "captions-only"))
    with pytest.raises(ConfigError, match=r"pictures is -1.*\n.*No method was named.*\n.*No level was named"):
        CorrectnessConfig(pictures=-1, method=(), level=())


def test_the_command(folder: Path) -> None:
    typed = ["analyze", "correctness", "--model", str(folder / "model"), "--corpus", str(folder / "corpus")]
    typed += ["--method", "attention", "--method", "random", "--pictures", "2", "--quiet"]
    table = CliRunner().invoke(app, typed)
    assert table.exit_code == 0, table.output
    assert "ratio of means" in table.stdout and "random (regions)" in table.stdout
    as_json = CliRunner().invoke(app, [*typed, "--json"])
    assert json.loads(as_json.stdout)["pictures"] == 2
