"""The relevance of whole decoders a second time: explicit loops over time, float64, one word after the other.

Written from the table of rules of the method. What flows to a vector from several places is added up by hand before the vector's own
rule is applied: h1, h2, m1, m2 and the picture's vectors at every step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from plain_decoders import Array, CellRecord, Record, Weights, adaptive_picture, affine, multi_head_picture


@dataclass
class Account:
    """What is kept on the way, and the stabilizer."""

    eps: float
    bias_kept: float = 0.0
    eps_kept: float = 0.0

    def share(self, relevance: float, terms: Array, bias: float = 0.0) -> Array:
        """Divide the relevance of z = sum of the terms + bias in proportion to the terms."""
        z = float(terms.sum() + bias)
        stabilizer = self.eps if z >= 0 else -self.eps
        self.bias_kept += bias / (z + stabilizer) * relevance
        self.eps_kept += stabilizer / (z + stabilizer) * relevance
        return np.asarray(terms / (z + stabilizer) * relevance)

    def through_linear(self, relevance: Array, x: Array, weight: Array, bias: Array) -> Array:
        """Relevance of x from that of W x + b."""
        arrived = np.zeros_like(x)
        for k, amount in enumerate(relevance):
            arrived += self.share(amount, x * weight[k], bias[k])
        return arrived

    def through_sum(self, relevance: Array, *summands: Array) -> list[Array]:
        """Relevance of each summand from that of their sum, unit by unit."""
        arrived = [np.zeros_like(summand) for summand in summands]
        for k, amount in enumerate(relevance):
            for n, part in enumerate(self.share(amount, np.array([summand[k] for summand in summands]))):
                arrived[n][k] = part
        return arrived

    def through_layer(self, weights: Weights, name: str, relevance: Array, x: Array) -> Array:
        """Relevance of the input of a named layer."""
        return self.through_linear(relevance, x, weights[f"{name}.weight"], weights[f"{name}.bias"])


@dataclass
class CellShares:
    """What an LSTM passes on."""

    x: Array
    hidden: Array
    memory: Array


def through_cell(account: Account, weights: Weights, name: str, cell: CellRecord, relevance: Array) -> CellShares:
    """Relevance of the memory after the step (what arrived at h included) to input, hidden and memory before it.

    m = f m_prev + i tanh(g): in proportion; gates get nothing, tanh is passed; g = W x + U h_prev + b + b' in proportion.
    """
    to_memory, to_candidate = account.through_sum(
        relevance, cell.keep * cell.previous_memory, cell.write * cell.candidate
    )
    size = len(relevance)
    rows = slice(2 * size, 3 * size)
    both = np.concatenate([cell.x, cell.previous_hidden])
    weight = np.concatenate([weights[f"{name}.weight_ih"][rows], weights[f"{name}.weight_hh"][rows]], axis=1)
    bias = weights[f"{name}.bias_ih"][rows] + weights[f"{name}.bias_hh"][rows]
    arrived = account.through_linear(to_candidate, both, weight, bias)
    return CellShares(arrived[: len(cell.x)], arrived[len(cell.x) :], to_memory)


@dataclass
class Found:
    """Relevance of one word: regions (K, C), preceding words (T, E), what biases, eps and other heads kept."""

    features: Array
    words: Array
    bias: float
    eps: float
    other_heads: float = 0.0


def start(account: Account, weights: Weights, record: Record, token: int) -> tuple[Array, Array]:
    """The raw logit of one word to the two summands of the word head."""
    both = record.head_context + record.head_hidden
    row = weights["word_head.fc.weight"][token], float(weights["word_head.fc.bias"][token])
    arrived = account.share(float(record.logits[token]), both * row[0], row[1])
    to_context, to_hidden = account.through_sum(arrived, record.head_context, record.head_hidden)
    return to_context, to_hidden


def adaptive(weights: Weights, features: Array, records: list[Record], explained: tuple[int, int], eps: float) -> Found:
    """Explain the word (time, token) of `adaptive` or `ada-lstm`."""
    last, token = explained
    account, picture = Account(eps), adaptive_picture(weights, features)
    two = records[0].language is not None
    size, width = len(records[0].first.hidden), len(picture.summary)
    h1, m1, h2, m2 = (np.zeros((last + 2, size)) for _ in range(4))  # row t + 1: after step t
    values, summary, words = np.zeros_like(picture.values), np.zeros(width), np.zeros((len(records), width))
    to_mixed, to_spoken = start(account, weights, records[last], token)
    (h2 if two else h1)[last + 1] += to_spoken
    for t in range(last, -1, -1):
        record = records[t]
        mixed = to_mixed if t == last else np.zeros(size)
        if record.language is not None:
            m2[t + 1] += h2[t + 1]
            shares = through_cell(account, weights, "language_lstm", record.language, m2[t + 1])
            mixed = mixed + shares.x[:size]
            h1[t + 1] += shares.x[size:]
            h2[t] += shares.hidden
            m2[t] += shares.memory
        assert record.beta is not None and record.sentinel is not None
        language, seen = account.through_sum(mixed, record.beta * record.sentinel, (1 - record.beta) * record.context)
        m1[t + 1] += language
        weighted = [a * v for a, v in zip(record.attention, picture.values, strict=True)]
        values += np.stack(account.through_sum(seen, *weighted))
        m1[t + 1] += h1[t + 1]
        shares = through_cell(account, weights, "lstm", record.first, m1[t + 1])
        h1[t] += shares.hidden
        m1[t] += shares.memory
        if two:
            h2[t] += shares.x[:size]
            summary += shares.x[size : size + width]
            words[t] += shares.x[size + width :]
        else:
            words[t] += shares.x[:width]
            summary += shares.x[width:]
    to_mean = account.through_layer(weights, "global_projection.linear", summary, features.mean(0))
    arrived = np.stack(account.through_sum(to_mean, *(features / len(features))))
    return finish(account, weights, features, (values, arrived), words)


def multi_head(
    weights: Weights, features: Array, records: list[Record], explained: tuple[int, int], eps: float, head: int | None
) -> Found:
    """Explain the word (time, token) of `mh-fc` with two heads, keeping the relevance of one of them or of all."""
    last, token = explained
    account, picture, first = Account(eps), multi_head_picture(weights, features), records[0]
    size, width = len(first.first.hidden), len(first.first.x) - len(first.first.hidden)
    half = size // 2
    h, m = (np.zeros((last + 2, size)) for _ in range(2))  # row t + 1: after step t
    summary, words = np.zeros(size), np.zeros((len(records), width))
    record = records[last]
    assert record.heads is not None
    to_context, h[last + 1] = start(account, weights, record, token)
    merged = account.through_layer(weights, "context_projection", to_context, record.heads)
    other = 0.0
    for n in range(2):
        if head is not None and n != head:
            other += merged[n * half : (n + 1) * half].sum()
            merged[n * half : (n + 1) * half] = 0
    projected = affine(weights, "value_projection", picture.values)
    to_projected = np.zeros_like(projected)
    for n in range(2):
        part = slice(n * half, (n + 1) * half)
        weighted = [a * v for a, v in zip(record.attention[n], projected[:, part], strict=True)]
        to_projected[:, part] = np.stack(account.through_sum(merged[part], *weighted))
    values = np.stack(
        [account.through_layer(weights, "value_projection", r, v)
         for r, v in zip(to_projected, picture.values, strict=True)]
    )  # fmt: skip
    for t in range(last, -1, -1):
        m[t + 1] += h[t + 1]
        shares = through_cell(account, weights, "lstm", records[t].first, m[t + 1])
        h[t] += shares.hidden
        m[t] += shares.memory
        words[t] += shares.x[:width]
        summary += shares.x[width:]
    values += np.stack(account.through_sum(summary, *(picture.values / len(picture.values))))
    found = finish(account, weights, features, (values, np.zeros_like(features)), words)
    found.other_heads = other
    return found


def finish(account: Account, weights: Weights, features: Array, arrived: tuple[Array, Array], words: Array) -> Found:
    """Carry the regions' values through their projection and add what reached the features otherwise."""
    values, direct = arrived
    projected = [
        account.through_layer(weights, "region_projection.linear", r, x) for r, x in zip(values, features, strict=True)
    ]
    return Found(np.stack(projected) + direct, words, account.bias_kept, account.eps_kept)
