"""Explanations of a model that loses its layers: similarities by hand, stages that cover all, and the cascade redone by loops."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ablation_cases import NAMES, learned_model, write_corpus
from small_models import DECODERS, OUTPUT_CHANNELS, WORDS, picture_model, small_model
from torch import nn
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.errors import CapxaiError, ConfigError, RelevanceError
from capxai.evaluate.bootstrap import draws
from capxai.evaluate.similarity import Map, average_ranks, cosine, defined_means, ssim
from capxai.explain.explainer import explain
from capxai.explain.methods import METHODS, Maps, Request, register_method
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.folder import load_model
from capxai.models.specification import Specification
from capxai.recipes.analysis import randomization as recipe
from capxai.recipes.analysis.randomization import RandomizationConfig, run
from capxai.recipes.analysis.randomization_cascade import Cascade, fresh, learned_tensors, permuted, stages_of
from capxai.recipes.analysis.randomization_report import REPORT_FILE, TABLE_FILE, MethodReport, RandomizationReport
from capxai.recipes.analysis.stream import Look

CHOSEN = ("lrp", "guided-backprop", "grad-cam", "attention", "blind")
SEED, PICTURES, PRECEDING = 5, 3, 3
ONE_MODEL = pytest.mark.parametrize("model", ["mh-fc"], indirect=True)


def test_ranks_and_ties() -> None:
    assert average_ranks([3.0, 1.0, 2.0]).tolist() == [3, 1, 2]
    assert average_ranks([[0.0, 5.0], [0.0, 0.0]]).tolist() == [2, 4, 2, 2]  # the zeros share ranks 1, 2 and 3


def test_similarities_on_paper() -> None:
    found = Map([1.0, -2.0, 3.0, 0.0]).similarity(Map([10.0, 20.0, 30.0, 0.0]))
    # Ranks 3 1 4 2 and 2 3 4 1: squared distances 1, 4, 0, 1; 1 - 6 * 6 / (4 * 15). Absolute values have the same order.
    assert found["spearman"] == pytest.approx(1 - 36 / 60)
    assert found["spearman_absolute"] == pytest.approx(1)
    assert found["cosine"] == pytest.approx((10 - 40 + 90) / math.sqrt(14 * 1400))
    assert list(found) == ["spearman", "spearman_absolute", "cosine"]
    turned = Map([1.0, -2.0, 3.0]).similarity(Map([-1.0, 2.0, -3.0]))
    assert turned == pytest.approx({"spearman": -1, "spearman_absolute": 1, "cosine": -1})


def test_what_cannot_be_compared_is_undefined() -> None:
    flat = Map([[2.0, 2.0], [2.0, 2.0]]).similarity(Map([[1.0, 2.0], [3.0, 4.0]]))
    assert math.isnan(flat["spearman"]) and math.isnan(flat["spearman_absolute"]) and flat["cosine"] > 0.9
    nothing = Map([0.0, 0.0]).similarity(Map([1.0, 2.0]))
    assert all(math.isnan(value) for value in nothing.values())
    assert all(math.isnan(value) for value in Map([[1.0, math.inf]]).similarity(Map([[1.0, 2.0]])).values())
    with pytest.raises(ValueError, match="one shape for both"):
        Map([1.0]).similarity(Map([1.0, 2.0]))


def test_scale_does_not_matter_even_at_the_ends_of_the_range() -> None:
    values = np.random.default_rng(0).normal(size=(12, 13))
    for scale in (1e-300, 1e300):
        assert Map(values).similarity(Map(scale * values)) == pytest.approx(
            {"spearman": 1, "spearman_absolute": 1, "cosine": 1, "ssim": 1}
        )
    assert cosine(np.array([1e-300, 0]), np.array([1e300, 1e300])) == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize("shape", [(14, 12), (4, 9)])
def test_structural_similarity_is_that_of_loops(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(1)
    first, second = (generator.uniform(-1, 1, shape) for _ in range(2))
    width = min(11, *shape)
    values = []
    for top, left in itertools.product(range(shape[0] - width + 1), range(shape[1] - width + 1)):
        weights = {
            (y, x): math.exp(-((y - (width - 1) / 2) ** 2 + (x - (width - 1) / 2) ** 2) / (2 * 1.5**2))
            for y in range(width)
            for x in range(width)
        }
        total = sum(weights.values())
        pairs = [(w / total, first[top + y, left + x], second[top + y, left + x]) for (y, x), w in weights.items()]
        a, b = (sum(pair[0] * pair[which] for pair in pairs) for which in (1, 2))
        aa, bb, ab = (sum(w * f(x, y) for w, x, y in pairs) for f in (lambda x, _: x * x, lambda _, y: y * y, lambda x, y: x * y))  # fmt: skip  # noqa: E501
        c1, c2 = 0.02**2, 0.06**2  # K1 0.01 and K2 0.03, the range from -1 to 1
        values.append(
            (2 * a * b + c1) * (2 * (ab - a * b) + c2) / ((a * a + b * b + c1) * (aa - a * a + bb - b * b + c2))
        )
    assert ssim(first, second) == pytest.approx(sum(values) / len(values), abs=1e-12)
    assert ssim(first, first) == pytest.approx(1)


def test_means_leave_out_what_is_undefined() -> None:
    values = [[0.2, math.nan], [0.4, math.nan], [math.nan, math.nan]]
    first, second = defined_means([0, 1, 2], values, draws(3, seed=0))
    assert first is not None and first.value == pytest.approx(0.3) and second is None
    assert (first.low, first.high) == pytest.approx((0.2, 0.4))  # only picture 0, only picture 1


EXPECTED = {
    "ada-lstm": ["word head", "language LSTM", "attention", "LSTM", "embedding", "projections"],
    "adaptive": ["word head", "attention", "LSTM", "embedding", "projections"],
    "mh-fc": ["word head", "attention", "LSTM", "embedding", "projections"],
}


@pytest.mark.parametrize(
    ("encoder", "decoder", "groups"),
    [*(("compact", decoder, 4) for decoder in DECODERS), ("vgg16", "mh-fc", 5), ("resnet50", "ada-lstm", 5)],
)
def test_stages_cover_every_learned_number_once(encoder: str, decoder: str, groups: int) -> None:
    sizes = Specification(encoder, decoder, OUTPUT_CHANNELS[encoder], 4, 16, 12, 10, 4 if decoder == "mh-fc" else 1)
    with torch.device("meta"):  # names and shapes, no numbers
        model = build_captioner(sizes, Vocabulary(WORDS), Preprocessing(32))
    stages = stages_of(model)
    assert [stage.name for stage in stages] == EXPECTED[decoder] + [f"encoder {n}" for n in range(groups, 0, -1)]
    assert [stage.encoder for stage in stages] == [stage.name.startswith("encoder") for stage in stages]
    covered = [name for stage in stages for name in stage.tensors]
    parameters = {name for name, _ in model.named_parameters()}
    statistics = {name for name, _ in model.named_buffers() if not name.endswith("num_batches_tracked")}
    assert len(covered) == len(set(covered)) and set(covered) == parameters | statistics


def test_layers_without_a_name_are_not_forgotten() -> None:
    model = picture_model("compact", "mh-fc", 32, torch.float32)
    model.decoder.extra = nn.Linear(2, 2)
    stages = stages_of(model)
    (other,) = [stage for stage in stages if stage.name == "other layers"]
    assert other.tensors == ("decoder.extra.weight", "decoder.extra.bias") and not other.encoder
    assert [stage.name for stage in stages_of(small_model("mh-fc"))] == EXPECTED["mh-fc"]  # stored features


@pytest.mark.parametrize("draw", ["permute", "fresh"])
def test_the_cascade_adds_stage_to_stage_and_leaves_the_original(draw: Any) -> None:
    model = picture_model("compact", "ada-lstm", 32, torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cascade = Cascade(model, draw, seed=1)
    for _ in range(2):  # it can be gone through again and again
        seen: set[str] = set()
        for stage, other in cascade.models():
            seen |= set(stage.tensors)
            assert other is not model and not other.training
            for name, tensor in other.state_dict().items():
                if name not in seen:
                    assert torch.equal(tensor, before[name]), name
                elif before[name].unique().numel() > 1 or draw == "fresh":
                    assert not torch.equal(tensor, before[name]), name
        assert seen == set(learned_tensors(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_permuted_layer_has_the_same_numbers_and_a_seed() -> None:
    model = picture_model("compact", "mh-fc", 32, torch.float32)
    stages = stages_of(model)
    found, again, other = (permuted(model, stages, seed) for seed in (1, 1, 2))
    name = "decoder.word_head.fc.weight"
    for key, tensor in found.items():
        assert torch.equal(tensor.flatten().sort().values, model.state_dict()[key].flatten().sort().values)
        assert torch.equal(tensor, again[key])
    assert not torch.equal(found[name], other[name])


def test_fresh_layers_do_not_disturb_other_random_numbers() -> None:
    model = picture_model("compact", "mh-fc", 32, torch.float64)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found = fresh(model, 1)
    assert torch.equal(torch.rand(2), expected)
    assert found["decoder.embedding.weight"].abs().max() <= 0.1  # the decoder's own rule
    assert torch.equal(found["encoder.trunk.1.running_var"], torch.ones(24, dtype=torch.float64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("randomization")
    write_corpus(root / "corpus")
    return root


@pytest.fixture(scope="module", params=("ada-lstm", "mh-fc"))
def model(request: pytest.FixtureRequest, folder: Path) -> Captioner:
    return learned_model(request.param, folder / "corpus", folder / request.param)


@pytest.fixture(scope="module")
def blind() -> Iterator[None]:
    """A method that looks at the picture and at nothing that was learned."""

    def method(request: Request) -> Maps:
        readings, words = request.readings, request.words
        assert readings.images is not None
        pixels = readings.images.sum(1)[words.rows]  # (W, H, W)
        regions = pixels.unflatten(1, (4, 8)).unflatten(3, (4, 8)).sum((2, 4)).flatten(1)
        return Maps(pixels, regions, readings.inputs[words.rows].float().cos())

    register_method("blind", method)
    yield
    del METHODS["blind"]


def _config(folder: Path, model: Captioner, **settings: object) -> RandomizationConfig:
    given = {"method": CHOSEN, "seed": SEED, "pictures": PICTURES, "preceding": PRECEDING, "device": "cpu", **settings}
    name = str(model.lineage["name"])
    return RandomizationConfig(model=folder / name, corpus=folder / "corpus", **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report(folder: Path, model: Captioner, blind: None) -> RandomizationReport:
    return run(_config(folder, model, out=folder / f"out-{model.lineage['name']}"))


def test_a_method_that_ignores_the_model_is_named(report: RandomizationReport, folder: Path, model: Captioner) -> None:
    own = [one for one in report.methods if one.method == "blind"]
    assert [one.level for one in own] == ["pixels", "regions", "words"]
    for one in own:
        for figure, means in one.figures.items():
            assert len(means) == len(report.stages)
            for mean in means:
                assert mean is not None and mean.value == pytest.approx(1, abs=1e-12), figure
                assert (mean.low, mean.high) == pytest.approx((1, 1), abs=1e-12)
        assert one in report.unchanged(len(report.stages)) and report.held(one) == "encoder 1"
    written = json.loads((folder / f"out-{model.lineage['name']}" / REPORT_FILE).read_text())
    assert {"method": "blind", "level": "pixels"} in written["unchanged"]
    assert {one["method"]: one["high_until"] for one in written["methods"]}["blind"] == "encoder 1"
    attention = next(one for one in report.methods if (one.method, one.level) == ("attention", "regions"))
    mean = attention.figures["spearman"][0]
    assert mean is not None and mean.value == 1  # the word head says nothing about where the model looks
    assert attention not in report.unchanged(len(report.stages))
    lrp = next(one for one in report.methods if (one.method, one.level) == ("lrp", "regions"))
    assert lrp not in report.unchanged(len(report.stages)) and lrp.figures["spearman"][0] != mean


def _mention_places(caption: str) -> list[int]:
    said = caption.split()
    return [
        place
        for place in range(len(said))
        if any(said[place : place + len(name.split())] == name.split() for name in NAMES)
    ]


def _slow_spearman(first: np.ndarray, second: np.ndarray, absolute: bool) -> float:
    rows = []
    for values in (first, second):
        flat = [abs(float(v)) if absolute else float(v) for v in values.ravel()]
        below = {v: sum(other < v for other in flat) for v in set(flat)}
        rows.append([below[v] + (flat.count(v) + 1) / 2 for v in flat])
    mean = (len(rows[0]) + 1) / 2
    moments = [sum((a - mean) * (b - mean) for a, b in zip(x, y, strict=True)) for x, y in ((rows[0], rows[1]), (rows[0], rows[0]), (rows[1], rows[1]))]  # fmt: skip  # noqa: E501
    return moments[0] / math.sqrt(moments[1] * moments[2]) if moments[1] * moments[2] else math.nan


def test_every_figure_is_that_of_loops_over_randomized_models(
    folder: Path, model: Captioner, report: RandomizationReport
) -> None:
    """Randomize a second copy by name, explain each picture by itself, and rank by counting."""
    drawn = permuted(model, stages_of(model), SEED)
    captions = {n: model.caption(folder / "corpus" / "images" / f"{n}.png") for n in range(1, PICTURES + 1)}
    states = [dict(model.state_dict())]
    for stage in stages_of(model):
        states.append({**states[-1], **{name: drawn[name] for name in stage.tensors}})
    maps = []
    for state in states:
        other = load_model(folder / str(model.lineage["name"]))
        other.load_state_dict(state)
        maps.append(_slow_maps(folder, other, captions))
    for one in report.methods:
        if one.method == "blind" or one.level == "pixels":
            continue
        keys = [key for key in maps[0] if key[:2] == (one.method, one.level)]
        assert len(keys) == one.words > 3
        for stage, after in enumerate(maps[1:]):
            for absolute, figure in enumerate(("spearman", "spearman_absolute")):
                values = [_slow_spearman(maps[0][key], after[key], bool(absolute)) for key in keys]
                defined = [value for value in values if not math.isnan(value)]
                found = one.figures[figure][stage]
                if not defined:
                    assert found is None
                    continue
                assert found is not None
                assert found.value == pytest.approx(sum(defined) / len(defined), abs=1e-6), (one.method, stage)
                assert one.undefined[stage] == len(values) - len(defined)


def _slow_maps(folder: Path, model: Captioner, captions: dict[int, str]) -> dict[tuple[Any, ...], np.ndarray]:
    found = {}
    for number, caption in captions.items():
        for method in CHOSEN[:-1]:
            one = explain(model, folder / "corpus" / "images" / f"{number}.png", method, caption)
            for place in _mention_places(caption):
                assert one.region_relevance is not None
                found[method, "regions", number, place] = one.region_relevance[place]
                if one.word_relevance is not None and place >= PRECEDING:
                    found[method, "words", number, place] = one.word_relevance[place][1 : place + 1]
    return found


def test_the_original_still_explains_and_the_words_are_lost(report: RandomizationReport) -> None:
    assert report.stages[-4:] == ("encoder 4", "encoder 3", "encoder 2", "encoder 1")
    assert report.decoder_stages == len(report.stages) - 4
    assert len(report.probability) == len(report.stages) + 1
    assert report.probability[0].value > report.probability[-1].value


@ONE_MODEL
def test_figures_do_not_depend_on_the_batch(
    folder: Path, model: Captioner, report: RandomizationReport, blind: None
) -> None:
    alone = run(_config(folder, model, batch_size=1, method=("lrp", "blind"), level=("pixels", "words")))
    expected_of = {(one.method, one.level): one for one in report.methods}
    for one in alone.methods:
        other = expected_of[one.method, one.level]
        assert one.words == other.words
        for figure in one.figures:
            for mean, expected in zip(one.figures[figure], other.figures[figure], strict=True):
                assert (mean is None) == (expected is None)
                if mean is not None and expected is not None:
                    assert mean.value == pytest.approx(expected.value, abs=2e-3)  # ranks of nearly equal pixels


def test_files(folder: Path, model: Captioner, report: RandomizationReport) -> None:
    out = folder / f"out-{model.lineage['name']}"
    assert json.loads((out / REPORT_FILE).read_text()) == json.loads(json.dumps(report.to_json()))
    with (out / TABLE_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    stages = len(report.stages)
    assert len(rows) == stages + 1 + stages * sum(len(one.figures) for one in report.methods)
    first = next(row for row in rows if (row["method"], row["level"], row["figure"]) == ("lrp", "pixels", "spearman"))
    mean = report.methods[0].figures["spearman"][0]
    assert mean is not None and (first["name"], float(first["value"])) == ("word head", pytest.approx(mean.value, 1e-5))
    kinds = ("end", "spearman", "spearman_absolute")
    levels = ("pixels", "regions", "words")
    assert {file.name for file in out.glob("*.png")} == {f"randomization_{a}_{b}.png" for a in levels for b in kinds}
    assert json.loads((out / REPORT_FILE).read_text())["provenance"]["config"]["draw"] == "permute"
    with pytest.raises(CapxaiError, match="--force"):
        run(_config(folder, model, out=out))


@ONE_MODEL
def test_a_stopped_run_goes_on(
    folder: Path, model: Captioner, report: RandomizationReport, blind: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, calls = recipe._Measurement.__call__, []

    def stopping(self: Any, look: Look) -> Any:
        calls.append(look.pictures[0].id)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(self, look)

    monkeypatch.setattr(recipe._Measurement, "__call__", stopping)
    config = _config(folder, model, out=folder / f"stopped-{model.lineage['name']}", batch_size=2, level=("words",))
    with pytest.raises(KeyboardInterrupt):
        run(config)
    found = run(config)
    assert calls == [1, 3, 3]  # the first batch was kept
    expected = [one for one in report.methods if one.level == "words"]
    assert [one.method for one in found.methods] == [one.method for one in expected]
    for one, other in zip(found.methods, expected, strict=True):
        assert [None if m is None else m.value for m in one.figures["cosine"]] == pytest.approx(
            [None if m is None else m.value for m in other.figures["cosine"]], abs=1e-5
        )


def test_all_leaves_out_the_control() -> None:
    assert "random" in METHODS and "random" not in RandomizationConfig().methods()
    assert RandomizationConfig(method=("random",)).methods() == ("random",)


@ONE_MODEL
def test_errors_say_what_to_do(folder: Path, model: Captioner) -> None:
    with pytest.raises(RelevanceError, match="Did you mean 'lrp'"):
        run(_config(folder, model, method=("lpr",)))
    with pytest.raises(RelevanceError, match=r"None of the methods attention has relevance of words.*--level"):
        run(_config(folder, model, method=("attention",), level=("words",)))
    with pytest.raises(ConfigError, match=r"No level.*\n.*preceding is 1.*\n.*high is 2"):
        RandomizationConfig(level=(), preceding=1, high=2)


def test_undefined_everywhere_is_not_high() -> None:
    one = MethodReport("x", "pixels", 3, {"spearman": (None,), "spearman_absolute": (None,)}, (3,))
    assert one.highest_rank(0) == -1 and one.holds(0.5) == 0


@ONE_MODEL
def test_the_command(folder: Path, model: Captioner) -> None:
    typed = ["analyze", "randomization", "--model", str(folder / str(model.lineage["name"])), "--corpus"]
    typed += [str(folder / "corpus"), "--pictures", "2", "--quiet", "--device", "cpu", "--draw", "fresh"]
    chosen = [*typed, "--method", "lrp", "--method", "random", "--level", "regions"]
    table = CliRunner().invoke(app, chosen)
    assert table.exit_code == 0, table.output
    assert "initialized anew" in table.stdout and "word head" in table.stdout
    assert "Stays high with the whole model random: random (regions, 1.00)." in table.stdout
    found = json.loads(CliRunner().invoke(app, [*chosen, "--json"]).stdout)
    assert found["unchanged"] == [{"method": "random", "level": "regions"}] and found["draw"] == "fresh"
    wrong = CliRunner().invoke(app, [*typed, "--draw", "freshly"])
    assert wrong.exit_code == 1 and "Did you mean 'fresh'" in wrong.stderr
    assert "capxai analyze randomization --pictures 5" in CliRunner().invoke(app, [*typed[:2], "--help"]).stdout
