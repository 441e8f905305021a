"""Every method on every decoder: what it computes, what it returns, and what it refuses."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_models import CAPTION, DECODERS, reading, small_model
from tiny_captioner import WORDS, tiny_captioner
from torch import Tensor, nn

import capxai
from capxai.errors import RelevanceError, VocabularyError
from capxai.explain.attribution import Reading, attribute
from capxai.explain.explainer import read
from capxai.explain.explanation import Explanation
from capxai.explain.methods import METHODS, Maps, Options, Request, find_method, region_grid, register_method
from capxai.lrp.composites import lrp
from capxai.models.encoders.base import Encoder

TEXT = "a car on the road"
ARRAYS = {
    "lrp": {"pixel", "region", "word", "bias", "eps"},
    "gradient": {"pixel", "region", "word"},
    "gradient-x-input": {"pixel", "region", "word"},
    "guided-backprop": {"pixel", "region", "word"},
    "grad-cam": {"pixel", "region"},
    "guided-grad-cam": {"pixel"},
    "attention": {"pixel", "region"},
    "random": {"pixel", "region", "word"},
}


def photograph(height: int = 40, width: int = 56) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@functools.cache
def explanations(decoder: str) -> dict[str, Explanation]:
    model = tiny_captioner(decoder)
    return {method: capxai.explain(model, photograph(), method, TEXT) for method in METHODS}


@functools.cache
def looked(decoder: str) -> Reading:
    model = tiny_captioner(decoder)
    return read(model, model.preprocessing.resize(photograph()), TEXT)


def test_the_registry_is_the_interface() -> None:
    assert list(METHODS) == list(ARRAYS)


@pytest.mark.parametrize("method", ARRAYS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_shapes_types_and_values(decoder: str, method: str) -> None:
    found, model = explanations(decoder)[method], tiny_captioner(decoder)
    size, regions, words = model.preprocessing.image_size, model.specification.regions, len(CAPTION)
    shapes = {"pixel": (words, size, size), "region": (words, regions), "word": (words, words)}
    shapes |= {"bias": (words,), "eps": (words,), "other_heads": (words,)}
    for name, shape in shapes.items():
        array = getattr(found, f"{name}_relevance")
        if name not in ARRAYS[method]:
            assert array is None, name
            continue
        assert array.shape == shape and array.dtype == np.float32
        assert np.isfinite(array).all() and np.abs(array).max() > 0
    if found.word_relevance is not None:
        assert (np.triu(found.word_relevance, 1) == 0).all()
    assert found.method == method and found.grid == (4, 4)
    assert found.image.shape == (size, size, 3) and found.image.dtype == np.uint8


@pytest.mark.parametrize("decoder", DECODERS)
def test_all_methods_explain_the_same_caption_of_the_same_model(decoder: str) -> None:
    model, plainly = tiny_captioner(decoder), looked(decoder).unroll()
    for found in explanations(decoder).values():
        assert found.tokens == tuple(TEXT.split()) and found.token_ids.tolist() == list(CAPTION)
        assert found.token_ids.dtype == np.int64
        for t, step in enumerate(plainly):
            logits = step.logits[0].detach()
            assert found.logits[t] == logits[CAPTION[t]].item()
            assert found.probability[t] == pytest.approx(logits.softmax(0)[CAPTION[t]].item(), abs=1e-7)
            assert np.array_equal(found.attention[t], step.attention[0].detach().numpy())
            assert (found.sentinel is None) == (step.sentinel is None)
            assert step.sentinel is None or found.sentinel[t] == step.sentinel.item()
    heads = (model.specification.heads,) if decoder == "mh-fc" else ()
    assert found.attention.shape == (len(CAPTION), *heads, model.specification.regions)


@pytest.mark.parametrize("decoder", DECODERS)
def test_all_methods_explain_the_models_own_caption_when_none_is_given(decoder: str) -> None:
    model = tiny_captioner(decoder)
    said = model.caption(photograph())
    for method in METHODS:
        assert capxai.explain(model, photograph(), method).caption == said


@pytest.mark.parametrize("decoder", DECODERS)
def test_lrp_adds_up_to_the_logits(decoder: str) -> None:
    found = explanations(decoder)["lrp"]
    attributed = attribute(looked(decoder), lrp())
    assert attributed.pixels is not None
    np.testing.assert_allclose(found.pixel_relevance, attributed.pixels.sum(1).numpy(), rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.region_relevance, attributed.features.sum(2).numpy(), rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.word_relevance, attributed.words.sum(2).numpy(), rtol=0, atol=1e-7)
    total = found.pixel_relevance.sum((1, 2)) + found.word_relevance.sum(1) + found.bias_relevance + found.eps_relevance
    np.testing.assert_allclose(total, found.logits, rtol=1e-4)


def derivatives(decoder: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Derivatives of each word's logit by pixels, features and words, from autograd alone, one word at a time."""
    view = looked(decoder)
    assert view.images is not None
    images, words = view.images.clone().requires_grad_(), view.model.embed(view.inputs).detach().requires_grad_()
    memory = view.model.encode(images)
    steps = view.model.unroll(memory, lambda t, _: words[None, t], len(CAPTION))
    for step, token in zip(steps, CAPTION, strict=True):
        yield torch.autograd.grad(step.logits[0, token], (images, memory.features, words), retain_graph=True)


