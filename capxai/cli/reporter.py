"""Shows what a recipe is doing: notes, warnings and progress on stderr, results on stdout."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from rich.progress import Progress

    from capxai.types import Advance, JsonObject, Show

WIDTH_OF_A_PIPE = 200
"""Characters."""


def standard_output() -> Console:
    """Return the console for results. Rich leaves colors out when stdout is no terminal or ``NO_COLOR`` is set.

    A pipe has no width; its tables get enough for their columns to stay on one line.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_PIPE
    return console


def standard_error() -> Console:
    """Return the console for notes, warnings, errors and progress."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def speaks() -> bool:
    """Tell whether this process speaks to the user: of those that torchrun starts together, the first does."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def print_text(text: str) -> None:
    """Write a line to stdout as it is, once for all processes that run together."""
    if speaks():
        typer.echo(text)


def print_json(value: JsonObject) -> None:
    """Write a report to stdout as JSON, unstyled and unwrapped, once for all processes that run together.

    Raises:
        ValueError: A number is not finite; JSON has no such number.
    """
    print_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


class RichReporter:
    """A `capxai.types.Reporter` on stderr. Of processes that run together only the first shows more than warnings.

    Args:
        quiet: Leave out notes and progress. Warnings always show.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet or not speaks()
        self._console = standard_error()
        self._progress: Progress | None = None
        self._show: Show | None = None

    def note(self, text: str) -> None:
        """Print a note."""
        if not self._quiet:
            self._console.print(escape(text))

    def warn(self, text: str) -> None:
        """Print a warning in yellow."""
        self._console.print(f"[yellow]Warning: {escape(text)}[/yellow]")

    @property
    def _draws(self) -> bool:
        return not self._quiet and self._console.is_terminal

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        """Show a progress bar on a terminal, nothing elsewhere. Bars may be nested; they share one display."""
        if not self._draws:
            yield lambda amount: None
            return
        outermost = self._progress is None
        if self._progress is None:
            self._progress = self._bars()
            self._progress.start()
        progress = self._progress
        task = progress.add_task(escape(description), total=total)
        try:
            yield lambda amount: progress.advance(task, amount)
        finally:
            if outermost:
                progress.stop()
                self._progress = None
            else:
                progress.remove_task(task)

    @contextmanager
    def dashboard(self, title: str) -> Iterator[Show]:
        """Show a training live on a terminal, nothing elsewhere. Bars of `track` move into it while it is there."""
        if not self._draws:
            yield lambda status: None
            return
        if self._show is not None:  # a stage inside a training: the display is there already
            yield self._show
            return
        from capxai.cli.dashboard import Dashboard

        outer = self._progress
        if outer is not None:
            outer.stop()  # a terminal has room for one live display
        self._progress = outer or self._bars()
        dashboard = Dashboard(title, self._progress)
        self._show = dashboard.show
        try:
            with dashboard.live(self._console):
                yield dashboard.show
        finally:
            self._show, self._progress = None, outer
            if outer is not None:
                outer.start()

    def _bars(self) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, console=self._console, transient=True)
