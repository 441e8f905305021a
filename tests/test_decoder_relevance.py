"""Relevance of whole decoders against slow replicas, gradients and invariances; float64, models of a few units."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import plain_decoders as plain
import plain_relevance
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import CAPTION, DECODERS, REGIONS, features, picture_model, picture_reading, reading, small_model
from torch import Tensor, nn

from capxai.explain.attribution import Attribution, Reading, attribute
from capxai.layers.structure import Gate, WeightedSum
from capxai.lrp.attach import attached
from capxai.lrp.composites import GRADIENT, lrp
from capxai.lrp.propagation import Kept, Ledger, Node
from capxai.lrp.rules import Call, Rule
from capxai.models.captioner import Captioner


def replica(name: str, read: Reading, t: int, eps: float = 0.01, head: int | None = None) -> plain_relevance.Found:
    weights, regions = plain.weights_of(read.model.decoder), read.features[0].numpy()
    words = read.model.embed(read.inputs).detach().numpy()
    records = plain.unroll(name, weights, regions, words, read.model.specification.published_query_axis)
    explained = t, int(read.tokens[t])
    if name == "mh-fc":
        return plain_relevance.multi_head(weights, regions, records, explained, eps, head)
    return plain_relevance.adaptive(weights, regions, records, explained, eps)


def assert_equals_replica(found: Attribution, name: str, read: Reading, eps: float, head: int | None = None) -> None:
    for t in range(len(read.tokens)):
        expected = replica(name, read, t, eps, head)
        np.testing.assert_allclose(found.features[t].numpy(), expected.features, rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.words[t].numpy(), expected.words, rtol=0, atol=1e-10)
        kept = [expected.bias, expected.eps, expected.other_heads]
        np.testing.assert_allclose(found.kept[t].numpy(), kept, rtol=0, atol=1e-10)


@pytest.mark.parametrize("eps", [0.01, 0.3])
@pytest.mark.parametrize("name", DECODERS)
def test_whole_decoders_equal_their_slow_replica(name: str, eps: float) -> None:
    for seed in range(2):
        read = reading(small_model(name, seed=seed), regions=features(seed + 5))
        assert_equals_replica(attribute(read, lrp(eps)), name, read, eps)


def test_an_imported_query_axis_changes_weights_not_rules() -> None:
    read = reading(small_model("ada-lstm", published=True))
    assert_equals_replica(attribute(read, lrp()), "ada-lstm", read, 0.01)


@pytest.mark.parametrize("head", [0, 1])
def test_one_head_equals_its_slow_replica(head: int) -> None:
    read = reading(small_model("mh-fc"))
    assert_equals_replica(attribute(read, lrp(head=head)), "mh-fc", read, 0.01, head)


class KeepAll(Rule):
    """Let nothing through and account for it as other heads."""

    def bind(self, call: Call) -> tuple[tuple[Tensor, ...], Node]:
        return call.inputs, lambda x: (call.forward(x), lambda r: ((torch.zeros_like(x),), Kept(other_heads=r)))


def test_heads_add_up_to_all_of_them() -> None:
    # With P what comes past the heads and H_n what comes through head n: all = P + H_0 + H_1 and head n alone = P + H_n.
    read = reading(small_model("mh-fc"))
    everything, zero, one = (attribute(read, lrp(head=head)) for head in (None, 0, 1))
    past = attribute(read, lrp().preceded_by(("decoder.merge_heads", KeepAll())))
    for name in ("features", "words"):
        through = [getattr(found, name) - getattr(past, name) for found in (zero, one)]
        rebuilt = getattr(past, name) + through[0] + through[1]
        assert (rebuilt - getattr(everything, name)).abs().max() < 1e-12
        assert name == "words" or min(part.abs().max() for part in through) > 1e-3
    assert torch.allclose(zero.kept[:, 2] + one.kept[:, 2], past.kept[:, 2], rtol=0, atol=1e-12)
    assert everything.kept[:, 2].abs().max() == 0


class ConstantGate(Gate):
    """A gate whose derivative goes to the signal alone."""

    def forward(self, gate: Tensor, signal: Tensor) -> Tensor:
        return super().forward(gate.detach(), signal)


class ConstantWeights(WeightedSum):
    """A weighted sum whose derivative goes to the values alone."""

    def forward(self, weights: Tensor, values: Tensor) -> Tensor:
        return super().forward(weights.detach(), values)


def linearize(model: Captioner) -> None:
    """Make relevance without eps comparable with derivatives: gates and attention constant, no tanh, no bias."""
    for module in list(model.modules()):
        if isinstance(module, Gate):
            module.__class__ = ConstantGate
        elif isinstance(module, WeightedSum):
            module.__class__ = ConstantWeights
        for name, child in module.named_children():
            if isinstance(child, nn.Tanh):
                setattr(module, name, nn.Identity())


@pytest.mark.parametrize("name", DECODERS)
def test_without_biases_and_eps_relevance_is_gradient_times_input(name: str) -> None:
    model = small_model(name, biased=False)
    linearize(model)
    read = reading(model)
    relevance, gradient = attribute(read, lrp(eps=0.0)), attribute(read, GRADIENT)
    vectors = model.embed(read.inputs).detach()
    assert (relevance.features - gradient.features * read.features).abs().max() < 1e-8
    assert (relevance.words - gradient.words * vectors).abs().max() < 1e-8
    assert relevance.features.abs().max() > 0.1 and relevance.words.abs().max() > 0.1
    assert relevance.kept.abs().max() == 0
    shrinking = [attribute(read, lrp(eps=eps)).features - relevance.features for eps in (1e-4, 1e-12)]
    assert shrinking[0].abs().max() > 1e-6 > 1e-8 > shrinking[1].abs().max()


@pytest.mark.parametrize("name", DECODERS)
def test_the_account_closes_in_float64(name: str) -> None:
    for seed in range(4):
        read = reading(small_model(name, seed=seed))
        found = attribute(read, lrp())
        logits = torch.stack([step.logits[0, token] for step, token in zip(read.unroll(), read.tokens, strict=True)])
        total = found.features.sum((1, 2)) + found.words.sum((1, 2)) + found.kept.sum(1)
        assert (total - logits).abs().max() < 1e-10 * logits.abs().max()
        assert found.kept[:, :2].abs().max() > 1e-3


@pytest.mark.parametrize("name", DECODERS)
def test_no_word_is_explained_by_a_later_one(name: str) -> None:
    found = attribute(reading(small_model(name)), lrp())
    for t in range(len(CAPTION)):
        assert (found.words[t, t + 1 :] == 0).all()
        assert (found.words[t, : t + 1].abs().sum(1) > 0).all()


LONG = (4, 5, 6, 7, 8, 9, 4, 6, 5, 6, 7, 8, 3)
"""Thirteen words: more than go through the encoder at once."""


def one_at_a_time(read: Reading) -> Iterator[tuple[Tensor, ...]]:
    """Explain each word by a plain backward pass of its own, through one graph from its logit to the pixels."""
    model = read.model
    assert read.images is not None
    images, words = read.images.clone().requires_grad_(), model.embed(read.inputs).detach().requires_grad_()
    ledger = Ledger(1, images.device)
    with attached(model, lrp(), ledger):
        memory = model.encode(images)
        steps = model.unroll(memory, lambda t, _: words[None, t], len(read.tokens))
    for step, token in zip(steps, read.tokens, strict=True):
        start = torch.zeros_like(step.logits)
        start[0, token] = step.logits[0, token].detach()
        leaves = images, memory.features, words, ledger.account
        yield torch.autograd.grad(step.logits, leaves, start, retain_graph=True)


@pytest.mark.parametrize("name", DECODERS)
def test_all_words_at_once_equal_one_at_a_time(name: str) -> None:
    read = picture_reading(picture_model("compact", name, 32, torch.float32), LONG)
    found = attribute(read, lrp())
    assert found.pixels is not None
    together = found.pixels, found.features, found.words, found.kept
    for t, expected in enumerate(one_at_a_time(read)):
        for ours, theirs in zip(together, expected, strict=True):
            assert (ours[t] - theirs.reshape(ours[t].shape)).abs().max() < 1e-5 * theirs.abs().max()


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(REGIONS)), name=st.sampled_from(DECODERS), seed=st.integers(0, 3))
def test_permuted_regions_permute_their_relevance(order: list[int], name: str, seed: int) -> None:
    model, regions = small_model(name, seed=seed), features(seed)
    plainly, permuted = (attribute(reading(model, CAPTION, given), lrp()) for given in (regions, regions[:, order]))
    assert torch.allclose(permuted.features, plainly.features[:, order], rtol=0, atol=1e-11)
    assert torch.allclose(permuted.words, plainly.words, rtol=0, atol=1e-11)
    assert torch.allclose(permuted.kept, plainly.kept, rtol=0, atol=1e-11)


@settings(max_examples=8, deadline=None)
@given(tokens=st.lists(st.integers(3, 9), min_size=2, max_size=6), name=st.sampled_from(DECODERS))
def test_what_follows_a_word_does_not_change_its_explanation(tokens: list[int], name: str) -> None:
    model = small_model(name)
    whole = attribute(reading(model, tuple(tokens)), lrp())
    shorter = attribute(reading(model, tuple(tokens[:-1])), lrp())
    count = len(tokens) - 1
    assert torch.allclose(whole.features[:count], shorter.features, rtol=0, atol=1e-12)
    assert torch.allclose(whole.words[:count, :count], shorter.words, rtol=0, atol=1e-12)
    assert torch.allclose(whole.kept[:count], shorter.kept, rtol=0, atol=1e-12)
