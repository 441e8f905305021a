"""Words of several pictures explained in one pass: the same as one picture at a time, whatever is asked for and in whichever order."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from small_models import DECODERS, features, picture, picture_model, small_model
from torch import Tensor

from capxai.explain import attribution, methods
from capxai.explain.attribution import Attribution, Reading, Readings, Words, attribute, attribute_words, record
from capxai.explain.methods import METHODS, Options, Request
from capxai.lrp.composites import GRADIENT, GUIDED_BACKPROP, Composite, lrp
from capxai.models.captioner import Captioner
from capxai.recipes.analysis.stream import padded

CAPTIONS = ((4, 6, 7, 8, 9), (4, 5, 6), (8, 9, 7, 4, 6, 5, 9))
"""Token ids; of three pictures, captions of five, three and seven words."""
COMPOSITES = {"lrp": lrp(), "gradient": GRADIENT, "guided": GUIDED_BACKPROP}
SIDE = 32
EXACT = 1e-10

same = functools.partial(torch.testing.assert_close, rtol=EXACT, atol=EXACT)


@functools.cache
def looked(decoder: str, seen: bool) -> Readings:
    """A float64 model reading three pictures, or stored features of three."""
    if seen:
        model = picture_model("compact", decoder, SIDE, torch.float64)
        images = torch.cat([picture(SIDE, torch.float64, seed) for seed in (2, 3, 4)])
        with torch.no_grad():
            return Readings(model, images, model.features(images), *padded(CAPTIONS, model))
    model = small_model(decoder)
    return Readings(model, None, features(count=3), *padded(CAPTIONS, model))


def alone(readings: Readings, row: int) -> Reading:
    images = None if readings.images is None else readings.images[row : row + 1]
    return Reading(readings.model, images, readings.features[row : row + 1], torch.tensor(CAPTIONS[row]))


def chosen(readings: Readings, places: list[tuple[int, int]]) -> Words:
    rows, steps = torch.tensor(places).T
    return Words(rows, steps, readings.tokens[rows, steps])


def parts(found: Attribution) -> dict[str, Tensor]:
    named = {"features": found.features, "words": found.words, "kept": found.kept}
    return named if found.pixels is None else {**named, "pixels": found.pixels}


@pytest.mark.parametrize("seen", [True, False], ids=["pixels", "features"])
@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_batch_is_its_pictures_one_by_one(decoder: str, name: str, seen: bool) -> None:
    readings = looked(decoder, seen)
    words = readings.all_words()
    together = attribute_words(readings, words, COMPOSITES[name])
    assert (together.pixels is not None) == seen
    for row, caption in enumerate(CAPTIONS):
        own = {key: values[words.rows == row] for key, values in parts(together).items()}
        vectors = own.pop("words")
        expected = attribute(alone(readings, row), COMPOSITES[name])
        for key, values in own.items():
            same(values, parts(expected)[key])
        same(vectors[:, : len(caption)], expected.words)
        assert not vectors[:, len(caption) :].any()
        assert own["features"].abs().max() > 0


@pytest.mark.parametrize("seen", [True, False], ids=["pixels", "features"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_relevance_and_what_is_kept_add_up_to_every_logit(decoder: str, seen: bool) -> None:
    readings = looked(decoder, seen)
    words = readings.all_words()
    found = attribute_words(readings, words, lrp())
    arrived = found.features if found.pixels is None else found.pixels
    total = arrived.flatten(1).sum(1) + found.words.flatten(1).sum(1) + found.kept.sum(1)
    for row in range(len(CAPTIONS)):
        with torch.no_grad():
            logits = torch.stack([step.logits[0] for step in alone(readings, row).unroll()])
        same(total[words.rows == row], logits.gather(1, torch.tensor(CAPTIONS[row])[:, None])[:, 0])
    assert found.kept.abs().max() > 0.01


@pytest.mark.parametrize("seen", [True, False], ids=["pixels", "features"])
@pytest.mark.parametrize("name", COMPOSITES)
def test_any_words_in_any_order_get_what_they_get_among_all(name: str, seen: bool) -> None:
    readings = looked("ada-lstm", seen)
    everything = readings.all_words()
    order = list(zip(everything.rows.tolist(), everything.places.tolist(), strict=True))
    whole = parts(attribute_words(readings, everything, COMPOSITES[name]))
    for places in ([(2, 6)], [(1, 2), (2, 0), (1, 0), (0, 4), (2, 6), (2, 3)], [(0, 1), (0, 1)], order[::-1]):
        found = parts(attribute_words(readings, chosen(readings, places), COMPOSITES[name]))
        for key, values in found.items():
            same(values, whole[key][[order.index(place) for place in places]])


def test_lanes_number_the_words_of_each_picture() -> None:
    words = chosen(looked("mh-fc", False), [(2, 0), (0, 1), (2, 4), (2, 1), (0, 0)])
    assert words.lanes.tolist() == [0, 0, 1, 2, 1]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ["lrp", "gradient"])  # guided backpropagation cuts what arrives, so it does not add up
def test_a_contrast_is_the_difference_of_two_words(name: str, decoder: str) -> None:
    readings = looked(decoder, True)
    why = chosen(readings, [(0, 1), (2, 5), (1, 2)])
    others = torch.tensor([9, 4, 7])
    found = parts(attribute_words(readings, replace(why, against=others), COMPOSITES[name]))
    first = parts(attribute_words(readings, why, COMPOSITES[name]))
    second = parts(attribute_words(readings, replace(why, tokens=others), COMPOSITES[name]))
    for key, values in found.items():
        same(values, first[key] - second[key])


@pytest.mark.parametrize("name", COMPOSITES)
def test_nothing_speaks_for_a_word_against_itself(name: str) -> None:
    readings = looked("mh-fc", True)
    why = chosen(readings, [(0, 1), (2, 5)])
    found = attribute_words(readings, replace(why, against=why.tokens), COMPOSITES[name])
    assert not any(values.any() for values in parts(found).values())


@pytest.mark.parametrize("decoder", DECODERS)
def test_what_stands_behind_a_caption_changes_nothing(decoder: str) -> None:
    readings = looked(decoder, True)
    longest = readings.tokens.shape[1]
    there = torch.arange(longest) < readings.lengths[:, None]
    tokens = torch.cat([torch.where(there, readings.tokens, 9), torch.full((3, 2), 5)], 1)
    longer = replace(readings, tokens=tokens)
    assert torch.equal(longer.all_words().rows, readings.all_words().rows)
    for composite in COMPOSITES.values():
        whole = parts(attribute_words(readings, readings.all_words(), composite))
        found = parts(attribute_words(longer, longer.all_words(), composite))
        assert not found["words"][:, longest:].any()
        for key, values in found.items():
            same(values[:, :longest] if key == "words" else values, whole[key])


def test_a_recorded_pass_is_used_for_its_own_rules_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = looked("ada-lstm", True)
    assert readings.images is not None
    taped = replace(readings, tape=record(readings.model, readings.images, lrp()))
    words = readings.all_words()
    expected = {name: parts(attribute_words(readings, words, COMPOSITES[name])) for name in ("lrp", "gradient")}
    recorded = counting(monkeypatch, attribution, "record")
    for name, passes in (("lrp", 0), ("gradient", 1)):
        found = parts(attribute_words(taped, words, COMPOSITES[name]))
        assert len(recorded) == passes
        for key, values in found.items():
            same(values, expected[name][key])


def counting(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[tuple[object, ...]]:
    """Note the arguments of every call of a function of a module."""
    calls: list[tuple[object, ...]] = []
    before: Callable[..., object] = getattr(module, name)

    def counted(*arguments: object) -> object:
        calls.append(arguments)
        return before(*arguments)

    monkeypatch.setattr(module, name, counted)
    return calls


@pytest.mark.parametrize(
    ("names", "passes"),
    [
        (("gradient", "gradient-x-input", "grad-cam"), [("gradient", True)]),
        (("grad-cam", "gradient"), [("gradient", False), ("gradient", True)]),
        (tuple(METHODS), [("lrp", True), ("gradient", True), ("guided-backprop", True)]),
    ],
)
def test_methods_that_go_back_alike_go_back_once(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], passes: list[tuple[str, bool]]
) -> None:
    readings = looked("mh-fc", True)
    words = chosen(readings, [(0, 1), (2, 2)])
    separate = {name: METHODS[name](Request(readings, words)) for name in names}
    calls = counting(monkeypatch, methods, "attribute_words")
    request = Request(readings, words)
    for name in names:
        found = METHODS[name](request)
        for array in ("pixels", "regions", "words", "kept"):
            expected = getattr(separate[name], array)
            assert (expected is None) == (getattr(found, array) is None)
            if expected is not None:
                assert torch.equal(getattr(found, array), expected)
    went = [(composite.name, pixels) for _, _, composite, pixels in calls if isinstance(composite, Composite)]
    assert went == passes


def test_noise_belongs_to_the_word_and_not_to_the_question() -> None:
    readings = looked("ada-lstm", True)
    seeds = (11, 12, 13)
    whole = METHODS["random"](Request(readings, readings.all_words(), seeds=seeds))
    order = list(
        zip(*(values.tolist() for values in (readings.all_words().rows, readings.all_words().places)), strict=True)
    )
    assert whole.pixels is not None and whole.regions is not None and whole.words is not None
    some = [(2, 3), (1, 0), (2, 6)]
    found = METHODS["random"](Request(readings, chosen(readings, some), seeds=seeds))
    places = [order.index(place) for place in some]
    for name in ("pixels", "regions", "words"):
        assert torch.equal(getattr(found, name), getattr(whole, name)[places])
    for row, seed in enumerate(seeds):
        single = METHODS["random"](Request.of(alone(readings, row), Options(seed=seed)))
        mine = readings.all_words().rows == row
        assert torch.equal(single.pixels, whole.pixels[mine]) and torch.equal(single.regions, whole.regions[mine])
        count = len(CAPTIONS[row])
        assert torch.equal(single.words, whole.words[mine][:, :count]) and not whole.words[mine][:, count:].any()
    assert not torch.equal(whole.pixels[0], whole.pixels[5])  # other noise for other pictures


def test_weights_need_gradients_again_afterwards() -> None:
    readings = looked("adaptive", True)
    model: Captioner = readings.model
    attribute_words(readings, readings.all_words(), lrp())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
