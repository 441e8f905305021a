"""``capxai doctor``: what is installed, what works here, and what to do about what does not."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import typer

from capxai.cli.options import Debug, Json, Quiet
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capxai.recipes.doctor_check import Check

EXAMPLES = ("capxai doctor", "capxai doctor --json > report.json")
LONGEST_CELL = 90
"""Characters of what was found that a table shows; ``--json`` has all of it."""


def doctor(json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Look at versions, devices, Java, weights and disk, and try the bundled model.

    Exits with 1 if it cannot explain.
    """
    from capxai.recipes.doctor import DoctorConfig, run

    report = run(DoctorConfig(), RichReporter(quiet))
    if json:
        print_json(report.to_json())
    else:
        _print_checks("What is here", report.checks)
        print_line("")
        _print_checks("What works here", report.works)
        _print_advice((*report.checks, *report.works))
    if not report.can_explain:
        raise typer.Exit(1)


def _print_checks(title: str, checks: Sequence[Check]) -> None:
    rows = [(f"{check.status:4}  {check.name}", textwrap.shorten(check.found, LONGEST_CELL)) for check in checks]
    print_table(title, ("", ""), rows, left=2)


def _print_advice(checks: Sequence[Check]) -> None:
    advised = [check for check in checks if check.advice and not check.advice.startswith("See ")]
    if not advised:
        return
    print_line("\nWhat to do")
    for check in advised:
        print_line(f"{check.name}: {check.advice}")