def same(found: object, expected: Tensor) -> None:
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(
        found, expected.detach().numpy(), rtol=0, atol=1e-5 * expected.detach().abs().max().item()
    )


@pytest.mark.parametrize("decoder", DECODERS)
def test_gradients_are_autograds(decoder: str) -> None:
    found, view = explanations(decoder), looked(decoder)
    vectors = view.model.embed(view.inputs)
    for t, (pixels, features, words) in enumerate(derivatives(decoder)):
        plainly, product, cam = found["gradient"], found["gradient-x-input"], found["grad-cam"]
        same(plainly.pixel_relevance[t], pixels[0].sum(0))
        same(plainly.region_relevance[t], features[0].sum(1))
        same(plainly.word_relevance[t], words.sum(1))
        same(product.pixel_relevance[t], (pixels * view.images)[0].sum(0))
        same(product.region_relevance[t], (features * view.features)[0].sum(1))
        same(product.word_relevance[t], (words * vectors).sum(1))
        weights = [sum(features[0, k, c] for k in range(16)) / 16 for c in range(features.shape[2])]
        by_hand = torch.stack(
            [sum(w * x for w, x in zip(weights, view.features[0, k], strict=True)) for k in range(16)]
        )
        same(cam.region_relevance[t], by_hand.clamp(min=0))
        assert (cam.region_relevance >= 0).all()


@pytest.mark.parametrize("decoder", DECODERS)
def test_guided_backpropagation_clips_the_derivative_at_every_relu(decoder: str) -> None:
    model = looked(decoder).model
    hooks = [module.register_full_backward_hook(lambda _, inner, outer: (inner[0] * (outer[0] > 0),))
             for module in model.modules() if isinstance(module, nn.ReLU)]  # fmt: skip
    expected = list(derivatives(decoder))
    for hook in hooks:
        hook.remove()
    found = explanations(decoder)["guided-backprop"]
    for t, (pixels, features, words) in enumerate(expected):
        same(found.pixel_relevance[t], pixels[0].sum(0))
        same(found.region_relevance[t], features[0].sum(1))
        same(found.word_relevance[t], words.sum(1))
    product = explanations(decoder)["grad-cam"].pixel_relevance * found.pixel_relevance
    np.testing.assert_allclose(explanations(decoder)["guided-grad-cam"].pixel_relevance, product, rtol=1e-6)


