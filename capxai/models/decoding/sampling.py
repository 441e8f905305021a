"""Sampling with temperature, from the most probable words, or from the nucleus."""

from __future__ import annotations

import torch
from torch import Tensor

from capxai.models.captioner import Captioner
from capxai.models.decoding.decoded import Decoded, Hypotheses, log_softmax, not_numbers, prohibition
from capxai.models.decoding.options import DecodingOptions
from capxai.models.state import Memory


def sample(model: Captioner, memory: Memory, options: DecodingOptions) -> list[Decoded]:
    """Draw one caption for every picture; see `capxai.models.decoding.decode`.

    The same seed draws the same captions for the same batch on the same kind of device.

    Raises:
        ModelError: The logits are not numbers.
    """
    batch, device, vocabulary = memory.features.shape[0], memory.features.device, model.vocabulary
    generator = torch.Generator(device).manual_seed(options.seed)
    state = model.start(memory)
    words = torch.full((batch, 1), vocabulary.start, device=device)
    prohibited = prohibition(vocabulary, memory.features)
    total = memory.features.new_zeros(batch, 1, dtype=torch.promote_types(memory.features.dtype, torch.float32))
    hypotheses, itself = Hypotheses.start(total), torch.zeros_like(words)
    for _ in range(options.maximum_length):
        step = model.step(memory, model.embed(words.squeeze(1)), state)
        log_probabilities = log_softmax(step.logits) + prohibited
        if bool(torch.isnan(log_probabilities).any()):
            raise not_numbers()
        drawn = torch.multinomial(draw_probabilities(log_probabilities, options), 1, generator=generator)
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
    ordered, words = torch.softmax(scaled, dim=1).sort(dim=1, descending=True, stable=True)
    if options.top_k is not None:
        ordered[:, options.top_k :] = 0
        ordered = ordered / ordered.sum(dim=1, keepdim=True)
    if options.top_p is not None:
        before = ordered.cumsum(dim=1) - ordered
        ordered = ordered.masked_fill(before >= options.top_p, 0)
        ordered = ordered / ordered.sum(dim=1, keepdim=True)
    return torch.zeros_like(ordered).scatter(1, words, ordered)
