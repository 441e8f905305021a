"""What the doctor says of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "fail"]
"""``note``: something optional is missing. ``fail``: something capxai needs is."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What it is.
        status: Whether it is well.
        found: What was found.
        advice: What to do, empty where nothing is to be done.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def ability(name: str, *needed: Check) -> Check:
    """Combine the checks that something depends on: the worst of them counts."""
    lacking = [check for check in needed if check.status != "ok"]
    if not lacking:
        return Check(name, "ok", "works")
    status: Status = "fail" if any(check.status == "fail" for check in lacking) else "note"
    found = "; ".join(f"{check.name}: {check.found}" for check in lacking)
    return Check(name, status, found, "See " + ", ".join(check.name for check in lacking) + ".")
