"""Statistics of object words: small maps and steps on paper, the word head against the relevance engine, and choosing among statistics."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import DECODERS, picture_model, picture_reading, reading, small_model

from capxai.data.annotations import Picture
from capxai.evaluate.bootstrap import draws
from capxai.evaluate.detection import Labels, roc_auc
from capxai.explain.methods import METHODS, Maps, Options
from capxai.lrp.attach import attached
from capxai.lrp.composites import lrp
from capxai.lrp.propagation import Ledger
from capxai.models.state import HeadInputs
from capxai.recipes.analysis.hallucination_scores import (
    GroupScore,
    fixed_of,
    group_of,
    half_of_pictures,
    held_out,
    score_groups,
    score_statistics,
)
from capxai.recipes.analysis.hallucination_statistics import (
    Level,
    head_statistics,
    map_statistics,
    method_statistics,
    step_statistics,
    usable,
    word_statistics,
)
from capxai.recipes.analysis.mentions import Mentioned
from capxai.recipes.analysis.stream import Facts, Look

PICTURE = Picture(7, Path("7.png"), 32, 32)


def test_a_map_on_paper() -> None:
    found = map_statistics(torch.tensor([[4.0, -2.0, 0.0, 1.0, 2.0], [-1.0, -1.0, -3.0, 0.0, 0.0]]).double())
    expected = {
        "mean": (1, -1),
        "positive mean": (7 / 3, 0),
        "absolute mean": (9 / 5, 1),
        "maximum": (4, 0),
        "minimum": (-2, -3),
        "sum": (5, -5),
        "concentration": (4 / 7, 0),
        # In order -2 0 1 2 4 and -3 -1 -1 0 0; 5 % lies a fifth of the way from the first to the second.
        "quantile 5": (-2 + 0.2 * 2, -3 + 0.2 * 2),
        "quantile 25": (0, -1),
        "quantile 50": (1, -1),
        "quantile 75": (2, 0),
        "quantile 95": (2 + 0.8 * 2, 0),
    }
    assert {name: tuple(values.tolist()) for name, values in found.items()} == {
        name: pytest.approx(values) for name, values in expected.items()
    }


def test_a_map_of_one_region() -> None:
    found = map_statistics(torch.tensor([[3.0]]).double())
    assert {values.item() for values in found.values()} == {3.0, 1.0}  # 1: concentration


def test_shares_on_paper() -> None:
    maps = Maps(
        regions=torch.tensor([[3.0, 3.0]]), words=torch.tensor([[-1.0, -1.0]]), kept=torch.tensor([[1.0, 3.0, 0.0]])
    )
    assert maps.regions is not None
    found = method_statistics("lrp", maps, {"regions": maps.regions}, torch.tensor([8.0]).double())
    assert found["lrp regions share"].item() == 6 / 8
    assert found["lrp words sum"].item() == -2
    assert found["lrp words share"].item() == -2 / 8
    assert found["lrp regions against words"].item() == 6 / (6 + 2)  # signs do not cancel
    assert (found["lrp bias share"].item(), found["lrp eps share"].item()) == (1 / 8, 3 / 8)
    zero = method_statistics("lrp", maps, {"regions": maps.regions * 0}, torch.tensor([0.0]).double())
    assert zero["lrp regions share"].item() == zero["lrp words share"].item() == 0


def test_attention_has_no_statistics_that_cannot_vary() -> None:
    weights = torch.tensor([[0.5, 0.3, 0.2]])
    names = list(method_statistics("attention", Maps(regions=weights), {"regions": weights}, torch.ones(1).double()))
    assert "attention regions maximum" in names and "attention regions quantile 50" in names
    assert not {"attention regions mean", "attention regions sum", "attention words sum"} & set(names)


def _look(decoder: str, *readings: tuple[int, ...]) -> Look:
    """A model of stored features reading captions of pictures that nobody needs."""
    together = reading(small_model(decoder), readings[0]).together()
    return Look((PICTURE,), ("",), together)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_step_against_loops(decoder: str) -> None:
    look = _look(decoder, (4, 6, 7, 8))
    words = look.words([0, 0], [1, 3])
    found = step_statistics(look, words)
    for each, place in enumerate((1, 3)):
        step = look.readings.unroll()[place]
        logits, token = step.logits[0].tolist(), int(look.readings.tokens[0, place])
        total = sum(math.exp(value) for value in logits)
        chances = [math.exp(value) / total for value in logits]
        heads = step.attention[0].reshape(-1, 6).tolist()  # one head or two
        weights = [sum(head[k] for head in heads) / len(heads) for k in range(6)]
        expected = {
            "probability": chances[token],
            "logit": logits[token],
            "margin": logits[token] - max(value for other, value in enumerate(logits) if other != token),
            "entropy": -sum(chance * math.log(chance) for chance in chances),
            "attention maximum": max(weights),
            "attention entropy": -sum(weight * math.log(weight) for weight in weights),
        }
        if decoder != "mh-fc":
            assert step.sentinel is not None
            expected["1 - beta"] = 1 - step.sentinel.item()
        assert {name: values[each].item() for name, values in found.items()} == pytest.approx(expected)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_word_head_against_the_engine_and_loops(decoder: str) -> None:
    look = _look(decoder, (4, 6, 7, 8))
    words = look.words([0, 0, 0], [0, 1, 3])
    found = head_statistics(look, words, 0.01)
    inputs, head = look.facts.head_inputs, look.readings.model.decoder.word_head
    for each, place in enumerate((0, 1, 3)):
        token = int(look.readings.tokens[0, place])
        leaves = [part[:, place].detach().requires_grad_() for part in (inputs.context, inputs.hidden)]
        with attached(look.readings.model, lrp(0.01), Ledger(1, torch.device("cpu"))):
            logits = look.readings.model.speak(HeadInputs(*leaves))
        logit = logits[0, token].item()
        start = torch.zeros_like(logits)
        start[0, token] = logit
        context, hidden = (part.sum().item() for part in torch.autograd.grad(logits, leaves, start))
        assert found["word head context share"][each].item() == pytest.approx(context / logit)
        assert found["word head hidden share"][each].item() == pytest.approx(hidden / logit)
        by_hand = 0.0
        for unit in range(4):
            c, x = leaves[0][0, unit].item(), leaves[0][0, unit].item() + leaves[1][0, unit].item()
            weight = head.fc.weight[token, unit].item()
            up = 0.01 if logit >= 0 else -0.01
            by_hand += c / (x + (0.01 if x >= 0 else -0.01)) * x * weight / (logit + up)
        assert found["word head context share"][each].item() == pytest.approx(by_hand)
        balance = abs(context) / (abs(context) + abs(hidden))
        assert found["word head context against hidden"][each].item() == pytest.approx(balance)


def test_an_input_of_nothing_has_no_share() -> None:
    look = _look("ada-lstm", (4, 6))
    zeros = torch.zeros_like(look.facts.head_inputs.context)
    look.__dict__["facts"] = Facts(look.facts.logits * 0, look.facts.attention, None, HeadInputs(zeros, zeros))
    found = head_statistics(look, look.words([0], [0]), 0.0)
    assert [values.item() for values in found.values()] == [0, 0, 0]


def _picture_look() -> Look:
    model = picture_model("compact", "ada-lstm", 32, torch.float32)
    return Look((PICTURE,), ("a car on the road",), picture_reading(model).together())


WORDS = [Mentioned(0, 1, 1, "car", "car", True), Mentioned(0, 3, 4, "the road", "road", False)]


def test_names_and_levels() -> None:
    look, options = _picture_look(), Options(seed=3)
    both = word_statistics(look, WORDS, list(METHODS), options)
    assert len(both) == 2 and list(both[0]) == list(both[1])
    assert {type(value) for value in both[0].values()} == {float}
    assert all(math.isfinite(value) for one in both for value in one.values())
    assert {"lrp pixels mean", "lrp regions share", "gradient words sum", "1 - beta", "random pixels sum"} <= set(
        both[0]
    )
    assert "grad-cam pixels mean" not in both[0] and "attention pixels maximum" not in both[0]  # their regions, spread
    assert word_statistics(look, [], ["lrp"], options) == []
    methods = list(METHODS)
    assert "guided-grad-cam" not in usable(methods, ("regions",)) and usable(methods, ("pixels",)) == tuple(methods)
    for level in ("pixels", "regions"):
        alone = word_statistics(look, WORDS, methods, options, _levels(level))
        assert not any(f" {'regions' if level == 'pixels' else 'pixels'} " in name for name in alone[0])
        for one, known in zip(alone, both, strict=True):
            # Without pixels the control draws other noise, and what the encoder keeps is not counted.
            shared = [key for key in one if key in known and not key.startswith("random") and key != "lrp eps share"]
            assert len(shared) > 50
            assert {key: one[key] for key in shared} == pytest.approx({key: known[key] for key in shared}, abs=1e-6)


def _levels(level: str) -> tuple[Level, ...]:
    return ("pixels",) if level == "pixels" else ("regions",)


def test_maps_of_zeros_have_the_same_names() -> None:
    look = _picture_look()
    names = set(word_statistics(look, WORDS, ["lrp", "gradient"])[0])
    look.readings.model.decoder.word_head.fc.weight.data.zero_()
    found = word_statistics(look, WORDS, ["lrp", "gradient"])[0]
    assert set(found) == names and found["lrp pixels sum"] == found["gradient regions maximum"] == 0


def test_without_pixels_nothing_goes_through_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the encoder was asked")

    monkeypatch.setattr("capxai.explain.attribution._through_encoder", refuse)
    assert word_statistics(_picture_look(), WORDS, ["lrp", "gradient"], None, ("regions",))
    with pytest.raises(AssertionError, match="the encoder was asked"):
        word_statistics(_picture_look(), WORDS, ["lrp"])


def test_the_word_of_a_name_that_is_explained() -> None:
    look = _picture_look()
    first, last = (word_statistics(look, WORDS, ["lrp"], name_word=one) for one in ("first", "last"))
    assert first[0] == last[0]  # a name of one word
    logits = look.facts.logits[0]
    assert first[1]["logit"] == pytest.approx(logits[3, look.readings.tokens[0, 3]].item())
    assert last[1]["logit"] == pytest.approx(logits[4, look.readings.tokens[0, 4]].item())


def test_groups_of_statistics() -> None:
    names = {
        "lrp regions mean": "lrp",
        "grad-cam pixels quantile 5": "grad-cam",
        "lrp words share": "lrp",
        "lrp eps share": "lrp",
        "attention maximum": "step",
        "attention regions maximum": "attention",
        "1 - beta": "step",
        "word head context share": "word head",
    }
    assert {name: group_of(name) for name in names} == names
    assert fixed_of("lrp", ["lrp pixels maximum", "lrp pixels mean", "lrp regions mean"]) == "lrp regions mean"
    assert fixed_of("lrp", ["lrp pixels maximum", "lrp pixels mean"]) == "lrp pixels mean"
    assert (
        fixed_of("attention", ["attention regions minimum", "attention regions maximum"]) == "attention regions maximum"
    )


def _labels(pictures: int) -> Labels:
    # Each picture has a true and a hallucinated word of the same category.
    places = [number // 2 for number in range(2 * pictures)]
    return Labels.of([True, False] * pictures, places, ["car" if place % 2 else "dog" for place in places])


def test_the_best_of_many_owes_something_to_luck() -> None:
    labels = _labels(100)
    noise = np.random.default_rng(0).normal(size=(200, 60))
    names = [f"random regions quantile {number}" for number in range(60)]
    scores = score_statistics(names, noise, labels, draws(100, 0, 50), lambda amount: None)
    assert [score.auc.value for score in scores.values() if score.auc] == sorted(
        (score.auc.value for score in scores.values() if score.auc), reverse=True
    )
    found = score_groups(scores, names, noise, labels, seed=0)["random"]
    assert found.tried == 60 and found.fixed == names[0]
    assert found.best == next(iter(scores)) and found.best_within is not None
    best = scores[found.best].auc
    assert best is not None and best.value > 0.57
    assert found.chosen_auc is not None and found.chosen_auc < 0.53  # what choosing is worth
    assert found.chosen_within is not None and found.chosen_within < 0.53


def test_choosing_by_halves_on_paper() -> None:
    labels = _labels(10)
    half = half_of_pictures(labels, 4)
    assert half.sum() == 10 and {len({bool(half[2 * n]), bool(half[2 * n + 1])}) for n in range(10)} == {1}
    truth = labels.positive.astype(float)
    # The first column is right on one half and wrong on the other: it is chosen where it is right, and fails on the other half.
    # The second is constant, 0.5 everywhere, and is chosen by the other half.
    turncoat = np.where(half, truth, -truth)
    table = np.stack([turncoat, np.zeros(20)], axis=1)
    assert roc_auc(turncoat, labels.positive) == 0.5
    assert held_out(table, labels.pooled(), half) == pytest.approx((0.0 + 0.5) / 2)
    assert held_out(table[:0], Labels.of([], [], []), half[:0]) is None


def test_without_one_class_there_are_names_and_no_areas() -> None:
    labels = Labels.of([True, True], [0, 1], ["car", "car"])
    table = np.array([[1.0], [2.0]])
    scores = score_statistics(["lrp regions mean"], table, labels, draws(2, 0, 10), lambda amount: None)
    assert scores["lrp regions mean"].to_json() == {"group": "lrp", "auc": None, "within": None}
    found = score_groups(scores, ["lrp regions mean"], table, labels, seed=0)
    assert found == {"lrp": GroupScore(1, "lrp regions mean", None, None, None, None)}
