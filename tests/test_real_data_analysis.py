"""The experiments on photographs of COCO, with its own boxes and masks, by a model that knows the captions of some of them by heart."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learned_photographs import Photographs, needs_photographs, run

PNG = b"\x89PNG\r\n\x1a\n"

pytestmark = [pytest.mark.slow, needs_photographs]


class Analysis:
    """What a verb wrote into its folder, checked for what all of them promise."""

    def __init__(self, folder: Path, verb: str, *options: object, report: str = "") -> None:
        run("analyze", verb, *options, "--set", "beam=1", "--out", folder, "--quiet")
        self.folder = folder
        self.report = self.read_json(report or f"{verb}.json")
        assert self.read_json("run.json")["verb"] == f"analyze {verb}"
        assert not list(folder.rglob("progress"))
        for path in folder.glob("*.png"):
            assert path.read_bytes()[:8] == PNG

    def read_json(self, name: str) -> Any:
        def refuse(number: str) -> None:
            raise AssertionError(f"{name} holds {number}, which is no JSON")

        return json.loads((self.folder / name).read_text(encoding="utf-8"), parse_constant=refuse)

    def rows(self, name: str) -> list[dict[str, str]]:
        with (self.folder / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


class Truth:
    """COCO's own files, read without the package."""

    def __init__(self, photographs: Photographs, split: str) -> None:
        content = json.loads((photographs.folder / f"instances_{split}.json").read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        self.sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        self.boxes: dict[tuple[int, str], list[list[float]]] = {}
        for item in content["annotations"]:
            self.boxes.setdefault((item["image_id"], names[item["category_id"]]), []).append(item["bbox"])

    def box_share(self, image_id: int, category: str) -> float:
        """Return the part of a picture that the boxes of a category cover together, drawn at the picture's own size."""
        width, height = self.sizes[image_id]
        covered = np.zeros((height, width), dtype=bool)
        for left, top, across, down in self.boxes[image_id, category]:
            covered[int(top) : int(np.ceil(top + down)), int(left) : int(np.ceil(left + across))] = True
        return float(covered.mean())


@pytest.fixture(scope="module")
def known(photographs: Photographs) -> tuple[object, ...]:
    """Options for the pictures whose captions the model knows."""
    return ("--model", photographs.model, "--corpus", photographs.corpus, "--split", "train")


@pytest.fixture(scope="module")
def unknown(photographs: Photographs) -> tuple[object, ...]:
    """Options for pictures that the model has never seen: it says what it learned of others."""
    return ("--model", photographs.model, "--corpus", photographs.held_out, "--split", "test")


def test_correctness(photographs: Photographs, known: tuple[object, ...], tmp_path: Path) -> None:
    methods = ("--method", "lrp", "--method", "random", "--level", "pixels")
    found = Analysis(tmp_path, "correctness", *known, *methods, "--pictures", 0)
    report, truth = found.report, Truth(photographs, "train")
    rows = found.rows("correctness.csv")
    assert report["pictures"] == 80 and report["words"] == len(rows) // 2 > 40
    for row in rows:
        expected = truth.box_share(int(row["image_id"]), row["category"])
        assert float(row["box_area"]) == pytest.approx(expected, abs=0.03)  # at the model's size, 112 pixels
        assert 0 <= float(row["mask_area"]) <= float(row["box_area"]) + 0.03
        shares = [float(value) for name, value in row.items() if name.startswith("box_share")]
        assert len(shares) == 10 and all(0 <= share <= 1 for share in shares)
    lrp, random = report["methods"]["lrp"], report["methods"]["random"]
    assert lrp["mask_share"]["value"] > lrp["mask_area"]["value"]
    assert lrp["correctness"]["value"] > lrp["box_area"]["value"]
    assert random["mask_share"]["value"] == pytest.approx(random["mask_area"]["value"], abs=0.02)


def test_ablation(known: tuple[object, ...], tmp_path: Path) -> None:
    found = Analysis(tmp_path, "ablation", *known, "--method", "lrp", "--method", "random", "--pictures", 16)
    words, pictures = found.report["word_ablation"], found.report["picture_ablation"]
    assert words["words"] == words["kinds"]["object"]["words"] + words["kinds"]["other"]["words"] > 20
    # Captions known by heart: without three of the words before it, a word is less sure, whichever they are.
    assert words["methods"]["chance"]["drop"]["low"] > 0
    assert words["methods"]["lrp"]["drop"]["value"] > words["methods"]["chance"]["drop"]["value"]
    for row in found.rows("ablation-words.csv"):
        places = [int(place) for place in row["deleted"].split()]
        assert len(places) == (3 if row["method"] != "chance" else 0)
        assert all(0 <= place < int(row["position"]) for place in places)
        assert -1 <= float(row["drop"]) <= float(row["probability"]) <= 1
    assert pictures["words"] == pictures["kinds"]["true"]["words"] + pictures["kinds"]["hallucinated"]["words"] > 10
    for method in ("lrp", "random"):
        assert 0 <= pictures["methods"][method]["vanished"]["value"] <= 1
    for row in found.rows("ablation-pictures.csv"):
        assert len(set(row["patches"].split())) == 20
        assert (row["word"] in row["new_caption"].split()) <= (row["vanished"] == "0")


def test_a_model_that_knows_its_captions_hallucinates_nearly_nothing(known: tuple[object, ...], tmp_path: Path) -> None:
    found = Analysis(tmp_path, "hallucination", *known, "--method", "lrp", "--level", "regions", "--pictures", 0)
    report = found.report
    assert report["true_words"] > 100 and report["hallucinated_words"] <= 0.1 * report["true_words"]
    if report["hallucinated_words"] == 0:
        assert "No object word is hallucinated" in report["message"]
        assert all(score["auc"] is None for score in report["statistics"].values())


def test_words_of_unseen_pictures_are_mostly_hallucinated(
    photographs: Photographs, unknown: tuple[object, ...], tmp_path: Path
) -> None:
    methods = ("--method", "lrp", "--method", "attention", "--report")
    found = Analysis(tmp_path, "hallucination", *unknown, *methods, "--pictures", 30)
    report, truth, rows = found.report, Truth(photographs, "test"), found.rows("hallucination.csv")
    assert report["message"] is None
    assert report["hallucinated_words"] > report["true_words"] > 0
    assert report["true_words"] + report["hallucinated_words"] == len(rows)
    for row in rows:  # a reference can name what nobody outlined, but what is outlined is there
        assert row["present"] == "1" or (int(row["image_id"]), row["category"]) not in truth.boxes
    for name in ("probability", "lrp pixels mean", "attention regions maximum"):
        true, false = ([float(row[name]) for row in rows if row["present"] == kind] for kind in "10")
        pairs = [(a > b) + (a == b) / 2 for a in true for b in false]
        auc = report["statistics"][name]["auc"]
        assert auc["value"] == pytest.approx(float(np.mean(pairs)), abs=1e-6)
        assert 0 <= auc["low"] <= auc["value"] <= auc["high"] <= 1
    page = (tmp_path / "hallucination.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script src" not in page
    assert len(page) < 30e6
    assert any(row["word"] in page for row in rows if row["present"] == "0")


def test_faithfulness(known: tuple[object, ...], tmp_path: Path) -> None:
    found = Analysis(tmp_path, "faithfulness", *known, "--method", "lrp", "--method", "random", "--pictures", 6)
    assert set(found.report["levels"]) == {"pixels", "words"}
    for level in found.report["levels"].values():
        whole, empty = level["mean_probability_whole"], level["mean_probability_empty"]
        assert 0 <= empty < whole <= 1
        assert level["places"][0] == 0 and level["places"][-1] == 1
        for method in level["methods"].values():
            deletion, insertion = ([point["value"] for point in method[kind]] for kind in ("deletion", "insertion"))
            assert deletion[0] == pytest.approx(whole, abs=1e-4) and deletion[-1] == pytest.approx(empty, abs=1e-4)
            assert insertion[0] == pytest.approx(empty, abs=1e-4) and insertion[-1] == pytest.approx(whole, abs=1e-4)
            assert all(0 <= point <= 1 for point in (*deletion, *insertion))
    assert {row["level"] for row in found.rows("faithfulness.csv")} == {"pixels", "words"}


def test_randomization(known: tuple[object, ...], tmp_path: Path) -> None:
    found = Analysis(tmp_path, "randomization", *known, "--method", "lrp", "--level", "regions", "--pictures", 4)
    report = found.report
    before, *_, after = [one["value"] for one in report["probability"]]
    assert before > 0.5 > 0.2 > after  # what was known by heart is forgotten
    (method,) = report["methods"]
    assert len(method["spearman"]) == len(report["stages"]) == len(report["probability"]) - 1
    assert abs(method["spearman"][-1]["value"]) < 0.9


def test_detector(photographs: Photographs, unknown: tuple[object, ...], tmp_path: Path) -> None:
    found = Analysis(
        tmp_path, "detector", *unknown, "--calibrate", "val", "--pictures", 0, report="detector_report.json"
    )
    report, truth = found.report, Truth(photographs, "test")
    assert report["calibrated_on"] == ["val"] and report["calibration"]["pictures"] == 40
    rows = found.rows("detector.csv")
    for row in rows:
        assert row["present"] == "1" or (int(row["image_id"]), row["category"]) not in truth.boxes
        assert 0 <= float(row["hallucinated by together"]) <= 1
    score = report["scores"]["together"]
    true, false = ([float(row["hallucinated by together"]) for row in rows if row["present"] == kind] for kind in "10")
    pairs = [(a < b) + (a == b) / 2 for a in true for b in false]
    assert score["auc"]["value"] == pytest.approx(float(np.mean(pairs)), abs=2e-3)  # equal to six digits in the file
    detector = found.read_json("detector.json")
    assert detector["weights_sha256"] == report["provenance"]["weights_sha256"]


def test_grounding(unknown: tuple[object, ...], tmp_path: Path) -> None:
    found = Analysis(
        tmp_path, "grounding", *unknown, "--calibrate", "val", "--pictures", 12, report="grounding_report.json"
    )
    report, captions = found.report, found.read_json("captions.json")
    assert set(report["figures"]) == set(captions) == {"plain", "context", "probability", "random"}
    assert all(len(texts) == 12 for texts in captions.values())
    for figures in report["figures"].values():
        assert all(0 <= figures[name]["value"] <= 1 for name in ("chair_i", "chair_s", "precision", "recall", "f1"))
    # A model that says of unseen pictures what it learned of others is wrong more often than not.
    assert report["figures"]["plain"]["chair_i"]["value"] > 0.5
    assert report["grounding"] == found.read_json("grounding.json")
