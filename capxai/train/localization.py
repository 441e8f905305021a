"""Teaches an encoder what is where: every cell of its grid learns which objects cover it.

Labels of whole pictures teach a small encoder little (where should it look?); labels of cells, made of the masks or boxes of a corpus,
teach it in a few epochs. The 1x1 convolution that reads the cells is thrown away afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from capxai.data.preprocessing import Preprocessing
from capxai.models.encoders.base import Encoder
from capxai.train.examples import FULL_COVERAGE, epoch_of_pictures
from capxai.train.optimization import Epoch, Optimization
from capxai.types import Advance

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
        seed: Seed of the head's first weights, of the order and of the augmentation.
        bfloat16: Whether convolutions run in bfloat16: much faster where the processor knows it, slower where not.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    bfloat16: bool = False


@dataclass(frozen=True)
class CellExamples:
    """Pictures and what covers their cells.

    Attributes:
        images: (N, S, S, 3) uint8.
        coverage: (N, Q, G, G) uint8, see `capxai.train.examples.cell_coverage`.
    """

    images: Tensor
    coverage: Tensor


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
    examples: CellExamples,
    settings: LocalizationSettings,
    advance: Advance,
) -> Iterator[Epoch]:
    """Train an encoder in place, epoch by epoch; it is in evaluation mode between epochs and at the end.

    Args:
        encoder: The encoder; its grid must be that of the examples.
        preprocessing: What the encoder expects.
        examples: Pictures and what covers their cells.
        settings: How to train.
        advance: Called with the number of pictures done.

    Raises:
        DivergedError: The loss is not finite.
    """
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    images, coverage = examples.images, examples.coverage
    head = nn.Conv2d(encoder.channels, coverage.shape[1], 1)
    assert head.bias is not None
    nn.init.constant_(head.bias, PRIOR)
    network = nn.Sequential(encoder, head).to(memory_format=torch.channels_last)
    steps = settings.epochs * -(-len(images) // settings.batch_size)
    optimization = Optimization([(network.parameters(), settings.learning_rate)], steps)
    for number in range(1, settings.epochs + 1):
        network.train()
        total = 0.0
        for rows in epoch_of_pictures(len(images), settings.batch_size, generator):
            pictures, labels = augment(images[rows], coverage[rows], generator)
            x = preprocessing.normalize(pictures).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
                logits = network(x)
            total += optimization.descend(cell_loss(logits.float(), labels)) * len(rows)
            advance(len(rows))
        network.eval()
        yield Epoch(number, total / len(images), optimization.learning_rate)
