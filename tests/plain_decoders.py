"""The decoders a second time, written from the equations of the method in NumPy; one vector at a time, no batch, no module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float64]
Weights = Mapping[str, Array]


def weights_of(decoder: nn.Module) -> dict[str, Array]:
    """Copy a decoder's parameters to float64 arrays."""
    return {name: tensor.detach().double().numpy() for name, tensor in decoder.state_dict().items()}


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def affine(weights: Weights, name: str, x: Array) -> Array:
    """W x + b, without b where the layer has none; x may be one vector or rows of vectors."""
    bias = weights.get(f"{name}.bias")
    product = x @ weights[f"{name}.weight"].T
    return product if bias is None else product + bias


@dataclass(frozen=True)
class CellRecord:
    """One step of an LSTM: inputs, gates, tanh(g), and the vectors after it."""

    x: Array
    previous_hidden: Array
    previous_memory: Array
    write: Array
    keep: Array
    read: Array
    candidate: Array
    memory: Array
    hidden: Array


def lstm(weights: Weights, name: str, x: Array, previous: tuple[Array, Array]) -> CellRecord:
    """m = f m_prev + i tanh(g), h = o tanh(m)."""
    hidden, memory = previous
    before = weights[f"{name}.weight_ih"] @ x + weights[f"{name}.bias_ih"]
    before = before + weights[f"{name}.weight_hh"] @ hidden + weights[f"{name}.bias_hh"]
    i, f, g, o = np.split(before, 4)
    after = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
    return CellRecord(
        x, hidden, memory, sigmoid(i), sigmoid(f), sigmoid(o), np.tanh(g), after, sigmoid(o) * np.tanh(after)
    )


@dataclass(frozen=True)
class Record:
    """One step of a decoder. Sentinel, beta and language belong to the adaptive ones, heads and gate to the multi-head one."""

    first: CellRecord
    attention: Array
    context: Array
    head_context: Array
    head_hidden: Array
    logits: Array
    sentinel: Array | None = None
    beta: float | None = None
    language: CellRecord | None = None
    heads: Array | None = None
    gate: Array | None = None


@dataclass(frozen=True)
class Picture:
    """What depends on the picture alone: V (K, H), and the vector that the first LSTM reads."""

    values: Array
    summary: Array


def adaptive_picture(weights: Weights, features: Array) -> Picture:
    """V = relu(conv1x1(I)), g = relu(W_g mean(I))."""
    values = np.maximum(affine(weights, "region_projection.linear", features), 0)
    return Picture(values, np.maximum(affine(weights, "global_projection.linear", features.mean(0)), 0))


def attend(weights: Weights, values: Array, sentinel: Array, hidden: Array, published: bool) -> tuple[Array, float]:
    """alpha = softmax_k(w' tanh(W_v V_k + W_q h)), beta = last entry of softmax([z; w' tanh(W_s s + W_q h)])."""
    score = weights["attention.score.weight"][0]
    query = weights["attention.query_projection.weight"] @ hidden
    z = []
    for k, value in enumerate(values):
        key = affine(weights, "attention.value_projection", value)
        z.append(score @ np.tanh(key + (query[k] if published else query)))
    of_sentinel = score @ np.tanh(affine(weights, "attention.sentinel_projection", sentinel) + query)
    return softmax(np.array(z)), float(softmax(np.array([*z, of_sentinel]))[-1])


def unroll_adaptive(
    weights: Weights, features: Array, words: Array, *, two_lstms: bool, published: bool = False
) -> list[Record]:
    """Run `ada-lstm` (two LSTMs) or `adaptive` (one) over word vectors (T, E)."""
    picture = adaptive_picture(weights, features)
    size = weights["lstm.weight_hh"].shape[1]
    h1 = m1 = h2 = m2 = np.zeros(size)
    records = []
    for word in words:
        x = np.concatenate([h2, picture.summary, word] if two_lstms else [word, picture.summary])
        first = lstm(weights, "lstm", x, (h1, m1))
        openness = sigmoid(affine(weights, "sentinel.x_gate", x) + affine(weights, "sentinel.h_gate", h1))
        sentinel = openness * np.tanh(first.memory)
        alpha, beta = attend(weights, picture.values, sentinel, first.hidden, published)
        context = sum(a * v for a, v in zip(alpha, picture.values, strict=True))
        mixed = beta * sentinel + (1 - beta) * context
        h1, m1 = first.hidden, first.memory
        language = None
        if two_lstms:
            language = lstm(weights, "language_lstm", np.concatenate([mixed, h1]), (h2, m2))
            h2, m2 = language.hidden, language.memory
        spoken = h2 if two_lstms else h1
        logits = affine(weights, "word_head.fc", mixed + spoken)
        records.append(Record(first, alpha, context, mixed, spoken, logits, sentinel, beta, language))
    return records


def multi_head_picture(weights: Weights, features: Array) -> Picture:
    """V = relu(conv1x1(I)) and its mean."""
    values = np.maximum(affine(weights, "region_projection.linear", features), 0)
    return Picture(values, values.mean(0))


def unroll_multi_head(weights: Weights, features: Array, words: Array, *, heads: int) -> list[Record]:
    """Run `mh-fc` over word vectors (T, E)."""
    picture = multi_head_picture(weights, features)
    size = weights["lstm.weight_hh"].shape[1]
    width = size // heads
    keys, values = (affine(weights, f"{name}_projection", picture.values) for name in ("key", "value"))
    h = m = np.zeros(size)
    records = []
    for word in words:
        first = lstm(weights, "lstm", np.concatenate([word, picture.summary]), (h, m))
        h, m = first.hidden, first.memory
        query = affine(weights, "attention.query_projection", h)
        slices = [slice(n * width, (n + 1) * width) for n in range(heads)]
        attention = np.stack([softmax(keys[:, part] @ query[part] / np.sqrt(width)) for part in slices])
        merged = np.concatenate([attention[n] @ values[:, part] for n, part in enumerate(slices)])
        gate, linear = sigmoid(affine(weights, "context_gate", h)), affine(weights, "context_projection", merged)
        context = gate * linear
        logits = affine(weights, "word_head.fc", context + h)
        records.append(Record(first, attention, linear, context, h, logits, heads=merged, gate=gate))
    return records


def unroll(name: str, weights: Weights, features: Array, words: Array, published: bool = False) -> list[Record]:
    """Run a decoder by its name; `mh-fc` with two heads."""
    if name == "mh-fc":
        return unroll_multi_head(weights, features, words, heads=2)
    return unroll_adaptive(weights, features, words, two_lstms=name == "ada-lstm", published=published)