def bilinear(grid: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """Interpolate between the centers of the cells; beyond the outermost centers their value holds."""
    cells, result = len(grid), np.zeros((size, size))
    for y in range(size):
        for x in range(size):
            places = [min(max((place + 0.5) * cells / size - 0.5, 0), cells - 1) for place in (y, x)]
            (top, left), (down, across) = [math.floor(p) for p in places], [p - math.floor(p) for p in places]
            bottom, right = min(top + 1, cells - 1), min(left + 1, cells - 1)
            upper = grid[top, left] * (1 - across) + grid[top, right] * across
            lower = grid[bottom, left] * (1 - across) + grid[bottom, right] * across
            result[y, x] = upper * (1 - down) + lower * down
    return result


@pytest.mark.parametrize("decoder", DECODERS)
def test_attention_is_the_mean_over_heads_upsampled(decoder: str) -> None:
    found = explanations(decoder)["attention"]
    attention = found.attention if found.attention.ndim == 2 else found.attention.mean(1)
    np.testing.assert_allclose(found.region_relevance, attention, rtol=1e-6)
    np.testing.assert_allclose(found.region_relevance.sum(1), 1, rtol=1e-5)
    for name in ("attention", "grad-cam"):
        maps = explanations(decoder)[name]
        by_hand = bilinear(maps.region_relevance[2].reshape(4, 4), 32)
        np.testing.assert_allclose(maps.pixel_relevance[2], by_hand, rtol=0, atol=1e-6 * by_hand.max())


def test_random_is_reproducible_by_its_seed_and_leaves_the_global_state_alone() -> None:
    model, state = tiny_captioner(), torch.random.get_rng_state()
    first, again, other = (
        capxai.explain(model, photograph(), "random", TEXT, options=Options(seed=seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    for name in ("pixel_relevance", "region_relevance", "word_relevance"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))
    assert abs(first.pixel_relevance.mean()) < 0.1 and abs(first.pixel_relevance.std() - 1) < 0.1


def test_one_head_leaves_the_others_out_and_says_so() -> None:
    model = tiny_captioner("mh-fc")
    everything = explanations("mh-fc")["lrp"]
    for head in range(2):
        found = capxai.explain(model, photograph(), "lrp", TEXT, head=head)
        total = found.pixel_relevance.sum((1, 2)) + found.word_relevance.sum(1)
        total = total + found.bias_relevance + found.eps_relevance + found.other_heads_relevance
        np.testing.assert_allclose(total, found.logits, rtol=1e-4)
        assert not np.allclose(found.region_relevance, everything.region_relevance, rtol=1e-2)
    assert everything.other_heads_relevance is None


@pytest.mark.parametrize("name", ["mh-fc", "ada-lstm"])
def test_a_float64_model_explains_itself_alike(name: str) -> None:
    found = capxai.explain(tiny_captioner(name).double(), photograph(), "lrp", TEXT)
    for part in ("pixel_relevance", "region_relevance", "word_relevance"):
        expected = getattr(explanations(name)["lrp"], part)
        np.testing.assert_allclose(getattr(found, part), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_explaining_a_model_in_training_mode_puts_it_back() -> None:
    model = tiny_captioner().train()
    model.decoder.lstm.eval()
    before = [module.training for module in model.modules()]
    found = capxai.explain(model, photograph(), "lrp", TEXT)
    assert [module.training for module in model.modules()] == before
    assert np.array_equal(found.pixel_relevance, explanations("ada-lstm")["lrp"].pixel_relevance)


def test_regions_fit_pictures_whose_size_the_stride_does_not_divide() -> None:
    model = tiny_captioner("mh-fc")
    for size, padding, side in ((32, 0, 4), (36, 1, 5), (36, 0, 5), (33, 0, 4)):
        layers = nn.Sequential(nn.Conv2d(3, 112, 4 if size != 33 else 8, 8, padding), nn.ReLU())
        model.encoder = Encoder(layers)
        model.encoder.stride = 8
        images = torch.randn(1, 3, size, size)
        view = Reading(model, images, model.features(images).detach(), torch.tensor(CAPTION))
        assert region_grid(view) == (side, side)
        maps = METHODS["attention"](Request.of(view))
        assert maps.pixels is not None and maps.pixels.shape == (len(CAPTION), size, size)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"guided-grad-cam"}))
def test_a_model_of_stored_features_is_explained_without_pixels(method: str) -> None:
    maps = METHODS[method](Request.of(reading(small_model("mh-fc"))))
    assert maps.pixels is None and maps.regions is not None and torch.isfinite(maps.regions).all()


def test_what_a_model_cannot_give_is_refused() -> None:
    stored = reading(small_model("mh-fc"))
    with pytest.raises(RelevanceError, match="stored features. Use grad-cam"):
        METHODS["guided-grad-cam"](Request.of(stored))
    with pytest.raises(RelevanceError, match="z-box is a rule for the first convolution, but the model has none"):
        METHODS["lrp"](Request.of(stored, Options(z_box=True)))


@pytest.mark.parametrize(
    ("decoder", "options", "message"),
    [
        ("mh-fc", Options(head=2), "Head 2 was asked for, but the model has 2 attention heads (numbered from 0)"),
        ("mh-fc", Options(head=-1), "Head -1 was asked for"),
        ("ada-lstm", Options(head=1), "the model has 1 attention head (numbered from 0)"),
        ("ada-lstm", Options(eps=-0.1), "eps is -0.1, but it must be finite and not negative"),
        ("ada-lstm", Options(eps=math.nan), "eps is nan"),
        ("ada-lstm", Options(alpha=2, beta=0), "alpha 2 and beta 0 do not conserve relevance"),
        ("ada-lstm", Options(alpha=2, beta=1, gamma=0.25), "Both gamma 0.25 and alpha 2 beta 1 were asked for"),
        ("ada-lstm", Options(gamma=-0.5), "gamma is -0.5"),
    ],
)
def test_options_that_make_no_sense_are_refused(decoder: str, options: Options, message: str) -> None:
    with pytest.raises(RelevanceError) as caught:
        capxai.explain(tiny_captioner(decoder), photograph(), "lrp", TEXT, options=options)
    assert message in str(caught.value)


def test_unknown_words_and_methods_are_named() -> None:
    model = tiny_captioner()
    with pytest.raises(VocabularyError, match=r"'giraffe'"):
        capxai.explain(model, photograph(), "lrp", "a giraffe on the road")
    with pytest.raises(VocabularyError, match="no word"):
        capxai.explain(model, photograph(), "lrp", " ")
    with pytest.raises(RelevanceError) as caught:
        capxai.explain(model, photograph(), "lpr", TEXT)
    assert str(caught.value) == f"Unknown method 'lpr'. Choose one of: {', '.join(METHODS)}. Did you mean 'lrp'?"
    assert all(word in WORDS for word in TEXT.split())


def test_a_method_is_registered_once() -> None:
    with pytest.raises(RelevanceError, match="A method named 'lrp' is registered already"):
        register_method("lrp", lambda request: Maps())
    register_method("nothing", lambda request: Maps())
    try:
        assert find_method("nothing")(Request.of(looked("adaptive"))) == Maps()
    finally:
        del METHODS["nothing"]
