"""Beam search and diverse beam search; greedy decoding is a beam of one.

Axes: B pictures, G groups, M hypotheses in a group, W = G M hypotheses of a picture, V vocabulary. Hypotheses are rows
of one batch of B W; no loop runs over pictures.

At each step every hypothesis is extended by every word, and each group keeps its M best. A finished hypothesis keeps
its score, and its place until M others are better. The search ends when all are finished, or at the maximum length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from capxai.models.captioner import Captioner
from capxai.models.decoding.decoded import Decoded, Hypotheses, Veto, log_softmax, prohibition
from capxai.models.decoding.options import DecodingOptions
from capxai.models.state import Memory


def beam_search(model: Captioner, memory: Memory, options: DecodingOptions, veto: Veto | None = None) -> list[Decoded]:
    """Search all pictures at once; see `capxai.models.decoding.decode`."""
    width = 1 if options.strategy == "greedy" else options.beam
    groups = options.groups if options.strategy == "diverse-beam" else 1
    batch, device = memory.features.shape[0], memory.features.device
    vocabulary = model.vocabulary
    pictures = torch.arange(batch, device=device)
    memory = memory.select(pictures.repeat_interleave(width))
    state = model.start(memory)
    last = torch.full((batch * width,), vocabulary.start, device=device)
    prohibited = prohibition(vocabulary, memory.features)
    hypotheses = Hypotheses.start(_only_first_of_each_group(batch, width, groups, memory.features))
    for t in range(options.maximum_length):
        step = model.step(memory, model.embed(last), state)
        log_probabilities = log_softmax(step.logits) + prohibited  # (B W, V)
        if veto is not None:
            log_probabilities = veto(t, step.head_inputs, log_probabilities)
        log_probabilities = _stay_finished(
            log_probabilities.view(batch, width, -1), hypotheses.finished, vocabulary.pad
        )
        parents, words = _choose(hypotheses, log_probabilities, groups, vocabulary.pad, options)
        chosen = log_probabilities.flatten(1).gather(1, parents * len(vocabulary) + words)
        hypotheses = hypotheses.extend(parents, words, chosen, vocabulary.end)
        if bool(hypotheses.finished.all()):
            break
        state, last = step.state.select((width * pictures.unsqueeze(1) + parents).flatten()), words.flatten()
    return hypotheses.collect(options.length_penalty)


def _only_first_of_each_group(batch: int, width: int, groups: int, like: Tensor) -> Tensor:
    """Return totals (B, W) for no words yet: 0 for one hypothesis of each group, -inf for the others, its doubles."""
    total = torch.full((batch, groups, width // groups), -math.inf, device=like.device)
    total[:, :, 0] = 0
    return total.flatten(1).to(torch.promote_types(like.dtype, torch.float32))


def _stay_finished(log_probabilities: Tensor, finished: Tensor, pad: int) -> Tensor:
    """Let a finished hypothesis be followed by ``<pad>`` alone, for free."""
    padding = torch.full_like(log_probabilities[0, 0], -math.inf)
    padding[pad] = 0
    return torch.where(finished.unsqueeze(2), padding, log_probabilities)


def _choose(
    hypotheses: Hypotheses, log_probabilities: Tensor, groups: int, pad: int, options: DecodingOptions
) -> tuple[Tensor, Tensor]:
    """Choose the best extensions, one group after the other.

    Group g maximizes score - strength * (how many hypotheses of groups before g have chosen the word at this step): the
    Hamming diversity of Vijayakumar et al. 2016, "Diverse Beam Search", algorithm 1. The penalty steers the choice and
    is not kept: scores stay the model's.

    Args:
        hypotheses: What there is so far.
        log_probabilities: (B, W, V) of each next word.
        groups: G.
        pad: Id of ``<pad>``, which stands for no word.
        options: Settings of the search.

    Returns:
        Parents in [0, W) and words, (B, W) int64 each, the best of each group first.
    """
    lengths = (hypotheses.length + ~hypotheses.finished).unsqueeze(2).to(log_probabilities.dtype)
    scores = (hypotheses.total.unsqueeze(2) + log_probabilities) / lengths**options.length_penalty
    size, vocabulary_size = scores.shape[1] // groups, scores.shape[2]
    used = torch.zeros_like(scores[:, :1])  # (B, 1, V)
    parents, words = [], []
    for group, candidates in enumerate(torch.split(scores, size, dim=1)):
        best = (candidates - options.diversity_strength * used if group else candidates).flatten(1).topk(size, dim=1)
        word = best.indices % vocabulary_size
        parents.append(best.indices // vocabulary_size + group * size)
        words.append(word)
        counted = (best.values > -math.inf) & (word != pad)
        used.squeeze(1).scatter_add_(1, word, counted.to(used.dtype))
    return torch.cat(parents, dim=1), torch.cat(words, dim=1)
