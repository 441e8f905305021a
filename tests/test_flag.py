"""``capxai caption --flag``: doubtful words in the text and as JSON, by the very detector of these weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from ablation_cases import learned_model
from detector_cases import MEASURED, write_split_corpus
from PIL import Image
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.errors import ConfigError, ModelError
from capxai.evaluate.lexicon import coco_lexicon
from capxai.models.folder import bundled_folder, load, load_model
from capxai.recipes.analysis.detector import DetectorConfig
from capxai.recipes.analysis.detector import run as calibrate
from capxai.recipes.analysis.detector_file import DETECTOR_FILE, read_detector
from capxai.recipes.analysis.detector_report import DetectorReport
from capxai.recipes.caption import CaptionConfig, run
from capxai.recipes.flagging import Flag, Flagger, marked, open_flagger

WEIGHTS = "weights_sha256"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("flag")
    write_split_corpus(root / "corpus")
    for decoder in ("ada-lstm", "mh-fc"):
        learned_model(decoder, root / "corpus", root / decoder)
    return root


@pytest.fixture(scope="module")
def report(folder: Path) -> DetectorReport:
    """A detector beside the model, with a threshold that some words reach and some do not."""
    config = DetectorConfig(
        model=folder / "ada-lstm", corpus=folder / "corpus", pictures=0, install=True, threshold=0.6, batch_size=20
    )
    return calibrate(config)


def _pictures(folder: Path) -> tuple[Path, ...]:
    return tuple(folder / "corpus" / "images" / f"{number}.png" for number in MEASURED)


def test_flags_are_what_the_analysis_says_of_the_same_words(folder: Path, report: DetectorReport) -> None:
    found = run(CaptionConfig(images=_pictures(folder), model=folder / "ada-lstm", flag=True, device="cpu"))
    chances = iter(report.scores["together"].probabilities)
    words = iter(zip(report.words.image_ids, report.words.positions, report.words.words, strict=True))
    for number, picture in zip(MEASURED, found.pictures, strict=True):
        assert picture.flags is not None
        for flag in picture.flags:
            assert next(words) == (number, flag.position, flag.word)
            assert flag.hallucinated == pytest.approx(next(chances), abs=1e-5)
            assert flag.doubtful == (flag.hallucinated >= 0.6)
            assert picture.caption.split()[flag.position : flag.last + 1] == flag.word.split()
            assert (f"[{flag.word}? {100 * flag.hallucinated:.0f} %]" in picture.text) == flag.doubtful
    assert next(words, None) is None
    doubts = [flag.doubtful for picture in found.pictures for flag in picture.flags or ()]
    assert any(doubts) and not all(doubts)
    assert (
        found.pictures[-1].caption == "" and found.pictures[-1].flags == ()
    )  # the model says nothing about the last one


def test_captions_without_flags_are_as_before(folder: Path, report: DetectorReport) -> None:
    plain = run(CaptionConfig(images=_pictures(folder), model=folder / "ada-lstm", device="cpu"))
    flagged = run(CaptionConfig(images=_pictures(folder), model=folder / "ada-lstm", flag=True, device="cpu"))
    assert [one.caption for one in plain.pictures] == [one.caption for one in flagged.pictures]
    assert all(one.flags is None and one.text == one.caption for one in plain.pictures)


def test_doubtful_words_stand_in_brackets() -> None:
    flags = [
        Flag("car", "car", 1, 1, 0.07, False),
        Flag("traffic light", "traffic light", 5, 6, 0.834, True),
        Flag("dog", "dog", 9, 9, 0.5, True),
    ]
    text = marked("a car next to a traffic light and a dog", flags)
    assert text == "a car next to a [traffic light? 83 %] and a [dog? 50 %]"
    assert marked("a car", ()) == "a car"


def test_the_command(folder: Path, report: DetectorReport) -> None:
    typed = ["caption", *map(str, _pictures(folder)[:3]), "--model", str(folder / "ada-lstm"), "--quiet", "--flag"]
    text = CliRunner().invoke(app, typed)
    assert text.exit_code == 0, text.output
    stored = json.loads(CliRunner().invoke(app, [*typed, "--json"]).stdout)
    for line, picture in zip(text.stdout.splitlines(), stored["pictures"], strict=True):
        assert line.split("\t")[1] == marked(picture["caption"], [Flag(**flag) for flag in picture["flags"]])
        assert "[" not in picture["caption"]
        assert all(
            set(flag) == {"word", "category", "position", "last", "hallucinated", "doubtful"}
            and 0 <= flag["hallucinated"] <= 1
            for flag in picture["flags"]
        )


def test_a_detector_elsewhere(folder: Path, report: DetectorReport, tmp_path: Path) -> None:
    file = shutil.copy(folder / "ada-lstm" / DETECTOR_FILE, tmp_path / "other.json")
    stored = json.loads(Path(file).read_text())
    Path(file).write_text(json.dumps({**stored, "threshold": 0.0}))
    config = CaptionConfig(images=_pictures(folder)[:2], model=folder / "ada-lstm", flag=True, detector=Path(file))
    assert all(flag.doubtful for picture in run(config).pictures for flag in picture.flags or ())
    with pytest.raises(ConfigError, match="no flags were asked for.*Add --flag"):
        run(CaptionConfig(images=_pictures(folder)[:1], detector=Path(file)))


def test_a_detector_that_is_missing_damaged_or_foreign_is_refused(
    folder: Path, report: DetectorReport, tmp_path: Path
) -> None:
    file, model = folder / "ada-lstm" / DETECTOR_FILE, folder / "mh-fc"
    with pytest.raises(
        ModelError, match=r"no detector '.*detector.json'.*Calibrate one: capxai analyze detector --model"
    ):
        run(CaptionConfig(images=_pictures(folder)[:1], model=model, flag=True))
    with pytest.raises(ModelError, match=rf"other weights.*than those of the model '{model}'.*analyze detector"):
        run(CaptionConfig(images=_pictures(folder)[:1], model=model, flag=True, detector=file))
    stored = json.loads(file.read_text())
    wrong = {
        "there is no 'threshold' in it": {key: value for key, value in stored.items() if key != "threshold"},
        "its schema is 7, not 1": {**stored, "schema": 7},
        "do not fit": {**stored, "regression": {**stored["regression"], "names": []}},
        "calibrated with another lexicon": {**stored, "lexicon_sha256": "0" * 64},
    }
    for message, content in wrong.items():
        (tmp_path / "wrong.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match=message):
            read_detector(tmp_path / "wrong.json", stored[WEIGHTS], coco_lexicon().sha256, "x")
    (tmp_path / "torn.json").write_text(file.read_text()[:100])
    with pytest.raises(ModelError, match=r"torn.json' cannot be read.*analyze detector --model x --install --force"):
        read_detector(tmp_path / "torn.json", stored[WEIGHTS], coco_lexicon().sha256, "x")


def test_features_of_inference_mode_can_be_explained(folder: Path, report: DetectorReport) -> None:
    model = load_model(folder / "ada-lstm")
    flagger = Flagger(model, report.detector, coco_lexicon())
    captions = [model.vocabulary.encode("a car near a dog"), [], model.vocabulary.encode("on red")]
    with torch.inference_mode():
        features = torch.rand(3, 16, model.specification.channels)
    found = flagger.flags(features, captions)
    assert [[flag.word for flag in one] for one in found] == [["car", "dog"], [], []]
    alone = flagger.flags(features[:1], captions[:1])
    assert [flag.hallucinated for flag in alone[0]] == pytest.approx([flag.hallucinated for flag in found[0]], abs=1e-5)
    assert flagger.flags(features[1:2], [[]]) == [()]


def test_the_bundled_model_has_its_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.radial_gradient("L").resize((60, 50)).convert("RGB").save("image.jpg")
    found = CliRunner().invoke(app, ["caption", "image.jpg", "--flag", "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["pictures"][0]["flags"] is not None
    model = load(None)
    detector = open_flagger(model, None, "bundled").detector
    assert detector.weights_sha256 == model.lineage[WEIGHTS]
    assert detector.provenance["verb"] == "analyze detector" and detector.provenance["corpus"] == "scenes"
    assert detector.figures["left_out"]["auc"]["value"] > 0.85 and detector.figures["left_out"]["within"]["value"] > 0.7
    assert (bundled_folder() / DETECTOR_FILE).stat().st_size < 200_000
