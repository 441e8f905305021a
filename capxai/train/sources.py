"""Where the pictures of a batch come from, read ahead while the network computes.

Axes: N pictures of the split, B batch, K regions, C channels, S image size.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from capxai.models.captioner import Captioner
from capxai.models.state import Memory

Read = Callable[[Tensor], Tensor]
"""Reads what belongs to the given rows, (B,) int64; safe in threads and, where there are worker processes, picklable."""
AHEAD = 4
"""Batches that a reading thread may be ahead; each worker process has two."""


class Source(Protocol):
    """The pictures of a split: rows are read somewhere, and prepared where the model is."""

    @property
    def read(self) -> Read:
        """What reads rows, without the model: the part that is done ahead."""

    @property
    def workers(self) -> int:
        """Processes that read; 0 for a thread."""

    def remember(self, model: Captioner, found: Tensor) -> Memory:
        """Prepare what was read, already on the model's device."""


@dataclass(frozen=True)
class FeatureSource:
    """Stored features: ``read`` gives (B, K, C) of any floating-point type."""

    read: Read
    workers: int = 0

    def remember(self, model: Captioner, found: Tensor) -> Memory:
        """Prepare features (B, K, C)."""
        return model.remember(found.to(torch.float32))


@dataclass(frozen=True)
class PictureSource:
    """Pictures: ``read`` gives (B, S, S, 3) uint8.

    Attributes:
        read: See `Read`.
        workers: Processes that read.
        frozen: Whether the encoder learns nothing, so that no gradient has to reach it.
    """

    read: Read
    workers: int = 0
    frozen: bool = False

    def remember(self, model: Captioner, found: Tensor) -> Memory:
        """Send pictures (B, S, S, 3) through the encoder."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = model.features(model.preprocessing.normalize(found))
        return model.remember(features)


@dataclass(frozen=True)
class Rows:
    """Reads rows of a tensor in memory, (N, ...)."""

    tensor: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """Return (B, ...)."""
        return self.tensor[rows]


@dataclass
class Reader:
    """Reads batches ahead and measures how long the caller had to wait for them.

    Attributes:
        read: Reads the rows of one batch.
        workers: Processes that read; 0 for one thread.
        waited: Seconds that the caller has waited.
    """

    read: Read
    workers: int = 0
    waited: float = 0.0

    def batches(self, plan: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield what belongs to each entry of the plan, in its order."""
        found = self._by_processes(plan) if self.workers else self._by_thread(plan)
        try:
            while True:
                begun = time.perf_counter()
                item = next(found, None)
                self.waited += time.perf_counter() - begun
                if item is None:
                    return
                yield item
        finally:
            found.close()

    def _by_thread(self, plan: Sequence[Tensor]) -> Generator[Tensor, None, None]:
        with ThreadPoolExecutor(1, "reader") as pool:
            waiting: deque[Future[Tensor]] = deque()
            try:
                for rows in plan:
                    waiting.append(pool.submit(self.read, rows))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _by_processes(self, plan: Sequence[Tensor]) -> Generator[Tensor, None, None]:
        loader = DataLoader(
            _Planned(self.read, plan),
            batch_size=None,
            num_workers=min(self.workers, max(1, len(plan))),
            generator=torch.Generator(),  # or it would draw from the random state of training
            worker_init_fn=_leave_interrupts_to_the_parent,
        )
        yield from loader


@dataclass(frozen=True)
class _Planned(Dataset[Tensor]):
    """The batches of a plan by number."""

    read: Read
    plan: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, number: int) -> Tensor:
        return self.read(self.plan[number])


def _leave_interrupts_to_the_parent(number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
