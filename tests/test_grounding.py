"""The veto while decoding: its hook, its relevance, its thresholds, and the commands that calibrate and use it."""

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
from small_models import CAPTION, DECODERS, features, small_model
from test_decoding import pictures, tiny_model
from torch import Tensor
from typer.testing import CliRunner, Result

from capxai.cli.main import app
from capxai.data.scenes import render_picture
from capxai.data.vocabulary import Vocabulary
from capxai.errors import ConfigError, ModelError
from capxai.evaluate.lexicon import Lexicon, coco_lexicon
from capxai.explain.attribution import Readings, Words, _through_head
from capxai.lrp.composites import lrp
from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions, decode
from capxai.models.folder import bundled_folder, load_model, save_model
from capxai.models.state import HeadInputs
from capxai.recipes.analysis.grounding import GroundingConfig, run
from capxai.recipes.analysis.grounding_measure import calibrated, veto_rate
from capxai.recipes.analysis.grounding_report import CAPTIONS_FILE, REPORT_FILE
from capxai.recipes.grounding import GROUNDING_FILE, Grounding, read_grounding
from capxai.recipes.grounding_veto import (
    MEASURES,
    Evidence,
    EvidenceVeto,
    drawn_veto,
    gather_evidence,
    grounded_veto,
    object_words,
    vetoed_words,
)

STRATEGIES = (
    DecodingOptions("greedy", maximum_length=6),
    DecodingOptions("beam", maximum_length=6),
    DecodingOptions("diverse-beam", maximum_length=6),
    DecodingOptions("sample", maximum_length=6, seed=3),
)
CAR, ROAD = 6, 9
NOUNS = (5, 7, 10)
"""Words that models of random weights say, in the vocabulary of `tiny_model`."""
SAID = ("a", "car", "near", "a", "traffic", "light", "near", "a", "knife")


def _logs(logits: Tensor) -> list[float]:
    values = [float(value) for value in logits]
    highest = max(values)
    whole = highest + math.log(sum(math.exp(value - highest) for value in values))
    return [value - whole for value in values]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("options", STRATEGIES, ids=lambda options: options.strategy)
def test_a_veto_that_forbids_nothing_changes_no_bit(decoder: str, options: DecodingOptions) -> None:
    model = small_model(decoder)
    memory = model.remember(features(count=5))
    steps = []

    def nothing(t: int, inputs: HeadInputs, log_probabilities: Tensor) -> Tensor:
        assert inputs.context.shape == inputs.hidden.shape == (len(log_probabilities), 4)
        steps.append(t)
        return log_probabilities

    assert decode(model, memory, options, nothing) == decode(model, memory, options)
    assert steps == list(range(len(steps))) and len(steps) > 1


def _forbidding(word: int, step: int) -> Any:
    def veto(t: int, _: HeadInputs, log_probabilities: Tensor) -> Tensor:
        changed = log_probabilities.clone()
        if t == step:
            changed[:, word] = -math.inf
        return changed

    return veto


