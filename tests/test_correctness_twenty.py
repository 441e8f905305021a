"""Correctness on twenty pictures of `scenes` by the bundled model, beside a second reading of files and maps, pixel by pixel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from capxai.data.scenes import write_corpus
from capxai.evaluate.correctness import THRESHOLDS
from capxai.explain.explainer import explain
from capxai.explain.methods import Options
from capxai.models.captioner import Captioner
from capxai.models.folder import load
from capxai.recipes.analysis import experiment
from capxai.recipes.analysis.correctness import CorrectnessConfig, run
from capxai.recipes.analysis.correctness_report import CorrectnessReport

PICTURES = 20
SIDE = 112
METHODS = ("lrp", "random")


def exact(*arguments: Any) -> Captioner:
    """Load a model in double precision, so that the last digits do not depend on what is computed together."""
    return load(*arguments).double()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("twenty") / "scenes"
    write_corpus(root, 100, 3)
    return root


@pytest.fixture(scope="module")
def report(folder: Path) -> CorrectnessReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "load", exact)
        return run(CorrectnessConfig(corpus=folder, pictures=PICTURES, method=METHODS, level=("pixels",), seed=2))


def test_twenty_pictures_agree_with_loops(folder: Path, report: CorrectnessReport) -> None:
    assert report.pictures == PICTURES and len(report.words) >= 35
    content = json.loads((folder / "annotations" / "instances_test.json").read_text())
    names = {item["id"]: item["name"] for item in content["categories"]}
    model = exact(None)
    maps: dict[tuple[int, str], np.ndarray] = {}
    for place, word in enumerate(report.words):
        objects = [
            item
            for item in content["annotations"]
            if item["image_id"] == word.image_id and names[item["category_id"]] == word.category
        ]
        for name in METHODS:
            if (word.image_id, name) not in maps:
                path = folder / "images" / "test" / f"{word.image_id:012d}.jpg"
                found = explain(model, path, name, word.caption, options=Options(seed=2 + word.image_id))
                assert found.pixel_relevance is not None
                maps[word.image_id, name] = found.pixel_relevance
            expected = slow(maps[word.image_id, name][word.position], objects)
            measured = report.placements[name][place]
            assert (measured.mask_share, measured.mask_area, measured.box_area) == pytest.approx(expected[:3], abs=1e-6)
            assert measured.box_shares == pytest.approx(expected[3], abs=1e-6)
            assert measured.points_at_mask == expected[4]
    for name in METHODS:
        mean = sum(one.mask_share for one in report.placements[name]) / len(report.words)
        assert report.methods[name].figures["mask_share"].value == pytest.approx(mean, abs=1e-9)


def slow(relevance: np.ndarray, objects: list[dict[str, Any]]) -> tuple[float, float, float, list[float], bool]:
    """Return share in mask, areas of mask and boxes, shares in boxes at each threshold, and whether the maximum is in the mask."""
    drawn = [coco_mask.decode(item["segmentation"]) for item in objects]
    total = in_mask = peak = 0.0
    mask_pixels, box_pixels, highest = 0, 0, (0, 0)
    boxed: list[tuple[float, bool]] = []
    for y in range(SIDE):
        for x in range(SIDE):
            value = max(0.0, float(relevance[y, x]))
            masked = any(one[y, x] for one in drawn)
            inside = any(touches(item["bbox"], y, x) for item in objects)
            total, in_mask = total + value, in_mask + value * masked
            mask_pixels, box_pixels = mask_pixels + masked, box_pixels + inside
            boxed.append((value, inside))
            if value > peak:
                peak, highest = value, (y, x)
    shares = []
    for threshold in THRESHOLDS:
        kept = [(value, inside) for value, inside in boxed if value >= threshold * peak]
        shares.append(sum(value for value, inside in kept if inside) / sum(value for value, _ in kept))
    area = SIDE * SIDE
    return in_mask / total, mask_pixels / area, box_pixels / area, shares, any(bool(one[highest]) for one in drawn)


def touches(box: list[float], y: int, x: int) -> bool:
    """Tell whether a box (left, top, width, height) touches a pixel."""
    left, top, width, height = box
    return left < x + 1 and x < left + width and top < y + 1 and y < top + height
