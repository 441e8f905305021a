"""Curves of deletion and insertion: worked out by hand on a model of sums, and recomputed with loops on twenty pictures."""

from __future__ import annotations

import copy
import csv
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ablation_cases import COUNT, NAMES, WORDS, learned_model, normalized, write_corpus
from torch import Tensor, nn
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.data.annotations import Picture
from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.errors import CapxaiError, ConfigError, CorpusError, RelevanceError
from capxai.evaluate.bootstrap import draws
from capxai.evaluate.faithfulness import (
    WordCurves,
    area,
    block_pixels,
    block_relevance,
    kept_at_steps,
    relevance_order,
    resample,
    score_curves,
    step_counts,
)
from capxai.explain.attribution import Readings
from capxai.explain.explainer import explain
from capxai.explain.methods import METHODS, Maps, Options, Request, register_method
from capxai.models.captioner import Captioner
from capxai.models.decoders.base import Decoder
from capxai.models.encoders.base import Encoder
from capxai.models.folder import save_model
from capxai.models.specification import Specification
from capxai.models.state import Glance, HeadInputs, Memory, State
from capxai.recipes.analysis import faithfulness as recipe
from capxai.recipes.analysis.faithfulness import FaithfulnessConfig, run
from capxai.recipes.analysis.faithfulness_pixels import PixelCurves
from capxai.recipes.analysis.faithfulness_report import REPORT_FILE, WORDS_FILE, FaithfulnessReport
from capxai.recipes.analysis.faithfulness_words import WordCurves as PrefixCurves
from capxai.recipes.analysis.faithfulness_words import set_probabilities
from capxai.recipes.analysis.stream import Look

CHOSEN = ("lrp", "grad-cam", "random")
ONE_MODEL = pytest.mark.parametrize("model", ["mh-fc"], indirect=True)
BLOCK, STEPS, PRECEDING, EXACT, DRAWS, SEED = 8, 4, 3, 4, 2, 5
PICTURES = {"ada-lstm": 5, "mh-fc": COUNT}


def test_blocks_are_summed_and_cut_off_at_the_border() -> None:
    relevance = np.arange(15, dtype=np.float32).reshape(3, 5)
    # Rows 0-1: 0+1+5+6, 2+3+7+8, 4+9; row 2 alone: 10+11, 12+13, 14.
    assert block_relevance(relevance, 2).tolist() == [12, 20, 13, 21, 25, 14]
    kept = np.array([True, False, False, False, False, True])
    assert block_pixels(kept, 2, (3, 5)).astype(int).tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 1]]


def test_the_order_of_equal_things_is_drawn() -> None:
    relevance = np.array([0.0, 2.0, 0.0, -1.0, 0.0])
    assert relevance_order(relevance, np.array([3, 0, 1, 2, 4])).tolist() == [1, 2, 0, 4, 3]


def test_steps_of_a_curve() -> None:
    assert step_counts(20, 10).tolist() == list(range(0, 21, 2))
    assert step_counts(4, 10).tolist() == [0, 1, 2, 3, 4]  # no step without a block
    assert step_counts(5, 2).tolist() == [0, 3, 5]  # 2.5 is rounded up
    kept = kept_at_steps(np.array([2, 0, 1]), np.array([0, 1, 3]))
    assert kept[0].astype(int).tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0]]  # deletion: 2 goes first
    assert kept[1].astype(int).tolist() == [[0, 0, 0], [0, 0, 1], [1, 1, 1]]  # insertion: 2 comes first


def test_areas_and_common_places() -> None:
    # Uneven places: (1 + 0.6) / 2 * 0.25 + (0.6 + 0) / 2 * 0.75 = 0.2 + 0.225
    assert area(np.array([0, 0.25, 1]), np.array([[1, 0.6, 0], [1, 1, 1]])) == pytest.approx([0.425, 1.0])
    found = resample(np.array([[0.0, 1.0, 0.0]]), np.array([0, 0.25, 0.5, 0.9, 1]))
    assert found == pytest.approx(np.array([[0, 0.5, 1, 0.2, 0]]))


