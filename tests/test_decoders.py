"""Decoders against plain replicas of their equations, and the LSTM cell against PyTorch's."""

from __future__ import annotations

import dataclasses

import numpy as np
import plain_decoders as plain
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import CAPTION, DECODERS, EMBEDDING, REGIONS, features, reading, small_model
from torch import nn

from capxai.errors import ModelError
from capxai.layers.attention import AdaptiveAttention
from capxai.layers.lstm import LSTMCell
from capxai.models.captioner import Captioner
from capxai.models.decoders import build_decoder, register_decoder
from capxai.models.decoders.ada_lstm import AdaLSTMDecoder
from capxai.models.decoders.base import initialize
from capxai.models.state import State


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_the_lstm_cell_is_pytorchs(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    ours, theirs = LSTMCell(7, 5).to(dtype), nn.LSTMCell(7, 5).to(dtype)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    state = theirs_state = (torch.randn(3, 5, dtype=dtype), torch.randn(3, 5, dtype=dtype))
    with torch.no_grad():
        for _ in range(4):
            x = torch.randn(3, 7, dtype=dtype)
            state, theirs_state = ours(x, state), theirs(x, theirs_state)
            for found, expected in zip(state, theirs_state, strict=True):
                assert (found - expected).abs().max() < tolerance


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
def test_every_step_follows_the_equations(decoder: str, published: bool) -> None:
    model = small_model(decoder, published=published)
    read = reading(model)
    words = model.embed(read.inputs).detach().numpy()
    with torch.no_grad():
        steps = read.unroll()
    records = plain.unroll(decoder, plain.weights_of(model.decoder), read.features[0].numpy(), words, published)
    for step, record in zip(steps, records, strict=True):
        close(step.logits[0], record.logits)
        close(step.attention[0], record.attention)
        close(step.head_inputs.context[0], record.head_context)
        close(step.head_inputs.hidden[0], record.head_hidden)
        cells = [record.first] if record.language is None else [record.first, record.language]
        for index, cell in enumerate(cells):
            close(step.state.hidden[index][0], cell.hidden)
            close(step.state.cell[index][0], cell.memory)
        if record.beta is None:
            assert step.sentinel is None
        else:
            assert step.sentinel is not None
            close(step.sentinel[0], record.beta)


def close(found: torch.Tensor, expected: object) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_the_published_query_axis_is_another_model() -> None:
    formula, released = (AdaptiveAttention(4, REGIONS, published_query_axis=flag).double() for flag in (False, True))
    released.load_state_dict(formula.state_dict())
    values, hidden, sentinel = features()[:, :, :4], torch.randn(1, 4).double(), torch.randn(1, 4).double()
    keys = formula.keys(values)
    (alpha, beta), (other_alpha, other_beta) = formula(keys, sentinel, hidden), released(keys, sentinel, hidden)
    assert (alpha - other_alpha).abs().max() > 1e-3 and (beta - other_beta).abs() > 1e-4
    nothing = torch.zeros_like(hidden)  # without a query there is no axis to add it along
    for one, other in zip(formula(keys, sentinel, nothing), released(keys, sentinel, nothing), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("decoder", ["ada-lstm", "adaptive"])
def test_the_sentinel_gate_reads_the_hidden_state_before_the_step(decoder: str) -> None:
    model = small_model(decoder)
    read = reading(model)
    weights = plain.weights_of(model.decoder)
    seen: list[torch.Tensor] = []
    model.decoder.sentinel.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    with torch.no_grad():
        steps = read.unroll()
    words = model.embed(read.inputs).detach().numpy()
    records = plain.unroll(decoder, weights, read.features[0].numpy(), words)
    for t, record in enumerate(records):
        close(seen[t][0], record.first.previous_hidden)
        before = torch.zeros(4).double() if t == 0 else steps[t - 1].state.hidden[0][0]
        assert torch.equal(seen[t][0], before)
        assert t == 0 or not torch.equal(seen[t], steps[t].state.hidden[0])


@pytest.mark.parametrize("decoder", DECODERS)
def test_attention_is_a_distribution_over_regions(decoder: str) -> None:
    for step in reading(small_model(decoder)).unroll():
        heads = step.attention.reshape(-1, REGIONS)
        assert len(heads) == (2 if decoder == "mh-fc" else 1)
        assert (heads > 0).all() and torch.allclose(heads.sum(1), torch.ones(len(heads)).double(), atol=1e-14)
        assert step.sentinel is None or 0 < step.sentinel.item() < 1


@settings(max_examples=8, deadline=None)
@given(rows=st.lists(st.integers(0, 3), min_size=1, max_size=5), name=st.sampled_from(DECODERS))
def test_a_batch_is_its_items_one_by_one(rows: list[int], name: str) -> None:
    model = small_model(name)
    pictures = features(count=4)
    tokens = torch.tensor([[1, 4 + row, 9 - row] for row in range(4)])
    with torch.no_grad():
        memory = model.remember(pictures).select(torch.tensor(rows))
        vectors = model.embed(tokens[rows])
        together = model.unroll(memory, lambda t, _: vectors[:, t], 3)
        for place, row in enumerate(rows):
            one = model.embed(tokens[row])
            alone = model.unroll(model.remember(pictures[row : row + 1]), lambda t, _, one=one: one[None, t], 3)
            for ours, theirs in zip(together, alone, strict=True):
                assert torch.allclose(ours.logits[place], theirs.logits[0], rtol=0, atol=1e-13)
                assert torch.allclose(ours.attention[place], theirs.attention[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("decoder", DECODERS)
def test_selecting_rows_of_a_state_goes_on_as_those_rows(decoder: str) -> None:
    model, rows = small_model(decoder), torch.tensor([2, 0, 2])
    with torch.no_grad():
        memory = model.remember(features(count=3))
        state: State = model.start(memory)
        assert all((vector == 0).all() for vector in (*state.hidden, *state.cell))
        state = model.step(memory, model.embed(torch.tensor([1, 5, 6])), state).state
        assert len(state.hidden) == len(state.cell) == (2 if decoder == "ada-lstm" else 1)
        vectors = model.embed(torch.tensor([4, 7, 8]))
        whole = model.step(memory, vectors, state).logits
        chosen = model.step(memory.select(rows), vectors[rows], state.select(rows)).logits
    assert torch.allclose(chosen, whole[rows], rtol=0, atol=1e-13)


@pytest.mark.parametrize(("decoder", "rate"), [("ada-lstm", 0.5), ("adaptive", 0.5), ("mh-fc", 0.3)])
def test_dropout_stands_where_the_method_has_it(decoder: str, rate: float) -> None:
    model = small_model(decoder)
    rates = {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    expected = {"decoder.word_head.dropout": rate} | ({"decoder.attention.dropout": 0.1} if decoder == "mh-fc" else {})
    assert rates == expected


def test_the_feed_sees_the_logits_of_the_step_before() -> None:
    model = small_model("ada-lstm")
    seen: list[torch.Tensor | None] = []

    def feed(t: int, last: torch.Tensor | None) -> torch.Tensor:
        seen.append(last)
        return model.embed(torch.tensor([CAPTION[t]]))

    steps = model.unroll(model.remember(features()), feed, 3)
    assert seen[0] is None and seen[1] is steps[0].logits and seen[2] is steps[1].logits


def test_embeddings_start_small_and_even() -> None:
    model = small_model("mh-fc")
    initialize(model.decoder, torch.Generator().manual_seed(0))
    table = model.decoder.embedding.weight
    assert table.shape[1] == EMBEDDING and 0.05 < table.abs().max() <= 0.1


def build(model: Captioner, **changes: object) -> object:
    return build_decoder(dataclasses.replace(model.specification, **changes))


def test_what_cannot_be_built_is_said() -> None:
    model = small_model("mh-fc")
    with pytest.raises(ModelError, match="Unknown decoder 'mh-fd'. Choose one of: .*Did you mean 'mh-fc'"):
        build(model, decoder="mh-fd")
    with pytest.raises(ModelError, match="3 heads do not divide a hidden size of 4"):
        build(model, heads=3)
    with pytest.raises(ModelError, match="'mh-fc' is registered already"):
        register_decoder("mh-fc", AdaLSTMDecoder)
    with pytest.raises(ModelError, match="has no encoder"):
        model.features(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("decoder", DECODERS)
def test_reading_all_words_first_gives_the_logits_of_unrolling(decoder: str) -> None:
    model = small_model(decoder).eval()
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(model.specification.vocabulary_size, (3, 5), generator=generator)
    memory, vectors = model.remember(features(count=3)), model.embed(words)
    unrolled = torch.stack([step.logits for step in model.unroll(memory, lambda t, _: vectors[:, t], 5)], dim=1)
    inputs = model.read(memory, vectors)
    assert inputs.context.shape == inputs.hidden.shape == (3, 5, model.specification.hidden_size)
    torch.testing.assert_close(model.speak(inputs), unrolled, rtol=1e-6, atol=1e-6)
