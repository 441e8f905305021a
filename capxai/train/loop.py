"""The loop of training: epochs of batches, shared by processes and cut into parts, whose whole state can be saved between two steps.

The loop knows no captions. What is learned is a `Task`; whoever iterates over `Loop.run` validates, saves and shows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from capxai.layers.dropout import global_batch
from capxai.train.optimization import Numerics, Optimization
from capxai.train.processes import Processes
from capxai.train.randomness import random_state, set_random_state
from capxai.train.sources import Read, Reader

Item = Any
"""One batch as the plan of a task has it; only the task looks into it."""


class Task(Protocol):
    """What is learned."""

    @property
    def network(self) -> nn.Module:
        """All that has weights or statistics to save. It is called only through the task."""

    @property
    def read(self) -> Read:
        """What reads the rows of an item, ahead of time."""

    @property
    def workers(self) -> int:
        """Processes that read."""

    def plan(self, generator: torch.Generator) -> list[Item]:
        """Draw the batches of an epoch. All randomness of their order is drawn here."""

    def rows(self, item: Item) -> Tensor:
        """Return the pictures of a batch, (B,) int64."""

    def loss(self, item: Item, found: Tensor, share: Share) -> tuple[Tensor, float]:
        """Return the summed loss of the share of a batch, and the number it is summed over."""

    def train(self, epoch: int) -> None:
        """Make ready for an epoch, counted from 1: the mode of every module, the objective."""


@dataclass(frozen=True)
class Share:
    """The rows of a batch that are computed at once.

    Attributes:
        first: The first of them.
        count: How many.
        total: How many the whole batch has.
        generator: Source of the randomness of steps, where the task wants one.
    """

    first: int
    count: int
    total: int
    generator: torch.Generator


@dataclass(frozen=True)
class Progress:
    """Where the loop stands after a step.

    Attributes:
        epoch: From 1.
        step: Steps taken in this epoch.
        steps: Steps of this epoch.
        loss: Mean over the epoch so far.
        learning_rate: Of the next step.
        taken: Steps of this epoch that this process has taken.
        number: What their loss was summed over: words or pictures.
        seconds: Computing and waiting since this process began the epoch.
        waited: Of these, waiting for data.
        over: Whether the epoch is over, and `Loop.next_epoch` is to be called once it has been dealt with.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    taken: int
    number: float
    seconds: float
    waited: float
    over: bool


@dataclass(frozen=True)
class LoopSettings:
    """How a loop runs.

    Attributes:
        epochs: Times that every picture is seen.
        seed: Seed of the order and of all that is random in a step.
        numerics: Where and how exactly.
        parts: Into how many parts a batch is cut; their gradients are added up.
    """

    epochs: int
    seed: int
    numerics: Numerics
    parts: int = 1


@dataclass
class _Position:
    """Where a loop is between two steps, with the sums of the epoch."""

    epoch: int = 1
    step: int = 0
    total: float = 0.0
    number: float = 0.0


class _Lesson(nn.Module):
    """The forward pass that DistributedDataParallel wraps: it returns the loss."""

    def __init__(self, task: Task, numerics: Numerics) -> None:
        super().__init__()
        self.network = task.network
        self._task, self._numerics = task, numerics

    def forward(self, item: Item, found: Tensor, share: Share) -> tuple[Tensor, float]:
        with self._numerics.autocast():
            return self._task.loss(item, found, share)


