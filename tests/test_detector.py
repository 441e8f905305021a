"""``capxai analyze detector``: its numbers beside a recomputation with loops, prototypes and overlaps on paper, and the whole run."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ablation_cases import NAMES, learned_model, normalized
from detector_cases import CALIBRATION, MEASURED, write_split_corpus
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.data.corpus import Corpus
from capxai.errors import CapxaiError, ConfigError, CorpusError
from capxai.evaluate.lexicon import coco_lexicon
from capxai.explain.explainer import explain
from capxai.models.captioner import Captioner
from capxai.models.folder import load_model
from capxai.recipes.analysis.detector import DetectorConfig, calibration_splits, run
from capxai.recipes.analysis.detector_features import GROUPS, HIDDEN_SHARE, overlaps
from capxai.recipes.analysis.detector_file import DETECTOR_FILE, Detector
from capxai.recipes.analysis.detector_prototypes import FEWEST, Prototypes, calibration_scores
from capxai.recipes.analysis.detector_report import AREAS_FILE, REPORT_FILE, ROC_FILE, WORDS_FILE, DetectorReport
from capxai.recipes.analysis.detector_words import DetectorWords, measure_words
from capxai.recipes.analysis.mentions import Mentioned
from capxai.recipes.analysis.progress import FOLDER
from capxai.recipes.analysis.stream import Look, Looking

SEED = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("detector")
    write_split_corpus(root / "corpus")
    for decoder in ("ada-lstm", "mh-fc"):
        learned_model(decoder, root / "corpus", root / decoder)
    return root


def _config(folder: Path, decoder: str = "ada-lstm", **settings: object) -> DetectorConfig:
    plain = DetectorConfig(model=folder / decoder, corpus=folder / "corpus", pictures=0, seed=SEED)
    return replace(plain, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report(folder: Path) -> DetectorReport:
    return run(_config(folder, out=folder / "out", batch_size=5))


def _look(folder: Path, model: Captioner, numbers: list[int]) -> Look:
    pictures = [picture for picture in Corpus.open(folder / "corpus").split("val").pictures if picture.id in numbers]
    from capxai.data.images import read_image
    from capxai.explain.methods import Options

    pixels = torch.stack([torch.from_numpy(model.preprocessing.resize(read_image(p.path)).copy()) for p in pictures])
    found = Looking(model, 3, (), Options()).look(pictures, pixels)
    assert found is not None
    return found


@pytest.mark.parametrize("decoder", ["ada-lstm", "mh-fc"])
def test_numbers_agree_with_loops(folder: Path, decoder: str) -> None:
    model = load_model(folder / decoder)
    look = _look(folder, model, [2, 5, 7])
    objects = {number: frozenset({"car", "dog"}) for number in (2, 5, 7)}
    records = measure_words(look, coco_lexicon(), objects)
    words = DetectorWords.of([{"image_id": 0, "caption": "", **record} for record in records])
    rows = iter(words.table)
    regions = iter(words.regions)
    for picture, caption, record in zip(look.pictures, look.captions, records, strict=True):
        said = [(one["position"], one["last"], one["category"]) for one in record["mentions"]]
        assert said == _said(caption)
        assert [one["present"] for one in record["mentions"]] == [name in ("car", "dog") for _, _, name in said]
        for place, _, _ in said:
            expected, region = _slow_numbers(folder, model, picture.id, caption, place, said)
            found = dict(zip(words.names, next(rows), strict=True))
            assert set(expected) <= set(found)
            for name, value in expected.items():
                assert found[name] == pytest.approx(value, rel=5e-5, abs=5e-5, nan_ok=True), (name, caption, place)
            assert next(regions) == pytest.approx(region, abs=1e-5)
    assert ("1 - beta" in words.names) == (decoder == "ada-lstm")


def _said(caption: str) -> list[tuple[int, int, str]]:
    words, found = caption.split(), []
    for place, word in enumerate(words):
        if word in NAMES:
            found.append((place, place, word))
        elif words[place : place + 2] == ["traffic", "light"]:
            found.append((place, place + 1, "traffic light"))
    return found


def _chance(model: Captioner, features: torch.Tensor, words: list[str], then: str) -> float:
    """Read words one after the other and return the logarithm of the probability of the next one."""
    ids = [model.vocabulary.start, *model.vocabulary.encode(" ".join(words))] if words else [model.vocabulary.start]
    memory = model.remember(features[None])
    state = model.start(memory)
    for token in ids:
        step = model.step(memory, model.embed(torch.tensor([token])), state)
        state = step.state
    return float(step.logits.double().log_softmax(1)[0, model.vocabulary.encode(then)[0]])


def _slow_numbers(
    folder: Path, model: Captioner, number: int, caption: str, place: int, said: list[tuple[int, int, str]]
) -> tuple[dict[str, float], list[float]]:
    """Measure one word through the public explanation of its picture."""
    explained = explain(model, folder / "corpus" / "images" / f"{number}.png", "lrp", caption)
    assert explained.region_relevance is not None
    words = caption.split()
    with torch.no_grad():
        features = model.features(normalized(model, folder / "corpus", number))[0]  # (K, C)
        own = [float(value) for value in explained.region_relevance[place]]
        count = max(1, round(HIDDEN_SHARE * len(own)))
        top = sorted(range(len(own)), key=lambda k: -own[k])[:count]
        rest = [k for k in range(len(own)) if k not in top]
        average, mean_of_rest = features.mean(0), features[rest].mean(0)
        without, alone = features.clone(), features.clone()
        for k in range(len(own)):
            if k in top:
                without[k] = mean_of_rest
            else:
                alone[k] = mean_of_rest
        named = {w for first, last, _ in said if first < place for w in range(first, last + 1)}
        kept = [word for at, word in enumerate(words[:place]) if at not in named]
        before = [first for first, _, _ in said if first < place]
        expected = {
            "log probability": math.log(float(explained.probability[place])),
            "without the picture": _chance(model, average.expand_as(features), words[:place], words[place]),
            "without its regions": _chance(model, without, words[:place], words[place]),
            "its regions alone": _chance(model, alone, words[:place], words[place]),
            "without other objects": _chance(model, features, kept, words[place]),
            "in the place of other objects": max(
                (_chance(model, features, words[:at], words[place]) for at in before), default=math.nan
            ),
            "lrp regions maximum": max(own),
        }
    category = next(name for first, _, name in said if first == place)
    others = [explained.region_relevance[first].tolist() for first, _, name in said if name != category]
    expected["overlap of positive relevance"] = max(
        (_cosine([max(0.0, v) for v in own], [max(0.0, v) for v in other]) for other in others), default=0.0
    )
    expected["correlation of relevance"] = max(
        (_cosine([v - sum(own) / len(own) for v in own], [v - sum(o) / len(o) for v in o]) for o in others), default=0.0
    )
    return expected, features[top[0]].tolist()


def _cosine(one: list[float], other: list[float]) -> float:
    lengths = math.sqrt(sum(v * v for v in one)) * math.sqrt(sum(v * v for v in other))
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0


def test_overlaps_on_paper() -> None:
    # Words 0 and 1 are of one caption, 2 of another; 3 is of the first caption and names what word 0 names.
    relevance = torch.tensor([[3.0, 4.0, -9.0], [3.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    said = [
        Mentioned(row, place, place, name, name, True)
        for row, place, name in ((0, 1, "car"), (0, 4, "dog"), (1, 1, "dog"), (0, 7, "car"))
    ]
    found = overlaps(relevance, said)
    # Positive parts: (3, 4, 0) and (3, 0, 0) have cosine 9 / 15; (0, 5, 0) and (3, 0, 0) have 0.
    assert found["overlap of positive relevance"].tolist() == pytest.approx([0.6, 0.6, 0.0, 0.0])
    one, two = np.corrcoef(relevance.numpy())[1, [0, 3]]
    assert found["correlation of relevance"].tolist() == pytest.approx([one, max(one, two), 0.0, two], abs=1e-6)


def test_prototypes_on_paper() -> None:
    # Means 0, deviations 1: the true cars lie at (1, 0) and the true dogs at (0, 1), apart from what evens them out.
    regions = np.array([[1.0, 0.0]] * FEWEST + [[0.0, 1.0]] * FEWEST + [[-1.0, 0.0]] * FEWEST + [[0.0, -1.0]] * FEWEST)
    kinds = ["car"] * FEWEST + ["dog"] * FEWEST + ["car"] * FEWEST + ["bird"] * FEWEST
    present = np.array([True] * (2 * FEWEST) + [False] * (2 * FEWEST))
    found = Prototypes.fit(regions, kinds, present)
    assert found.categories == ("car", "dog")
    scores = found.scores(np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), ["car", "car", "bird"])
    # (1, 0) is its prototype, cosine 1, and 0 with the other; (0, 2) is no car at all but all dog; birds have no prototype.
    assert scores[0] == pytest.approx([1, 1]) and scores[1] == pytest.approx([0, -1])
    assert np.isnan(scores[2]).all()
    stored = Prototypes.from_json(json.loads(json.dumps(found.to_json())))
    assert np.array_equal(stored.scores(regions, kinds), found.scores(regions, kinds), equal_nan=True)


def test_a_calibration_word_never_vouches_for_itself() -> None:
    generator = np.random.default_rng(0)
    regions, folds = generator.normal(size=(2 * FEWEST + 2, 3)), np.arange(2 * FEWEST + 2) % 2
    kinds, present = ["car"] * len(folds), np.ones(len(folds), bool)
    found = calibration_scores(regions, kinds, present, folds)
    for fold in (0, 1):
        others = Prototypes.fit(regions[folds != fold], ["car"] * (FEWEST + 1), present[folds != fold])
        assert found[folds == fold, 0] == pytest.approx(others.scores(regions[folds == fold], kinds[::2])[:, 0])
    assert np.isnan(found[:, 1]).all()  # there is no other category


def test_the_report_agrees_with_its_table_and_its_file(folder: Path, report: DetectorReport) -> None:
    stored = json.loads((folder / "out" / REPORT_FILE).read_text())
    rows = list(csv.DictReader((folder / "out" / WORDS_FILE).open()))
    assert {int(row["image_id"]) for row in rows} <= set(MEASURED)
    assert stored["measured"]["true_words"] == sum(row["present"] == "1" for row in rows)
    assert stored["calibration"]["pictures"] == len(CALIBRATION) and stored["calibrated_on"] == ["val"]
    for name, score in stored["scores"].items():
        chances = [float(row[f"hallucinated by {name}"]) for row in rows]
        true = [chance for chance, row in zip(chances, rows, strict=True) if row["present"] == "1"]
        false = [chance for chance, row in zip(chances, rows, strict=True) if row["present"] == "0"]
        won = sum((t < f) + 0.5 * (t == f) for t in true for f in false)
        assert score["auc"]["value"] == pytest.approx(won / len(true) / len(false), abs=0.02), (
            name
        )  # six digits are kept
        squares = [(chance - (row["present"] == "0")) ** 2 for chance, row in zip(chances, rows, strict=True)]
        assert score["reliability"]["brier"] == pytest.approx(sum(squares) / len(rows), abs=1e-5)
    detector = Detector.from_json(json.loads((folder / "out" / DETECTOR_FILE).read_text()))
    assert np.array_equal(detector.probabilities(report.words), report.scores["together"].probabilities)
    assert detector.provenance["calibrated_on"] == ["val"] and detector.figures["robust"]["auc"]
    assert not (folder / "out" / "steps").exists() and not (folder / "out" / FOLDER).exists()
    assert all((folder / "out" / name).read_bytes().startswith(b"\x89PNG") for name in (ROC_FILE, AREAS_FILE))


def test_what_a_detector_knows_is_of_the_calibration_splits_alone(folder: Path, report: DetectorReport) -> None:
    part = run(_config(folder, pictures=2, batch_size=5))
    assert part.detector.regression == report.detector.regression
    assert part.detector.threshold == report.detector.threshold
    assert set(report.scores) == {*GROUPS, "category", "together", "all but prototypes", "with language and category"}


def test_a_threshold_and_groups_can_be_given(folder: Path) -> None:
    found = run(_config(folder, decoder="mh-fc", groups=("token", "attention"), threshold=0.4))
    assert found.detector.groups == ("token", "attention") and found.detector.threshold == 0.4
    assert "1 - beta" not in found.scores  # the model has no sentinel
    called = found.scores["together"].probabilities >= 0.4
    assert found.scores["together"].alarm.called == called.sum()


def test_it_is_installed_beside_the_model_and_kept(folder: Path, tmp_path: Path) -> None:
    import shutil

    model = shutil.copytree(folder / "mh-fc", tmp_path / "model")
    config = _config(folder, model=model, install=True)
    first = run(config)
    assert json.loads((model / DETECTOR_FILE).read_text()) == json.loads(json.dumps(first.detector.to_json()))
    with pytest.raises(CapxaiError, match=r"detector.json' is there already, and it was kept.*--force"):
        run(config)
    assert run(replace(config, force=True)).to_json()["scores"] == first.to_json()["scores"]


def test_errors_say_what_to_do(folder: Path, report: DetectorReport) -> None:
    with pytest.raises(ConfigError, match=r"'val' is both calibrated on and measured"):
        DetectorConfig(calibrate=("val",), split="val")
    with pytest.raises(ConfigError, match=r"groups?.*'overlop'.*Did you mean 'overlap'"):
        DetectorConfig(groups=("overlop",))
    with pytest.raises(ConfigError, match=r"threshold is 1\. Expected a probability"):
        DetectorConfig(threshold=1.0)
    with pytest.raises(ConfigError, match=r"named twice.*val, val"):
        DetectorConfig(calibrate=("val", "val"))
    with pytest.raises(CorpusError, match=r"true and \d hallucinated object words in 1 pictures.*--calibrate"):
        run(_config(folder, calibration_pictures=1))
    with pytest.raises(CorpusError, match=r"no split to calibrate on.*Name one of test with --calibrate"):
        calibration_splits(DetectorConfig(), ("test",))
    with pytest.raises(CapxaiError, match="already holds a report"):
        run(_config(folder, out=folder / "out"))


def test_the_command(folder: Path) -> None:
    typed = ["analyze", "detector", "--model", str(folder / "ada-lstm"), "--corpus", str(folder / "corpus"), "--quiet"]
    typed += ["--seed", str(SEED), "--pictures", "0"]
    table = CliRunner().invoke(app, typed)
    assert table.exit_code == 0, table.output
    assert "calibrated on val" in table.stdout and "prototypes" in table.stdout and "is doubtful" in table.stdout
    stored = json.loads(CliRunner().invoke(app, [*typed, "--json"]).stdout)
    assert stored["scores"]["together"]["numbers"] == 21 and stored["split"] == "robust"
