"""Teaching a captioner to write: cross-entropy on references, with teacher forcing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions, decode
from capxai.models.state import Memory
from capxai.train.examples import caption_batch, epoch_of_captions
from capxai.train.optimization import Epoch, Optimization
from capxai.types import Advance

Remember = Callable[[Tensor], Memory]
"""Prepares the pictures of the given rows, (B,) int64: from features in memory, or through the encoder."""


@dataclass(frozen=True)
class CaptionSettings:
    """How captions are trained.

    Attributes:
        epochs: Times that every picture is seen, each time with one of its references.
        batch_size: Captions a step.
        learning_rate: Highest learning rate of the decoder.
        encoder_learning_rate: The encoder's, where it is trained along; 0 leaves it alone.
        seed: Seed of the order of pictures, the choice of references and dropout.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    encoder_learning_rate: float
    seed: int


def teacher_forcing(model: Captioner, memory: Memory, inputs: Tensor) -> Tensor:
    """Return the logits (B, T, V) that follow each prefix of the given words (B, T)."""
    vectors = model.embed(inputs)  # (B, T, E)
    steps = model.unroll(memory, lambda t, _: vectors[:, t], inputs.shape[1])
    return torch.stack([step.logits for step in steps], dim=1)


def word_losses(logits: Tensor, targets: Tensor, pad: int) -> tuple[Tensor, int]:
    """Return the summed cross-entropy in nats and the number of words it was summed over; ``<pad>`` is none.

    Args:
        logits: (B, T, V).
        targets: (B, T) int64.
        pad: Id of ``<pad>``.
    """
    total = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad, reduction="sum")
    return total, int((targets != pad).sum())


def _parameter_groups(model: Captioner, settings: CaptionSettings) -> list[tuple[list[nn.Parameter], float]]:
    groups = [(list(model.decoder.parameters()), settings.learning_rate)]
    if model.encoder is not None and settings.encoder_learning_rate > 0:
        groups.append((list(model.encoder.parameters()), settings.encoder_learning_rate))
    return groups


def train_captions(
    model: Captioner, remember: Remember, tokens: Tensor, settings: CaptionSettings, advance: Advance
) -> Iterator[Epoch]:
    """Train a captioner in place, epoch by epoch; whoever iterates validates and saves between two epochs.

    Batch norms of the encoder keep their statistics. PyTorch's global random state is seeded for dropout.

    Args:
        model: The captioner.
        remember: Where the pictures come from.
        tokens: (N, R, L) from `encode_references`.
        settings: How to train.
        advance: Called with the number of captions done.

    Raises:
        DivergedError: The loss is not finite.
    """
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    batches_an_epoch = -(-len(tokens) // settings.batch_size)
    optimization = Optimization(_parameter_groups(model, settings), settings.epochs * batches_an_epoch)
    for number in range(1, settings.epochs + 1):
        model.eval()
        model.decoder.train()
        total, words = 0.0, 0
        for batch in epoch_of_captions(tokens, model.vocabulary, settings.batch_size, generator):
            logits = teacher_forcing(model, remember(batch.rows), batch.inputs)
            loss, count = word_losses(logits, batch.targets, model.vocabulary.pad)
            total, words = total + optimization.descend(loss / count) * count, words + count
            advance(len(batch.rows))
        model.eval()
        yield Epoch(number, total / words, optimization.learning_rate)


@torch.inference_mode()
def validation_loss(model: Captioner, remember: Remember, tokens: Tensor, batch_size: int) -> float:
    """Return the mean cross-entropy a word in nats, without dropout, over the first reference of every picture (N, R, L)."""
    total, words = 0.0, 0
    for rows in torch.arange(len(tokens)).split(batch_size):
        batch = caption_batch(rows, tokens[rows, 0], model.vocabulary)
        loss, count = word_losses(
            teacher_forcing(model, remember(rows), batch.inputs), batch.targets, model.vocabulary.pad
        )
        total, words = total + float(loss), words + count
    return total / words


@torch.inference_mode()
def write_captions(
    model: Captioner, remember: Remember, count: int, batch_size: int, options: DecodingOptions
) -> list[str]:
    """Caption the first ``count`` pictures."""
    captions: list[str] = []
    for rows in torch.arange(count).split(batch_size):
        captions += [model.vocabulary.decode(found.token_ids) for found in decode(model, remember(rows), options)]
    return captions