@dataclass
class Loop:
    """A training that can be stopped after any step and gone on with later, with the same result bit for bit on the CPU.

    PyTorch's global random state is seeded, for dropout.

    Attributes:
        task: What is learned.
        optimization: How; made for the task's network on its device.
        settings: For how long, from which seed.
        group: The processes that share every batch.
    """

    task: Task
    optimization: Optimization
    settings: LoopSettings
    group: Processes
    stop_wanted: bool = False
    stopping: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(self.settings.seed)
        self._generator = torch.Generator().manual_seed(self.settings.seed)
        self._epoch_began = self._generator.get_state()
        self._position = _Position()
        self._lesson: nn.Module = _Lesson(self.task, self.settings.numerics)
        if self.group.world > 1:
            self._lesson = DistributedDataParallel(self._lesson, broadcast_buffers=False)

    @property
    def epoch(self) -> int:
        """The running epoch, from 1."""
        return self._position.epoch

    def state(self) -> dict[str, Any]:
        """Return all that a later process needs to go on from here: tensors and plain values."""
        return {
            "network": self.task.network.state_dict(),
            "optimization": self.optimization.state(),
            "position": dict(vars(self._position)),
            "random": random_state(self.settings.numerics.device),
            "generator": self._generator.get_state(),
            "epoch_generator": self._epoch_began,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.task.network.load_state_dict(state["network"])
        self.optimization.restore(state["optimization"])
        self._position = _Position(**state["position"])
        self._generator.set_state(state["generator"])
        self._epoch_began = state["epoch_generator"]
        set_random_state(state["random"], self.settings.numerics.device)

    def run(self) -> Iterator[Progress]:
        """Train to the end, pausing after every step; `state` is whole at each pause.

        Raises:
            DivergedError: The loss is not finite; the weights are those before the step.
        """
        while self._position.epoch <= self.settings.epochs and not self.stopping:
            epoch = self._position.epoch
            yield from self._run_epoch()
            if self._position.epoch == epoch and not self.stopping:
                raise RuntimeError("next_epoch was not called at the end of an epoch")

    def next_epoch(self) -> None:
        """Go on to the next epoch, once the end of this one has been dealt with."""
        self._position = _Position(self._position.epoch + 1)
        self._epoch_began = self._generator.get_state()

    def _plan(self) -> list[Item]:
        """Draw the batches of the running epoch, again where the loop was resumed inside it."""
        now = self._generator.get_state()
        self._generator.set_state(self._epoch_began)
        plan = self.task.plan(self._generator)
        if self._position.step:  # what the steps so far have drawn is drawn
            self._generator.set_state(now)
        return plan

    def _run_epoch(self) -> Iterator[Progress]:
        plan, position = self._plan(), self._position
        begun, before = time.perf_counter(), replace(position)
        if position.step == len(plan):  # resumed at the end of the epoch
            yield self._progress(len(plan), before, 0.0, 0.0)
            return
        coming = plan[position.step :]
        shares = [self._shares(len(self.task.rows(item))) for item in coming]
        rows = [self._own_rows(item, share) for item, share in zip(coming, shares, strict=True)]
        reader = Reader(self.task.read, self.task.workers)
        self.task.train(position.epoch)
        for item, share, found in zip(coming, shares, reader.batches(rows), strict=True):
            total, number = self._step(item, share, found)
            position.step += 1
            position.total, position.number = position.total + total, position.number + number
            yield self._progress(len(plan), before, time.perf_counter() - begun, reader.waited)
            self.task.train(position.epoch)  # whoever looked in may have validated

    def _own_rows(self, item: Item, shares: list[Share]) -> Tensor:
        return self.task.rows(item)[shares[0].first : shares[-1].first + shares[-1].count]

    def _progress(self, steps: int, before: _Position, seconds: float, waited: float) -> Progress:
        position = self._position
        return Progress(
            epoch=position.epoch,
            step=position.step,
            steps=steps,
            loss=position.total / max(position.number, 1e-12),
            learning_rate=self.optimization.learning_rate,
            taken=position.step - before.step,
            number=position.number - before.number,
            seconds=seconds,
            waited=waited,
            over=position.step == steps,
        )

    def _shares(self, total: int) -> list[Share]:
        """Cut a batch into equal shares for the processes, and the own one into parts; a share may be empty."""
        pieces = self.group.world * self.settings.parts
        bounds = [total * piece // pieces for piece in range(pieces + 1)]
        own = range(self.group.rank * self.settings.parts, (self.group.rank + 1) * self.settings.parts)
        return [Share(bounds[i], bounds[i + 1] - bounds[i], total, self._generator) for i in own]

    def _step(self, item: Item, shares: list[Share], found: Tensor) -> tuple[float, float]:
        """Take one step; return the summed loss and its number over all processes and parts."""
        device = self.settings.numerics.device
        found = found.to(device, non_blocking=True)
        if len(shares) == 1:
            return self._step_at_once(item, shares[0], found)
        random, sums = random_state(device), torch.zeros(3, dtype=torch.float64)
        for place, share in enumerate(shares):
            set_random_state(random, device)  # every part drops what the whole batch drops
            begin = share.first - shares[0].first
            with self._dropping(share), self._syncing(place == len(shares) - 1):
                loss, mine = self._forward(item, found[begin : begin + share.count], share)
                self.optimization.backward(loss * (self.group.world / share.total))
            sums += mine
        total, number = self._note(self.group.sum(sums))
        self.optimization.descend(total / number, shares[0].total / number)
        return total, number

    def _step_at_once(self, item: Item, share: Share, found: Tensor) -> tuple[float, float]:
        with self._dropping(share):
            loss, mine = self._forward(item, found, share)
            total, number = self._note(self.group.sum(mine))
            self.optimization.backward(loss * (self.group.world / number))
        self.optimization.descend(total / number)
        return total, number

    def _forward(self, item: Item, found: Tensor, share: Share) -> tuple[Tensor, Tensor]:
        """Return the summed loss, and (3,): it, what it is summed over, and whether a stop is wanted."""
        loss, number = self._lesson(item, found, share)
        return loss, torch.tensor([float(loss.detach()), number, float(self.stop_wanted)], dtype=torch.float64)

    def _note(self, sums: Tensor) -> tuple[float, float]:
        total, number, stops = sums.tolist()
        self.stopping = stops > 0
        return total, max(number, 1e-12)

    def _syncing(self, last: bool) -> AbstractContextManager[None]:
        """Let processes exchange gradients after the last part alone."""
        if last or not isinstance(self._lesson, DistributedDataParallel):
            return nullcontext()
        return self._lesson.no_sync()

    def _dropping(self, share: Share) -> AbstractContextManager[None]:
        """Let dropout know that a share is a part of a batch."""
        if share.count == share.total:
            return nullcontext()
        return global_batch(min(share.first, share.total - 1), share.total)