@torch.no_grad()
def _slow_search(model: Captioner, picture: Tensor, width: int, forbidden: tuple[int, int], longest: int) -> list[int]:
    """Beam search of one picture with lists: (log-probability, words, state, ended)."""
    memory = model.remember(picture[None])
    beam: list[tuple[float, list[int], Any, bool]] = [(0.0, [], model.start(memory), False)]
    for t in range(longest):
        longer = []
        for total, words, state, ended in beam:
            if ended:
                longer.append((total, words, state, True))
                continue
            last = words[-1] if words else 1
            step = model.step(memory, model.embed(torch.tensor([last])), state)
            for word, value in enumerate(_logs(step.logits[0])):
                if word not in (0, 1, 3) and (word, t) != forbidden:
                    longer.append((total + value, [*words, word], step.state, word == 2))
        beam = sorted(longer, key=lambda one: -one[0])[:width]
    words = beam[0][1]
    return words[:-1] if words[-1] == 2 else words


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("width", [1, 3])
def test_a_forbidden_word_gives_way_at_its_step_alone(decoder: str, width: int) -> None:
    model, seen = tiny_model(decoder), pictures(3)
    options = DecodingOptions("beam", beam=width, maximum_length=5)
    plain = decode(model, model.remember(seen), options)
    changed = 0
    for step in range(3):
        word = plain[0].token_ids[step] if step < len(plain[0].token_ids) else CAR
        found = decode(model, model.remember(seen), options, _forbidding(word, step))
        for row, one in enumerate(found):
            assert list(one.token_ids) == _slow_search(model, seen[row], width, (word, step), 5)
            assert all(len(each.token_ids) <= step or each.token_ids[step] != word for each in (one, *one.alternatives))
            changed += one.token_ids != plain[row].token_ids
    assert changed


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("eps", [0.01, 0.3])
def test_relevance_at_the_head_is_the_engines(decoder: str, eps: float) -> None:
    model = small_model(decoder)
    tokens = torch.tensor([CAPTION, CAPTION[::-1]])
    readings = Readings(model, None, features(count=2), tokens, torch.tensor([5, 5]))
    with torch.no_grad():
        seen = model.read(model.remember(readings.features), model.embed(readings.inputs))
    words = torch.tensor([4, CAR, ROAD])
    for row, place in ((0, 0), (1, 2), (0, 4)):
        here = HeadInputs(seen.context[row, place][None], seen.hidden[row, place][None])
        found = gather_evidence(model.decoder.word_head, words, here, torch.zeros(1, 10).double(), eps)
        for column, word in enumerate(words.tolist()):
            one = Words(torch.tensor([row]), torch.tensor([place]), torch.tensor([word]))
            arrived, _ = _through_head(model, seen, one, lrp(eps))
            assert float(found.context[0, column]) == pytest.approx(float(arrived.context.sum().detach()), abs=1e-9)
            assert float(found.hidden[0, column]) == pytest.approx(float(arrived.hidden.sum()), abs=1e-9)


def test_measures_on_paper() -> None:
    found = Evidence(torch.tensor([[3.0, -1.0, 2.0]]), torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([[-1.0, -2, -3]]))
    expected = {
        "context": [3.0, -1, 2],
        "share": [0.75, -0.25, 1],
        "margin": [2.0, -4, 2],
        "lead": [1.0, -4, -1],  # 3 - 2, -1 - 3, 2 - 3
        "above": [3 - 4 / 3, -1 - 4 / 3, 2 - 4 / 3],
        "language": [-1.0, -3, 0],
        "probability": [-1.0, -2, -3],
    }
    assert list(MEASURES) == list(expected)
    for name, values in expected.items():
        torch.testing.assert_close(MEASURES[name](found), torch.tensor([values]))


def _veto(model: Captioner, threshold: float = 9.0, measure: str = "context") -> EvidenceVeto:
    words = torch.tensor(NOUNS)
    return EvidenceVeto(model.decoder.word_head, words, torch.full((3,), threshold, dtype=torch.float64), measure)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_batch_is_decoded_as_one_by_one(decoder: str) -> None:
    model, seen = tiny_model(decoder), pictures(3)
    for measure in ("context", "lead"):
        for options in STRATEGIES[:2]:
            together = decode(model, model.remember(seen), options, _veto(model, measure=measure))
            alone = [
                decode(model, model.remember(one[None]), options, _veto(model, measure=measure))[0] for one in seen
            ]
            assert [one.token_ids for one in together] == [one.token_ids for one in alone]


@torch.no_grad()
@pytest.mark.parametrize(("decoder", "threshold"), [("ada-lstm", 9.0), ("mh-fc", 1000.0), ("adaptive", 9.0)])
def test_what_was_vetoed_in_a_greedy_caption_is_what_would_have_been_said(decoder: str, threshold: float) -> None:
    model, seen = tiny_model(decoder), pictures(4)
    veto, total = _veto(model, threshold), 0
    captions = decode(model, model.remember(seen), STRATEGIES[0], veto)
    found = vetoed_words(model, model.remember(seen), captions, veto)
    for row, one in enumerate(captions):
        memory = model.remember(seen[row][None])
        state, last, expected = model.start(memory), 1, []
        for t, said in enumerate([*one.token_ids, *([2] if one.finished else [])]):
            with torch.no_grad():
                step = model.step(memory, model.embed(torch.tensor([last])), state)
            logs = _logs(step.logits[0])
            x = step.head_inputs.context[0] + step.head_inputs.hidden[0]
            for word in NOUNS:
                z = sum(float(a * b) for a, b in zip(model.decoder.word_head.fc.weight[word], x, strict=True))
                z += float(model.decoder.word_head.fc.bias[word])
                relevance = 0.0
                for c, unit, weight in zip(
                    step.head_inputs.context[0], x, model.decoder.word_head.fc.weight[word], strict=True
                ):
                    at_sum = float(unit * weight) / (z + math.copysign(0.01, z)) * z
                    relevance += float(c / (unit + math.copysign(0.01, unit))) * at_sum
                if logs[word] > logs[said] and relevance < threshold:
                    expected.append((t, word, said, pytest.approx(math.exp(logs[word])), pytest.approx(relevance)))
            state, last = step.state, said
        expected.sort(key=lambda each: (each[0], -logs_of(each)))
        known = model.vocabulary.words
        got: list[Any] = [
            (v.step, known.index(v.word), known.index(v.instead), v.probability, v.value) for v in found[row]
        ]
        assert got == expected
        total += len(expected)
    assert total


