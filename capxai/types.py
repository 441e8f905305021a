"""Types that every floor may name, and that need no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]
"""A picture: (H, W, 3) uint8 RGB in [0, 255]."""

FloatArray = NDArray[np.float32]

JsonObject = dict[str, Any]

Advance = Callable[[int], None]
"""Moves a progress display on by a number of items."""


@dataclass(frozen=True)
class TrainingStatus:
    """Where a training stands: what a live display shows.

    Attributes:
        stage: What is being trained ("encoder", "decoder", "joint", "self-critical").
        epoch: The running epoch, from 1.
        epochs: How many epochs the stage has.
        step: Optimizer steps done in this epoch.
        steps: Optimizer steps of this epoch.
        loss: Mean loss of the epoch so far; None before the first step.
        learning_rate: Of the decoder, or of whatever the stage trains.
        tokens_per_second: Words of the captions trained on, by the clock on the wall; None before the first step.
        waiting_share: Share of the time spent waiting for data, in [0, 1].
        eta_seconds: Time left in the whole stage, validation included as far as it is known; None where nothing is known yet.
        validation: The figures of the last validation; empty before the first.
        samples: (reference, caption) of pictures of the validation split, from the last validation.
    """

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    waiting_share: float = 0.0
    eta_seconds: float | None = None
    validation: Mapping[str, float] = field(default_factory=dict)
    samples: tuple[tuple[str, str], ...] = ()


Show = Callable[[TrainingStatus], None]
"""Hands a live display the newest status. It costs microseconds; the display draws when it is due."""


class Reporter(Protocol):
    """Where a recipe tells what it is doing. The command line draws it; a library call is silent by default."""

    def note(self, text: str) -> None:
        """Say something that the user should know (the model used, the device chosen)."""

    def warn(self, text: str) -> None:
        """Say something that may make the result less than was asked for."""

    def track(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Show progress over ``total`` items while the context lasts."""

    def dashboard(self, title: str) -> AbstractContextManager[Show]:
        """Show a training live while the context lasts."""


class SilentReporter:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Drop the note."""

    def warn(self, text: str) -> None:
        """Drop the warning."""

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        """Yield an ``advance`` that does nothing."""
        yield lambda amount: None

    @contextmanager
    def dashboard(self, title: str) -> Iterator[Show]:
        """Yield a ``show`` that does nothing."""
        yield lambda status: None


SILENT = SilentReporter()
