"""Turns exceptions into one clear message and an exit code.

0 done, 1 an error, 2 usage (typer's own), 130 interrupted.
"""

from __future__ import annotations

import errno
import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer
from rich.markup import escape

from capxai.cli.rendering import printable
from capxai.cli.reporter import standard_error
from capxai.errors import CapxaiError

_FULL = {errno.ENOSPC, errno.EDQUOT}
INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""


def guarded(verb: Callable[..., None]) -> Callable[..., None]:
    """Wrap the function of a verb so that no exception reaches the user as a traceback.

    Called with ``debug=True`` it shows the traceback before the message. The signature stays: typer reads the options
    from it.
    """

    @functools.wraps(verb)
    def run(*arguments: Any, **keywords: Any) -> None:
        try:
            verb(*arguments, **keywords)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError as error:
            _silence_stdout()
            raise typer.Exit(1) from error
        except (Exception, KeyboardInterrupt) as error:
            if getattr(error, "errno", None) in _FULL:
                _silence_stdout()
            raise typer.Exit(_report(error, debug=bool(keywords.get("debug")))) from error

    run.__doc__ = _flowing(verb.__doc__)
    return run


def _flowing(text: str | None) -> str | None:
    """Join the lines of each paragraph, so that the help breaks them where the terminal ends and not where the source does."""
    if text is None:
        return None
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _report(error: BaseException, debug: bool) -> int:
    """Say on stderr what went wrong and return the exit code."""
    console = standard_error()
    if debug:
        console.out("".join(traceback.format_exception(error)), end="", highlight=False)
    if isinstance(error, KeyboardInterrupt):
        console.print("Interrupted.")
        return INTERRUPTED
    if isinstance(error, CapxaiError):
        console.print(f"[red]Error: {escape(printable(str(error)))}[/red]")
        return 1
    if isinstance(error, OSError) and error.errno in _FULL:
        name = escape(printable(str(error.filename or "the output")))
        advice = "Expected room for it. Free some space, or write to another disk."
        console.print(f"[red]Error: The disk is full: {name} could not be written. {advice}[/red]")
        return 1
    hint = "" if debug else " Run the same command again with --debug to see where."
    console.print(f"[red]Internal error: {escape(printable(f'{type(error).__name__}: {error}'))}.{hint}[/red]")
    return 1


def _silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not complain about the closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