def logs_of(entry: tuple[Any, ...]) -> float:
    """The probability of an expected entry."""
    return float(entry[3].expected)


def test_words_that_begin_names() -> None:
    lexicon = Lexicon(
        {"traffic light": ["traffic light", "stoplight"], "car": ["car"], "traffic cone": ["traffic cone"]}
    )
    vocabulary = Vocabulary(("<pad>", "<start>", "<end>", "<unk>", "light", "traffic", "cars", "car", "a"))
    found = object_words(vocabulary, lexicon)
    assert found == {5: ("traffic cone", "traffic light"), 6: ("car",), 7: ("car",)}
    with pytest.raises(ConfigError, match="None of the 5 words of the model begins"):
        object_words(Vocabulary(("<pad>", "<start>", "<end>", "<unk>", "light")), lexicon)
    model = small_model("mh-fc")
    grounding = Grounding("w", "l", "context", 0.1, 0.4, {"traffic cone": 0.7, "car": 0.9}, {})
    veto = grounded_veto(model.decoder.word_head, vocabulary, lexicon, grounding)
    assert veto.words.tolist() == [5, 6, 7]
    assert veto.thresholds.tolist() == [0.4, 0.9, 0.9]  # of "traffic" the lower one: the pooled one of the light


def _mention(category: str, present: bool, value: float) -> dict[str, object]:
    return {"category": category, "present": present, "values": {"context": value}}


def test_thresholds_by_hand() -> None:
    records = [
        {"mentions": [_mention("car", True, 1.0), _mention("car", True, 3.0), _mention("dog", True, 10.0)]},
        {"mentions": [_mention("car", True, 2.0), _mention("car", False, -9.0), _mention("cat", False, 0.0)]},
        {},
    ]
    pooled, thresholds, examples = calibrated(records, "context", 0.25, fewest=2)
    # True: 1, 2, 3, 10; their lower quarter lies at 1 + 0.75 * (2 - 1). Of the cars 1, 2, 3 it lies at 1.5.
    assert (
        pooled == pytest.approx(1.75) and thresholds == {"car": pytest.approx(1.5)} and examples == {"car": 3, "dog": 1}
    )
    grounding = Grounding("", "", "context", 0.25, pooled, thresholds, examples)
    assert grounding.threshold("dog") == pooled and grounding.threshold("cat") == pooled
    assert veto_rate(records, grounding) == pytest.approx(3 / 6)  # cars of 1 and -9, and the cat of 0
    assert calibrated([{}], "context", 0.25) == (0.0, {}, {}) and veto_rate([{}], grounding) == 0


def test_vetoes_by_lot_belong_to_the_picture() -> None:
    words = torch.tensor([CAR, ROAD])
    both = drawn_veto(words, 0.5, [4, 7], 6)
    assert torch.equal(both.forbidden[1], drawn_veto(words, 0.5, [7], 6).forbidden[0])
    logs = torch.zeros(4, 10)
    for t in range(6):
        found = both(t, HeadInputs(logs, logs), logs)
        assert torch.equal(found[0], found[1]) and torch.equal(found[2], found[3])  # two hypotheses of each picture
        assert torch.equal(found[::2, words].isinf(), both.forbidden[:, t])
    assert not logs.any()
    share = drawn_veto(words, 0.3, range(200), 6).forbidden.double().mean()
    assert float(share) == pytest.approx(0.3, abs=0.04)


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


def test_thresholds_below_everything_forbid_nothing() -> None:
    model = tiny_model("ada-lstm")
    memory = model.remember(pictures(3))
    assert decode(model, memory, STRATEGIES[1], _veto(model, -math.inf)) == decode(model, memory, STRATEGIES[1])
