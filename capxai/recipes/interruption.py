"""Ctrl-C and SIGTERM as a wish that is granted between two steps, where everything is whole."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from capxai.types import Advance, Reporter, Show

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_ECHO_SECONDS = 10.0
"""For so long, a second signal under torchrun is taken for the first: the terminal and torchrun both pass on one Ctrl-C."""


def _has_launcher() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != "1"


class Interruption:
    """Whether somebody wants the run to end.

    Attributes:
        wanted: Whether a signal has come.
        hurried: Whether a second one has: then nothing is known to be whole but what is on the disk.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.hurried = False
        self._since = 0.0

    def check(self) -> None:
        """Stop here if a signal has come.

        Raises:
            KeyboardInterrupt: One has.
        """
        if self.wanted:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            if _has_launcher() and time.monotonic() - self._since < _ECHO_SECONDS:
                return
            self.hurried = True
            raise KeyboardInterrupt
        self.wanted, self._since = True, time.monotonic()


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Catch the first Ctrl-C or SIGTERM; a second one interrupts at once, as it does outside. Outside the main thread, catch nothing."""
    found = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = {number: signal.signal(number, found._note) for number in SIGNALS}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does, with the same message. Outside the main thread, change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise KeyboardInterrupt
        os._exit(128 + number)  # a worker process that was forked meanwhile

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class CheckingReporter:
    """A reporter during whose tracked work a run can be stopped: at every piece of progress.

    Args:
        reporter: The reporter that shows it.
        found: What to look at.
    """

    def __init__(self, reporter: Reporter, found: Interruption) -> None:
        self._reporter, self._found = reporter, found

    def note(self, text: str) -> None:
        """Pass a note on."""
        self._reporter.note(text)

    def warn(self, text: str) -> None:
        """Pass a warning on."""
        self._reporter.warn(text)

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        """Show progress; stop where that is wanted."""
        with self._reporter.track(description, total) as advance:

            def check_and_advance(amount: int) -> None:
                self._found.check()
                advance(amount)

            yield check_and_advance

    def dashboard(self, title: str) -> AbstractContextManager[Show]:
        """Show a live display."""
        return self._reporter.dashboard(title)
