"""The task of fine-tuning: rounds of updates in which every objective sees the same batches and drops the same units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from capxai.models.captioner import Captioner
from capxai.recipes.finetune_objectives import Objective
from capxai.train.captions import CaptionTask
from capxai.train.examples import CaptionBatch, Chosen, References, plan_of_captions
from capxai.train.loop import Share
from capxai.train.sources import Source


@dataclass(frozen=True, kw_only=True)
class SharedBatch(CaptionBatch):
    """The share of a batch that is computed at once, and the batch of all processes.

    Attributes:
        whole: Pictures and captions of all processes.
    """

    whole: Chosen


@dataclass(frozen=True)
class Rounds:
    """Updates, with a validation after each round of them.

    Attributes:
        updates: All together.
        length: Of a round; the last one may be shorter.
    """

    updates: int
    length: int

    @property
    def count(self) -> int:
        """How many rounds there are."""
        return -(-self.updates // self.length)

    def updates_of(self, number: int) -> int:
        """Return the updates of a round, counted from 1."""
        return min(self.length, self.updates - (number - 1) * self.length)

    def updates_after(self, number: int) -> int:
        """Return the updates of all rounds up to one."""
        return min(self.updates, number * self.length)


class FinetuneTask(CaptionTask):
    """The task of `capxai.train.loop.Loop` that fine-tunes a captioner: its "epochs" are rounds of updates.

    Each update draws from a random state of its own, which depends on the seed and on the number of the update alone. However much an
    objective draws, all of them find the same dropout in their first pass, and the same order of batches.
    """

    def __init__(
        self, model: Captioner, source: Source, references: References, objective: Objective, sizes: tuple[int, Rounds]
    ) -> None:
        """Take the model over.

        Args:
            model: The captioner, trained in place.
            source: Where its pictures come from.
            references: Their references.
            objective: What is made small.
            sizes: Captions a step over all processes, and the rounds.
        """
        batch_size, self._rounds = sizes
        super().__init__(model, source, references, batch_size, lambda epoch: objective)
        self.running: Callable[[], int] = lambda: 1
        """Tells the running round, counted from 1."""

    def plan(self, generator: torch.Generator) -> list[Chosen]:
        """Draw the batches of a round: as many passes over the pictures as it takes, cut off after its last update."""
        updates = self._rounds.updates_of(self.running())
        found: list[Chosen] = []
        while len(found) < updates:
            found += plan_of_captions(self._references, self._batch_size, generator)
        return found[:updates]

    def loss(self, item: Chosen, found: Tensor, share: Share) -> tuple[Tensor, float]:
        """Return the summed loss of a share of a batch, and the number it is summed over."""
        batch = item.batch(self._references, self.network.vocabulary).share(share.first, share.count).to(found.device)
        with _own_random_state():
            memory = self._source.remember(self.network, found)
            return self._objective(self.network, memory, SharedBatch(**vars(batch), whole=item))


@contextmanager
def _own_random_state() -> Iterator[None]:
    """Seed torch from one number of its own; afterwards its state on the CPU is as if that had been all that was drawn."""
    seed = int(torch.randint(2**62, ()))
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
