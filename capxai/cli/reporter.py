"""Shows what a recipe is doing: notes, warnings and progress on stderr, results on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from rich.progress import Progress

    from capxai.types import Advance, JsonObject

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


def print_json(value: JsonObject) -> None:
    """Write a report to stdout as JSON, unstyled and unwrapped.

    Raises:
        ValueError: A number is not finite; JSON has no such number.
    """
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


class RichReporter:
    """A `capxai.types.Reporter` on stderr.

    Args:
        quiet: Leave out notes and progress. Warnings always show.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = standard_error()
        self._progress: Progress | None = None

    def note(self, text: str) -> None:
        """Print a note."""
        if not self._quiet:
            self._console.print(escape(text))

    def warn(self, text: str) -> None:
        """Print a warning in yellow."""
        self._console.print(f"[yellow]Warning: {escape(text)}[/yellow]")

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        """Show a progress bar on a terminal, nothing elsewhere. Bars may be nested; they share one display."""
        if self._quiet or not self._console.is_terminal:
            yield lambda amount: None
            return
        outermost = self._progress is None
        progress = self._progress or self._start()
        task = progress.add_task(escape(description), total=total)
        try:
            yield lambda amount: progress.advance(task, amount)
        finally:
            if outermost:
                progress.stop()
                self._progress = None
            else:
                progress.remove_task(task)

    def _start(self) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._progress.start()
        return self._progress
