"""Parts of reports that several verbs print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from capxai.cli.reporter import standard_error, standard_output

if TYPE_CHECKING:
    from capxai.recipes.failures import Failure


def print_line(text: str) -> None:
    """Write one line to stdout as it is: no markup, no wrapping, and a tab stays a tab."""
    typer.echo(printable(text))


def printable(text: str) -> str:
    """Replace what no encoding has: file names that are no UTF-8 reach Python as lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Write a table to stdout: the first ``left`` columns to the left, the others to the right."""
    if title:
        print_line(title)
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(header))
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place < left else "right")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    standard_output().print(table)


def end_with_failures(failures: Sequence[Failure], total: int) -> None:
    """Name the pictures that were left out, after the others are done.

    Raises:
        typer.Exit: With 1, if there are any.
    """
    if not failures:
        return
    sys.stdout.flush()
    console = standard_error()
    if total > 1:
        console.print(f"[red]{len(failures)} of {total} pictures failed; the others are done.[/red]")
    for failure in failures:
        console.print(f"[red]Error: {escape(printable(failure.message))}[/red]")
    raise typer.Exit(1)
