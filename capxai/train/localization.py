"""Teaches an encoder what is where: every cell of its grid learns which objects cover it.

Labels of whole pictures teach a small encoder little (where should it look?); labels of cells, made of the masks or boxes of a corpus,
teach it in a few epochs. The 1x1 convolution that reads the cells is thrown away afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from capxai.data.preprocessing import Preprocessing
from capxai.models.encoders.base import Encoder
from capxai.train.examples import FULL_COVERAGE
from capxai.train.loop import Share
from capxai.train.sources import Read

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
class CellExamples:
    """Pictures and what covers their cells.

    Attributes:
        read: Reads pictures, (B, S, S, 3) uint8.
        coverage: (N, Q, G, G) uint8, see `capxai.train.examples.cell_coverage`.
        workers: Processes that read.
    """

    read: Read
    coverage: Tensor
    workers: int = 0


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


class CellTask:
    """The task of `capxai.train.loop.Loop` that trains an encoder; it is the whole batch's in every process.

    Batch norms measure every batch as a whole, so a batch cannot be shared: all processes compute the same.
    """

    def __init__(self, encoder: Encoder, preprocessing: Preprocessing, examples: CellExamples, batch_size: int) -> None:
        """Put a head on the encoder, whose weights are drawn from PyTorch's global random state.

        Args:
            encoder: The encoder; its grid must be that of the examples.
            preprocessing: What the encoder expects.
            examples: Pictures and what covers their cells.
            batch_size: Pictures a step.
        """
        head = nn.Conv2d(encoder.channels, examples.coverage.shape[1], 1)
        assert head.bias is not None
        nn.init.constant_(head.bias, PRIOR)
        self.network: nn.Module = nn.Sequential(encoder, head).to(memory_format=torch.channels_last)
        self.read: Read = examples.read
        self.workers = examples.workers
        self._coverage, self._preprocessing, self._batch_size = examples.coverage, preprocessing, batch_size

    def plan(self, generator: torch.Generator) -> list[Tensor]:
        """Draw the batches of an epoch: every picture once, in random order."""
        return list(torch.randperm(len(self._coverage), generator=generator).split(self._batch_size))

    def rows(self, item: Tensor) -> Tensor:
        """Return the pictures of a batch, (B,) int64."""
        return item

    def train(self, epoch: int) -> None:
        """Let batch norms measure."""
        self.network.train()

    def loss(self, item: Tensor, found: Tensor, share: Share) -> tuple[Tensor, float]:
        """Return the summed loss of a batch of pictures (B, S, S, 3) uint8, augmented, and B."""
        device = found.device
        pictures, labels = augment(found.cpu(), self._coverage[item], share.generator)
        x = self._preprocessing.normalize(pictures.to(device)).contiguous(memory_format=torch.channels_last)
        loss = cell_loss(self.network(x).float(), labels.to(device))
        return loss * len(item), len(item)
