"""Types that every floor may name, and that need no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]
"""A picture: (H, W, 3) uint8 RGB in [0, 255]."""

FloatArray = NDArray[np.float32]

JsonObject = dict[str, Any]

Advance = Callable[[int], None]
"""Moves a progress display on by a number of items."""


class Reporter(Protocol):
    """Where a recipe tells what it is doing. The command line draws it; a library call is silent by default."""

    def note(self, text: str) -> None:
        """Say something that the user should know (the model used, the device chosen)."""

    def warn(self, text: str) -> None:
        """Say something that may make the result less than was asked for."""

    def track(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Show progress over ``total`` items while the context lasts."""


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


SILENT = SilentReporter()
