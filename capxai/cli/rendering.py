"""Parts of reports that several verbs print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from capxai.cli.reporter import RichReporter, print_text, speaks, standard_error, standard_output

if TYPE_CHECKING:
    from capxai.recipes.failures import Failure
    from capxai.types import JsonObject

PHOTOGRAPHS = (
    "For photographs, use a model that knows them: import a published checkpoint (capxai import-checkpoint) or train "
    "on photographs in COCO format (capxai train --corpus DIR), and pass its folder with --model DIR."
)


def print_line(text: str) -> None:
    """Write one line to stdout as it is: no markup, no wrapping, and a tab stays a tab."""
    print_text(printable(text))


def printable(text: str) -> str:
    """Replace what no encoding has: file names that are no UTF-8 reach Python as lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Write a table to stdout: the first ``left`` columns to the left, the others to the right."""
    if not speaks():
        return
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
    for message in dict.fromkeys(failure.message for failure in failures):
        console.print(f"[red]Error: {escape(printable(message))}[/red]")
    raise typer.Exit(1)


def warn_of_domain(model: str, note: str, reporter: RichReporter) -> None:
    """Say what kind of pictures a model knows, and for the bundled model how to get one for photographs."""
    if note:
        reporter.warn(note)
    if model == "bundled":
        reporter.note(PHOTOGRAPHS)


def print_figures(report: JsonObject) -> None:
    """Write a report of figures to stdout: first its single values, then one table for each group of them.

    A group of groups is a table with one row each. An estimate with its interval stands there without the interval, which
    ``--json`` has, as it has whatever is nested deeper.
    """
    single = {name: value for name, value in report.items() if not isinstance(value, dict | list)}
    if single:
        print_table("", ("", ""), [(_title(name), _figure(value)) for name, value in single.items()])
    for name, group in report.items():
        if not isinstance(group, dict) or not group:
            continue
        rows = group if all(isinstance(row, dict) for row in group.values()) else {"": group}
        columns = list(dict.fromkeys(column for row in rows.values() for column in row if _fits(row[column])))
        cells = [(key, *(_figure(row.get(column)) for column in columns)) for key, row in rows.items()]
        print_line("")
        print_table(_title(name), ("", *map(_title, columns)), cells)


def _fits(value: object) -> bool:
    return not isinstance(value, dict) or "value" in value


def _title(name: str) -> str:
    return str(name).replace("_", " ")


def _figure(value: object) -> str:
    """Return a number with four digits that count, nothing as "-", and two or three numbers as an interval."""
    if isinstance(value, dict):
        return _figure(value["value"])
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_figure, value))}]"
    return str(value)
