"""Sampling with temperature, from the most probable words, or from the nucleus."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from capxai.models.captioner import Captioner
from capxai.models.decoding.decoded import Decoded, Hypotheses, Veto, log_softmax, not_numbers, prohibition
from capxai.models.decoding.options import DecodingOptions
from capxai.models.state import Memory

Draw = Callable[[int, Tensor], Tensor]
"""``draw(t, probabilities) -> words``: chooses the words of step t, (B, 1) int64, by their probabilities (B, V)."""


def sample(
    model: Captioner, memory: Memory, options: DecodingOptions, draw: Draw | None = None, veto: Veto | None = None
) -> list[Decoded]:
    """Draw one caption for every picture; see `capxai.models.decoding.decode`.

    The same seed draws the same captions for the same batch on the same kind of device.

    Args:
        model: The captioner.
        memory: From `Captioner.encode` or `Captioner.remember`, batch B.
        options: How to draw.
        draw: Chooses the words in place of a generator with the seed of the options.
        veto: Forbids words before one is drawn.

    Raises:
        ModelError: The logits are not numbers.
    """
    batch, device, vocabulary = memory.features.shape[0], memory.features.device, model.vocabulary
    if draw is None:
        generator = torch.Generator(device).manual_seed(options.seed)
        draw = lambda _, probabilities: torch.multinomial(probabilities, 1, generator=generator)  # noqa: E731
    state = model.start(memory)
    words = torch.full((batch, 1), vocabulary.start, device=device)
    prohibited = prohibition(vocabulary, memory.features)
    total = memory.features.new_zeros(batch, 1, dtype=torch.promote_types(memory.features.dtype, torch.float32))
    hypotheses, itself = Hypotheses.start(total), torch.zeros_like(words)
    for t in range(options.maximum_length):
        step = model.step(memory, model.embed(words.squeeze(1)), state)
        log_probabilities = log_softmax(step.logits) + prohibited
        if bool(torch.isnan(log_probabilities).any()):
            raise not_numbers()
        if veto is not None:
            log_probabilities = veto(t, step.head_inputs, log_probabilities)
        drawn = draw(t, draw_probabilities(log_probabilities, options))
        words = drawn.masked_fill(hypotheses.finished, vocabulary.pad)
        chosen = log_probabilities.gather(1, drawn).masked_fill(hypotheses.finished, 0)
        hypotheses = hypotheses.extend(itself, words, chosen, vocabulary.end)
        if bool(hypotheses.finished.all()):
            break
        state = step.state
    return hypotheses.collect()


def draw_probabilities(log_probabilities: Tensor, options: DecodingOptions) -> Tensor:
    """Return the distribution to draw from: temperature first, then ``top_k``, then ``top_p`` of what is left.

    The nucleus is the smallest set of most probable words whose probability reaches ``top_p`` (Holtzman et al. 2020,
    "The Curious Case of Neural Text Degeneration", section 3.1); it is never empty.

    Args:
        log_probabilities: (B, V) of each word; -inf for one that may not be drawn.
        options: Settings of the search.

    Returns:
        (B, V), sums to 1.
    """
    # Below 1e-30 only the best word is left anyway, and float32 cannot invert much less.
    scaled = log_probabilities / max(options.temperature, 1e-30)
    if options.top_k is None and options.top_p is None:
        return torch.softmax(scaled, dim=1)
    ordered, words = torch.softmax(scaled, dim=1).sort(dim=1, descending=True, stable=True)
    if options.top_k is not None:
        ordered[:, options.top_k :] = 0
        ordered = ordered / ordered.sum(dim=1, keepdim=True)
    if options.top_p is not None:
        before = ordered.cumsum(dim=1) - ordered
        ordered = ordered.masked_fill(before >= options.top_p, 0)
        ordered = ordered / ordered.sum(dim=1, keepdim=True)
    return torch.zeros_like(ordered).scatter(1, words, ordered)