def test_means_are_over_words_and_differences_are_paired() -> None:
    def curves(*areas: tuple[float, float]) -> WordCurves:
        table = np.array(areas)
        return WordCurves(np.repeat(table[:, :, None], 3, 2), table)

    # Picture 0 has two words, picture 1 one, picture 2 none.
    found = {"good": curves((0.1, 0.9), (0.2, 0.8), (0.3, 0.4)), "random": curves((0.5, 0.5), (0.5, 0.5), (0.3, 0.3))}
    scores = score_curves([0, 0, 1], found, "random", draws(3, seed=4))
    good = scores["good"]
    assert good.deletion_area.value == pytest.approx(0.6 / 3) and good.insertion_area.value == pytest.approx(2.1 / 3)
    assert [point.value for point in good.deletion] == pytest.approx([0.2] * 3)
    assert (good.deletion_area.low, good.deletion_area.high) == pytest.approx((0.15, 0.3))  # picture 0, picture 1 alone
    assert good.deletion_to_random is not None and good.insertion_to_random is not None
    assert good.deletion_to_random.value == pytest.approx((-0.4 - 0.3 + 0) / 3)
    assert (good.deletion_to_random.low, good.deletion_to_random.high) == pytest.approx((-0.35, 0.0))
    assert good.insertion_to_random.value == pytest.approx((0.4 + 0.3 + 0.1) / 3)
    assert good.beats_random == (False, True) and scores["random"].beats_random == (False, False)
    assert scores["random"].deletion_to_random is None
    with pytest.raises(ValueError, match="Found 0 words"):
        score_curves([], {"good": found["good"]}, "random", draws(3, seed=4))
    with pytest.raises(ValueError, match="good have not one pair of curves each"):
        score_curves([0, 0], {"good": found["good"]}, "random", draws(3, seed=4))


class _Sums(Decoder):
    """The word "e" has the probability s / 20, where s sums up what the model sees and what it is told; nothing else is learned."""

    def remember(self, features: Tensor) -> Memory:
        return Memory(features, features, features, features.sum((1, 2))[:, None])

    def advance(self, memory: Memory, word_vector: Tensor, state: State) -> Glance:
        told = state.hidden[0] + word_vector
        return Glance(State((told,), state.cell), memory.features.sum(2), None, HeadInputs(memory.summary, told))

    def speak(self, inputs: HeadInputs) -> Tensor:
        total = inputs.context + inputs.hidden
        rest = torch.full_like(total, -math.inf).expand(*total.shape[:-1], len(_TOY) - 2)
        return torch.cat([(20 - total).log(), rest, total.log()], -1)


_TOY = ("<pad>", "<start>", "<end>", "<unk>", "a", "b", "c", "d", "e")


class _Pixels(Encoder):
    """A region is the mean of 2x2 pixels."""

    channels, stride = 3, 2

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.AvgPool2d(2)))


def _toy(brightness: float, told: tuple[float, ...]) -> Look:
    """A picture of four blocks that count 1, 4, 2 and 3 times its brightness, and the caption "a b c d e" with words that count."""
    sizes = Specification("compact", "sums", 3, 4, 1, 1, len(_TOY))
    model = Captioner(_Pixels(), _Sums(sizes), Vocabulary(_TOY), Preprocessing(4), sizes).double().eval()
    model.decoder.embedding.weight.data = torch.tensor([0, 0, 0, 0, *told, 0], dtype=torch.float64)[:, None]
    blocks = torch.tensor([[1.0, 4.0], [2.0, 3.0]], dtype=torch.float64) * brightness / 3
    images = blocks.repeat_interleave(2, 0).repeat_interleave(2, 1).expand(1, 3, 4, 4).contiguous()
    tokens = torch.tensor([[4, 5, 6, 7, 8]])
    readings = Readings(model, images, model.features(images), tokens, torch.tensor([5]))
    return Look((Picture(7, Path("7.png"), 4, 4),), ("a b c d e",), readings)


@pytest.fixture
def oracle() -> Iterator[None]:
    """A method that knows how the toy counts."""

    def method(request: Request) -> Maps:
        readings = request.readings
        pixels = None if readings.images is None else readings.images.sum(1)[request.words.rows]
        words = readings.model.embed(readings.inputs).squeeze(2)[request.words.rows]
        return Maps(pixels, None, words)

    register_method("oracle", method)
    yield
    del METHODS["oracle"]


