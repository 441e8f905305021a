"""Teaching a captioner to write: cross-entropy on references, with teacher forcing or scheduled sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from capxai.models.captioner import Captioner
from capxai.models.state import Memory
from capxai.train.examples import CaptionBatch

Objective = Callable[[Captioner, Memory, CaptionBatch], tuple[Tensor, float]]
"""What training makes small: the summed loss of a batch, with its gradient, and the number of words or captions it was summed over."""


def teacher_forcing(model: Captioner, memory: Memory, inputs: Tensor) -> Tensor:
    """Return the logits (B, T, V) that follow each prefix of the given words (B, T): one vocabulary projection for all steps."""
    return model.speak(model.read(memory, model.embed(inputs)))


def scheduled_sampling(model: Captioner, memory: Memory, batch: CaptionBatch, probability: float) -> Tensor:
    """Return logits (B, T, V) where words of the reference have been replaced by the model's own (Bengio et al. 2015, section 2.4).

    Before every step but the first a coin is tossed for every caption; with the given probability the next input is drawn from
    what the model has just predicted. What is drawn does not depend on how many processes share the batch.

    Args:
        model: The captioner.
        memory: Its pictures.
        batch: The references.
        probability: Of taking the model's word, in [0, 1].
    """
    rows, length = batch.inputs.shape
    total = rows if batch.total is None else batch.total
    numbers = torch.rand(2, length, total)[:, :, batch.first : batch.first + rows].to(batch.inputs.device)
    coins, places = numbers.unbind()

    def feed(t: int, last_logits: Tensor | None) -> Tensor:
        words = batch.inputs[:, t]
        if last_logits is not None:
            drawn = draw_words(last_logits.detach(), places[t])
            words = torch.where(coins[t] < probability, drawn, words)
        return model.embed(words)

    return torch.stack([step.logits for step in model.unroll(memory, feed, length)], dim=1)


def draw_words(logits: Tensor, places: Tensor) -> Tensor:
    """Draw a word from each softmax by the inverse of its distribution function.

    Args:
        logits: (B, V).
        places: (B,) uniform in [0, 1).

    Returns:
        (B,) int64.
    """
    cumulated = torch.softmax(logits.float(), dim=1).cumsum(1)  # (B, V)
    found = torch.searchsorted(cumulated, (places * cumulated[:, -1])[:, None], right=True).squeeze(1)
    return found.clamp_(max=logits.shape[1] - 1)


def word_losses(logits: Tensor, targets: Tensor, pad: int) -> tuple[Tensor, int]:
    """Return the summed cross-entropy in nats and the number of words it was summed over; ``<pad>`` is none.

    Args:
        logits: (B, T, V).
        targets: (B, T) int64.
        pad: Id of ``<pad>``.
    """
    total = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=pad, reduction="sum")
    return total, int((targets != pad).sum())


@dataclass(frozen=True)
class CrossEntropy:
    """The objective of a reference's words.

    Attributes:
        sampling: Probability of feeding the model's own word instead of the reference's; 0 is teacher forcing.
    """

    sampling: float = 0.0

    def __call__(self, model: Captioner, memory: Memory, batch: CaptionBatch) -> tuple[Tensor, float]:
        """Return the summed cross-entropy in nats and the number of words."""
        if self.sampling > 0:
            logits = scheduled_sampling(model, memory, batch, self.sampling)
        else:
            logits = teacher_forcing(model, memory, batch.inputs)
        return word_losses(logits, batch.targets, model.vocabulary.pad)
