"""Teaches an encoder what is where: every cell of its grid learns which objects cover it.

Labels of whole pictures teach a small encoder little (where should it look?); labels of cells, made of the masks or boxes of a corpus,
teach it in a few epochs. The 1x1 convolution that reads the cells is thrown away afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from capxai.data.preprocessing import Preprocessing
from capxai.models.encoders.base import Encoder
from capxai.train.examples import FULL_COVERAGE, epoch_of_pictures
from capxai.train.optimization import Optimization
from capxai.types import Advance

Track = Callable[[str, int], AbstractContextManager[Advance]]
Record = Callable[[dict[str, object]], None]

PRESENT = 0.3
"""A cell shows a category when at least this share of it is covered."""
ABSENT = 0.05
"""A cell does not show it when less than this is covered; what lies between is not judged."""
POSITIVE_WEIGHT = 4.0
"""Weight of a cell that shows the category: such cells are rare (about one in a hundred)."""
PRIOR = -4.0
"""The first bias of the head, near the log odds of a category in a cell, so that training does not begin by learning that."""
BRIGHTNESS = 0.12
NOISE = 6.0


@dataclass(frozen=True)
class LocalizationSettings:
    """How the encoder is trained.

    Attributes:
        epochs: Times that every picture is seen.
        batch_size: Pictures a step.
        learning_rate: Highest learning rate.
        bfloat16: Whether convolutions run in bfloat16: much faster where the processor knows it, slower where not.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    bfloat16: bool = False


def augment(images: Tensor, coverage: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror half of the pictures with their labels, and change brightness and noise of all.

    Args:
        images: (B, S, S, 3) uint8.
        coverage: (B, Q, G, G) uint8.
        generator: Source of randomness.
    """
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(2), images)
    coverage = torch.where(mirrored[:, None, None, None], coverage.flip(3), coverage)
    factor = 1 + BRIGHTNESS * (2 * torch.rand(len(images), 1, 1, 1, generator=generator) - 1)
    noise = NOISE * torch.randn(images.shape, generator=generator)
    return (images * factor + noise).clamp_(0, 255).to(torch.uint8), coverage


def cell_loss(logits: Tensor, coverage: Tensor) -> Tensor:
    """Return the weighted binary cross-entropy over the cells that are judged.

    Args:
        logits: (B, Q, G, G).
        coverage: (B, Q, G, G) uint8.
    """
    share = coverage.to(torch.float32) / FULL_COVERAGE
    target = (share >= PRESENT).to(torch.float32)
    weight = torch.where(target > 0, POSITIVE_WEIGHT, (share < ABSENT).to(torch.float32))
    loss = functional.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    return loss / (len(logits) * logits.shape[2] * logits.shape[3])


def train_encoder(
    encoder: Encoder,
    preprocessing: Preprocessing,
    images: Tensor,
    coverage: Tensor,
    settings: LocalizationSettings,
    seed: int,
    track: Track,
    record: Record,
) -> nn.Module:
    """Train an encoder in place and leave it in evaluation mode.

    Args:
        encoder: The encoder; its grid must have the side of ``coverage``.
        preprocessing: What the encoder expects.
        images: (N, S, S, 3) uint8.
        coverage: (N, Q, G, G) uint8, see `cell_coverage`.
        settings: How to train.
        seed: Seed of order and augmentation.
        track: Where progress is shown.
        record: Takes one line of the log after each epoch.

    Returns:
        The head, for measuring; nothing else needs it.

    Raises:
        DivergedError: The loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    head = nn.Conv2d(encoder.channels, coverage.shape[1], 1)
    nn.init.constant_(head.bias, PRIOR)  # type: ignore[arg-type]
    network = nn.Sequential(encoder, head).to(memory_format=torch.channels_last).train()
    per_epoch = -(-len(images) // settings.batch_size)
    optimization = Optimization(network.parameters(), settings.learning_rate, settings.epochs * per_epoch)
    with track("Training the encoder", settings.epochs * len(images)) as advance:
        for epoch in range(settings.epochs):
            total = 0.0
            for rows in epoch_of_pictures(len(images), settings.batch_size, generator):
                pictures, labels = augment(images[rows], coverage[rows], generator)
                x = preprocessing.normalize(pictures).contiguous(memory_format=torch.channels_last)
                with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
                    logits = network(x)
                total += optimization.descend(cell_loss(logits.float(), labels)) * len(rows)
                advance(len(rows))
            record({"stage": "encoder", "epoch": epoch + 1, "loss": total / len(images)})
    network.eval()
    return head