@pytest.mark.usefixtures("oracle")
def test_pixels_of_a_model_on_paper() -> None:
    look = _toy(1.0, (0, 0, 0, 0))
    curves = PixelCurves(block=2, steps=4, seed=0).of(look, look.words([0], [4]), ("oracle",), Options())["oracle"]
    # The blocks count 4, 3, 2, 1 in the order of relevance, of 20.
    assert curves[0, 0] == pytest.approx(np.array([10, 6, 3, 1, 0]) / 20)
    assert curves[0, 1] == pytest.approx(np.array([0, 4, 7, 9, 10]) / 20)
    places = step_counts(4, 4) / 4
    assert area(places, curves[0]) == pytest.approx([(5 + 6 + 3 + 1 + 0) / 80, (0 + 4 + 7 + 9 + 5) / 80])


@pytest.mark.usefixtures("oracle")
@pytest.mark.parametrize("exact", [4, 0])
def test_words_of_a_model_on_paper(exact: int) -> None:
    look = _toy(0.0, (1, 4, 2, 3))
    setting = PrefixCurves(least=4, exact=exact, draws=400, seed=0)
    words = setting.words(look)
    assert words.places.tolist() == [4]  # the only one with four words before it
    (curves,) = setting.of(look, words, ("oracle", "random"), Options())
    assert curves["oracle"][0] == pytest.approx(np.array([10, 6, 3, 1, 0]) / 20)
    assert curves["oracle"][1] == pytest.approx(np.array([0, 4, 7, 9, 10]) / 20)
    # A word of the four counts 2.5 in the mean; drawn orders come near.
    assert curves["random"][1] == pytest.approx(np.arange(5) * 2.5 / 20, abs=1e-12 if exact else 0.01)
    assert curves["random"][0].tolist() == curves["random"][1][::-1].tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faithfulness")
    write_corpus(root / "corpus")
    return root


@pytest.fixture(scope="module", params=("ada-lstm", "mh-fc"))
def model(request: pytest.FixtureRequest, folder: Path) -> Captioner:
    return learned_model(request.param, folder / "corpus", folder / request.param)


