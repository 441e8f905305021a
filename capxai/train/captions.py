"""The task of learning captions, by any objective."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from capxai.models.captioner import Captioner
from capxai.train.cross_entropy import Objective
from capxai.train.examples import Chosen, References, plan_of_captions
from capxai.train.loop import Share
from capxai.train.sources import Read, Source

ObjectiveOfEpoch = Callable[[int], Objective]
"""What is made small in an epoch, counted from 1."""


class CaptionTask:
    """The task of `capxai.train.loop.Loop` that trains a captioner.

    Batch norms of the encoder keep their statistics.
    """

    def __init__(
        self,
        model: Captioner,
        source: Source,
        references: References,
        batch_size: int,
        objective_of: ObjectiveOfEpoch,
    ) -> None:
        """Take the model over.

        Args:
            model: The captioner, trained in place.
            source: Where its pictures come from.
            references: Their references.
            batch_size: Captions a step, over all processes.
            objective_of: What is made small in an epoch.
        """
        self.network = model
        self.read: Read = source.read
        self.workers = source.workers
        self._source, self._references, self._batch_size = source, references, batch_size
        self._objective_of = objective_of
        self._objective = objective_of(1)

    def plan(self, generator: torch.Generator) -> list[Chosen]:
        """Draw the batches of an epoch, see `plan_of_captions`."""
        return plan_of_captions(self._references, self._batch_size, generator)

    def rows(self, item: Chosen) -> Tensor:
        """Return the pictures of a batch, (B,) int64."""
        return item.rows

    def train(self, epoch: int) -> None:
        """Let the decoder drop and the encoder not."""
        self.network.eval()
        self.network.decoder.train()
        self._objective = self._objective_of(epoch)

    def loss(self, item: Chosen, found: Tensor, share: Share) -> tuple[Tensor, float]:
        """Return the summed loss of a share of a batch, and the number it is summed over."""
        batch = item.batch(self._references, self.network.vocabulary).share(share.first, share.count)
        memory = self._source.remember(self.network, found)
        return self._objective(self.network, memory, batch.to(found.device))