def _config(folder: Path, model: Captioner, **settings: object) -> FaithfulnessConfig:
    own = {"block": BLOCK, "steps": STEPS, "preceding": PRECEDING, "exact": EXACT, "draws": DRAWS}
    given = {"method": CHOSEN, "seed": SEED, "device": "cpu", **own, **settings}
    name = str(model.lineage["name"])
    given.setdefault("pictures", PICTURES[name])
    return FaithfulnessConfig(model=folder / name, corpus=folder / "corpus", **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report(folder: Path, model: Captioner) -> FaithfulnessReport:
    return run(_config(folder, model, out=folder / f"out-{model.lineage['name']}"))


class _Slow:
    """One picture after the other, one step after the other."""

    def __init__(self, model: Captioner, corpus: Path) -> None:
        self.model, self.corpus = model, corpus
        self.memories: dict[int, Memory] = {}
        self.pixels: list[tuple[int, int, str, list[list[float]]]] = []
        self.words: list[tuple[int, int, str, list[list[float]]]] = []

    def picture(self, number: int) -> None:
        """Follow the curves of a picture."""
        path = self.corpus / "images" / f"{number}.png"
        caption = self.model.caption(path)
        if not caption:
            return
        said = caption.split()
        image = normalized(self.model, self.corpus, number)
        tokens = self.model.vocabulary.encode(caption)
        named = [
            place
            for place in range(len(said))
            if any(said[place : place + len(name.split())] == name.split() for name in NAMES)
        ]
        for method in CHOSEN:
            found = explain(self.model, path, method, caption, options=Options(seed=SEED + number))
            for place in named:
                assert found.pixel_relevance is not None
                self._pixels(number, place, method, (image, tokens), found.pixel_relevance[place])
            if found.word_relevance is not None:
                for place in range(PRECEDING, len(said)):
                    self._words(number, place, method, (image, tokens), found.word_relevance[place])

    def _pixels(
        self, number: int, place: int, method: str, read: tuple[Tensor, list[int]], relevance: np.ndarray
    ) -> None:
        image, tokens = read
        side = image.shape[-1] // BLOCK
        ties = np.random.default_rng((SEED, number)).permutation(side**2)
        sums = {}
        for block in range(side**2):
            top, left = BLOCK * (block // side), BLOCK * (block % side)
            sums[block] = sum(
                float(relevance[y, x]) for y in range(top, top + BLOCK) for x in range(left, left + BLOCK)
            )
        order = sorted(sums, key=lambda block: (-sums[block], ties[block]))
        deletion, insertion = [], []
        for step in range(STEPS + 1):
            count = len(order) * step // STEPS  # 16 blocks in 4 steps
            for curve, gone in ((deletion, order[:count]), (insertion, order[count:])):
                changed = image.clone()
                for block in gone:
                    top, left = BLOCK * (block // side), BLOCK * (block % side)
                    changed[:, :, top : top + BLOCK, left : left + BLOCK] = 0
                with torch.no_grad():
                    memory = self.model.encode(changed)
                curve.append(self._likely(memory, tokens[:place], tokens[place]))
        self.pixels.append((number, place, method, [deletion, insertion]))

    def _words(
        self, number: int, place: int, method: str, read: tuple[Tensor, list[int]], relevance: np.ndarray
    ) -> None:
        image, tokens = read
        if number not in self.memories:
            with torch.no_grad():
                self.memories[number] = self.model.encode(image)

        def likely(kept: set[int]) -> float:
            return self._likely(self.memories[number], [tokens[i] for i in sorted(kept)], tokens[place])

        everything = set(range(place))
        orders = self._orders(number, place) if method == "random" else None
        if orders is None:
            ties = np.random.default_rng((SEED, number, place, 0)).permutation(place)
            orders = [sorted(everything, key=lambda i: (-relevance[i + 1], ties[i]))]  # input 0 is <start>
        known: dict[frozenset[int], float] = {}
        for order in orders:
            for count in range(place + 1):
                if frozenset(order[:count]) not in known:
                    known[frozenset(order[:count])] = likely(set(order[:count]))
        if method == "random":
            given = [float(np.mean([known[frozenset(one[:count])] for one in orders])) for count in range(place + 1)]
            self.words.append((number, place, method, [given[::-1], given]))
            return
        (order,) = orders
        deletion = [likely(everything - set(order[:count])) for count in range(place + 1)]
        self.words.append((number, place, method, [deletion, [known[frozenset(order[:k])] for k in range(place + 1)]]))

    def _orders(self, number: int, place: int) -> list[list[int]]:
        if place <= EXACT:
            return [list(order) for order in itertools.permutations(range(place))]
        generator = np.random.default_rng((SEED, number, place, 1))
        return [generator.permutation(place).tolist() for _ in range(DRAWS)]

    @torch.no_grad()
    def _likely(self, memory: Memory, told: list[int], token: int) -> float:
        state = self.model.start(memory)
        for one in (self.model.vocabulary.start, *told):
            step = self.model.step(memory, self.model.embed(torch.tensor([one])), state)
            state = step.state
        return float(torch.softmax(step.logits[0], 0)[token])


@pytest.fixture(scope="module")
def slow(folder: Path, model: Captioner) -> _Slow:
    found = _Slow(model, folder / "corpus")
    for number in range(1, PICTURES[str(model.lineage["name"])] + 1):
        found.picture(number)
    return found


def test_every_figure_is_that_of_the_loops(report: FaithfulnessReport, slow: _Slow) -> None:
    assert list(report.levels) == ["pixels", "words"]
    assert report.silent_pictures == (report.pictures == COUNT)  # nothing is said about the last one
    for level, rows in (("pixels", slow.pixels), ("words", slow.words)):
        found = report.levels[level]
        assert list(found.methods) == list(dict.fromkeys(method for _, _, method, _ in rows))
        assert found.pictures_with_words == len({number for number, _, _, _ in rows}) >= 4
        for method, score in found.methods.items():
            own = [(number, place, curves) for number, place, name, curves in rows if name == method]
            assert [(one.image_id, one.position) for one in found.words] == [(n, p) for n, p, _ in own]
            areas = [[_trapezoid(curve) for curve in curves] for _, _, curves in own]
            for one, expected in zip(found.words, areas, strict=True):
                assert one.areas[method] == pytest.approx(expected, abs=5e-6)  # single precision
            for curve, name in enumerate(("deletion", "insertion")):
                mean = float(np.mean([one[curve] for one in areas]))
                assert getattr(score, f"{name}_area").value == pytest.approx(mean, abs=1e-6)
                points = [[_at(curves[curve], step / STEPS) for step in range(STEPS + 1)] for _, _, curves in own]
                means = [sum(column) / len(points) for column in zip(*points, strict=True)]
                assert [one.value for one in getattr(score, name)] == pytest.approx(means, abs=1e-6)


def _trapezoid(curve: list[float]) -> float:
    return sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / (len(curve) - 1)


def _at(curve: list[float], share: float) -> float:
    place = share * (len(curve) - 1)
    below = min(int(place), len(curve) - 2)
    return curve[below] + (place - below) * (curve[below + 1] - curve[below])


def test_intervals_and_differences_are_those_of_drawn_pictures(report: FaithfulnessReport, slow: _Slow) -> None:
    def areas(method: str) -> list[tuple[int, float]]:
        return [(number, _trapezoid(curves[0])) for number, _, name, curves in slow.pixels if name == method]

    own, control = areas("lrp"), areas("random")
    apart = [(number, value - other) for (number, value), (_, other) in zip(own, control, strict=True)]
    score = report.levels["pixels"].methods["lrp"]
    for found, values in ((score.deletion_area, own), (score.deletion_to_random, apart)):
        assert found is not None
        means = []
        for times in draws(report.pictures, SEED):
            drawn = [value for number, value in values for _ in range(times[number - 1])]
            means.append(sum(drawn) / len(drawn))
        assert (found.low, found.high) == pytest.approx(np.percentile(means, (2.5, 97.5)), abs=1e-6)


@ONE_MODEL
def test_figures_do_not_depend_on_the_batch(
    folder: Path, model: Captioner, report: FaithfulnessReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capxai.recipes.analysis.faithfulness_pixels._PIXELS_AT_ONCE", 1)
    monkeypatch.setattr("capxai.recipes.analysis.faithfulness_words._NUMBERS_AT_ONCE", 1)
    alone = run(_config(folder, model, batch_size=1, pictures=6))
    for level, found in alone.levels.items():
        for one, other in zip(found.words, report.levels[level].words, strict=False):
            assert (one.image_id, one.position, one.word) == (other.image_id, other.position, other.word)
            for method, areas in one.areas.items():
                assert areas == pytest.approx(other.areas[method], abs=1e-6)


@ONE_MODEL
def test_equal_pictures_are_encoded_once(folder: Path, model: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    features = Captioner.features

    def counted(self: Captioner, images: Tensor) -> Tensor:
        if not images.requires_grad and not torch.is_grad_enabled():
            seen.extend(image.numpy().tobytes() for image in images)
        return features(self, images)

    monkeypatch.setattr(Captioner, "features", counted)
    run(_config(folder, model, level=("pixels",), method=("attention",), batch_size=4, pictures=4))
    changed = seen[4:]  # the first four are the pictures themselves, to be captioned
    assert len(changed) == len(set(changed)) > 20
    assert not set(changed) & set(seen[:4])


def test_sets_share_their_beginnings(folder: Path, model: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    image = normalized(model, folder / "corpus", 1)
    tokens = torch.tensor([[4, 5, 10, 4, 9]])
    readings = Readings(model, image, model.features(image).detach(), tokens, torch.tensor([5]))
    read = []
    step = Captioner.step
    monkeypatch.setattr(Captioner, "step", lambda self, *given: read.append(len(given[1])) or step(self, *given))  # type: ignore[func-returns-value]
    found = set_probabilities(readings, [(0, 0b1011, 4), (0, 0b1011, 4), (0, 0b0011, 3), (0, 0b0011, 4), (0, 0, 0)])
    assert read == [1, 1, 1, 1]  # nothing, word 0, words 0 and 1, words 0, 1 and 3
    assert len(found) == 4 and all(0 < one < 1 for one in found.values())


def test_files(folder: Path, model: Captioner, report: FaithfulnessReport) -> None:
    out = folder / f"out-{model.lineage['name']}"
    written = json.loads((out / REPORT_FILE).read_text())
    assert written == json.loads(json.dumps(report.to_json()))
    assert written["provenance"]["config"]["steps"] == STEPS and written["provenance"]["verb"] == "analyze faithfulness"
    assert written["levels"]["pixels"]["places"] == [0, 0.25, 0.5, 0.75, 1]
    with (out / WORDS_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(level.words) * len(level.methods) for level in report.levels.values())
    own = [float(row["deletion_area"]) for row in rows if (row["level"], row["method"]) == ("words", "lrp")]
    assert np.mean(own) == pytest.approx(report.levels["words"].methods["lrp"].deletion_area.value, abs=1e-5)
    assert {row["present"] for row in rows if row["level"] == "pixels"} == {"0", "1"}
    plots = {file.name for file in out.glob("*.png")}
    kinds = [f"faithfulness_{level}_{kind}" for level in report.levels for kind in ("deletion", "insertion")]
    assert plots == {f"{kind}{end}.png" for kind in kinds for end in ("", "_area")}
    assert not (out / "progress").exists()
    with pytest.raises(CapxaiError, match="--force"):
        run(_config(folder, model, out=out))


@ONE_MODEL
def test_a_stopped_run_goes_on(folder: Path, model: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, calls = recipe._Measurement.__call__, []

    def stopping(self: Any, look: Look) -> Any:
        calls.append(look.pictures[0].id)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(self, look)

    chosen: dict[str, Any] = {"method": ("attention", "gradient"), "pictures": 8, "batch_size": 2}
    straight = run(_config(folder, model, **chosen))
    monkeypatch.setattr(recipe._Measurement, "__call__", stopping)
    config = _config(folder, model, out=folder / f"stopped-{model.lineage['name']}", **chosen)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert calls == [1, 3, 5]
    with pytest.raises(ConfigError, match=r"other settings \(steps\)"):
        run(replace(config, steps=2))
    found = run(config)
    assert calls == [1, 3, 5, 5, 7]  # the first two batches were kept
    assert found.levels == straight.levels


@ONE_MODEL
def test_errors_say_what_to_do(folder: Path, model: Captioner) -> None:
    with pytest.raises(RelevanceError, match="Did you mean 'lrp'"):
        run(_config(folder, model, method=("lpr",)))
    with pytest.raises(RelevanceError, match=r"grad-cam, random only the control has relevance of words.*--method"):
        run(_config(folder, model, method=("grad-cam",), level=("words",)))
    with pytest.raises(ConfigError, match=r"No level.*\n.*block is 0.*\n.*exact is 20. Expected 16 or less"):
        FaithfulnessConfig(level=(), block=0, exact=20)


@ONE_MODEL
def test_a_model_that_names_nothing(folder: Path, model: Captioner, tmp_path: Path) -> None:
    other = copy.deepcopy(model)
    head = other.decoder.word_head.fc
    head.weight.data.zero_()
    head.bias.data = torch.tensor([5.0 if word == "near" else 0.0 for word in WORDS])
    save_model(other, tmp_path / "model")
    chosen: dict[str, Any] = {"preceding": 30, "method": ("attention",), "pictures": 3, "device": "cpu"}
    with pytest.raises(CorpusError, match=r"nothing to measure.*--set preceding=N"):
        run(FaithfulnessConfig(model=tmp_path / "model", corpus=folder / "corpus", **chosen))


@ONE_MODEL
def test_the_command(folder: Path, model: Captioner) -> None:
    name = str(model.lineage["name"])
    typed = ["analyze", "faithfulness", "--model", str(folder / name), "--corpus", str(folder / "corpus"), "--steps"]
    typed += ["2", "--method", "lrp", "--method", "attention", "--pictures", "3", "--quiet", "--device", "cpu"]
    table = CliRunner().invoke(app, typed)
    assert table.exit_code == 0, table.output
    assert "Blocks of pixels, before object words" in table.stdout and "insertion area" in table.stdout
    assert table.stdout.count("\nrandom ") == 2 and table.stdout.count("\nattention ") == 1
    found = json.loads(CliRunner().invoke(app, [*typed, "--level", "pixels", "--json"]).stdout)
    assert list(found["levels"]) == ["pixels"] and found["levels"]["pixels"]["places"] == [0, 0.5, 1]
    wrong = CliRunner().invoke(app, [*typed, "--level", "pixel"])
    assert wrong.exit_code == 1 and "Did you mean 'pixels'" in wrong.stderr
    assert "capxai analyze faithfulness --pictures 20" in CliRunner().invoke(app, [*typed[:2], "--help"]).stdout
