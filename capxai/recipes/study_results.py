"""What all finished runs of a study say: means with intervals, and how each row differs from the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capxai.recipes.study import AT, CONTROL
from capxai.recipes.study_figures import FIGURES, Measured
from capxai.recipes.study_plan import PLAIN
from capxai.recipes.study_statistics import (
    Contrast,
    Mean,
    Nested,
    NestedDraws,
    bootstrap,
    contrast,
    differences,
    mean_of,
    repeated,
)
from capxai.types import JsonObject

Place = tuple[str, str, int]
"""Row, base model, seed."""


@dataclass(frozen=True)
class Figure:
    """One figure of one row on one split.

    Attributes:
        mean: Over the runs.
        drawn: Its bootstrap interval over base models, seeds and pictures (95 %); None where the figure is never defined.
        against: By control: how it differs from it.
        drawn_difference: By control: the bootstrap interval of that difference.
    """

    mean: Mean
    drawn: tuple[float, float] | None
    against: dict[str, Contrast]
    drawn_difference: dict[str, tuple[float, float] | None]

    def to_json(self) -> JsonObject:
        """Return the fields as a JSON object."""
        return {
            "mean": self.mean.to_json(),
            "bootstrap": self.drawn,
            "against": {name: found.to_json() for name, found in self.against.items()},
            "bootstrap_difference": self.drawn_difference,
        }


@dataclass(frozen=True)
class Results:
    """The comparison.

    Attributes:
        rows: The rows in the order of the tables.
        splits: The splits.
        figures: By split, row and figure.
        seconds: By row: median seconds of its runs.
    """

    rows: tuple[str, ...]
    splits: tuple[str, ...]
    figures: Mapping[str, Mapping[str, Mapping[str, Figure]]]
    seconds: Mapping[str, float]

    def names(self, split: str) -> list[str]:
        """Return the figures that a split has, in the order of the tables."""
        rows = self.figures[split].values()
        return [name for name in FIGURES if any(name in row for row in rows)]

    def to_json(self) -> JsonObject:
        """Return the fields as a JSON object."""
        figures = {
            split: {row: {name: one.to_json() for name, one in found.items()} for row, found in rows.items()}
            for split, rows in self.figures.items()
        }
        return {"rows": list(self.rows), "splits": figures, "seconds": dict(self.seconds)}


def controls_of(row: str) -> tuple[str, ...]:
    """Return what a row is compared with: the control of as many updates, and the one of as much compute."""
    if row == CONTROL:
        return ()
    return (CONTROL,) if AT in row or row == PLAIN else (CONTROL, f"{CONTROL}{AT}{row}")


def compare_runs(
    measured: Mapping[str, Mapping[Place, Measured]], rows: Sequence[str], seconds: Mapping[str, float]
) -> Results:
    """Compare all runs.

    Args:
        measured: By split: the figures of every finished run.
        rows: All rows of the study in order; those without a finished run are left out.
        seconds: By row: median seconds of its runs.
    """
    there = {row for found in measured.values() for row, _, _ in found}
    kept = tuple(row for row in rows if row in there)
    figures = {split: {row: _figures(found, row) for row in kept} for split, found in measured.items()}
    return Results(kept, tuple(measured), figures, {row: seconds[row] for row in kept if row in seconds})


def _figures(found: Mapping[Place, Measured], row: str) -> dict[str, Figure]:
    names = {name for place, one in found.items() if place[0] == row for name in one.values}
    return {name: _figure(found, row, name) for name in FIGURES if name in names}


def _figure(found: Mapping[Place, Measured], row: str, name: str) -> Figure:
    values, spread = _values(found, row, name), _draws(found, row, name)
    against, drawn = {}, {}
    for control in controls_of(row):
        theirs, others = _values(found, control, name), _draws(found, control, name)
        ours, own = (repeated(values, theirs), _repeated(spread, others)) if row == PLAIN else (values, spread)
        compared = contrast(ours, theirs) if theirs else None
        if compared is not None:
            against[control] = compared
            drawn[control] = bootstrap(differences(own, others))
    return Figure(mean_of(values), bootstrap(spread), against, drawn)


def _values(found: Mapping[Place, Measured], row: str, name: str) -> Nested:
    nested: dict[str, dict[int, float]] = {}
    for (its, base, seed), one in found.items():
        if its == row and name in one.values:
            nested.setdefault(base, {})[seed] = one.values[name]
    return nested


def _draws(found: Mapping[Place, Measured], row: str, name: str) -> NestedDraws:
    nested: dict[str, dict[int, NDArray[np.float64]]] = {}
    for (its, base, seed), one in found.items():
        if its == row and name in one.draws:
            nested.setdefault(base, {})[seed] = one.draws[name]
    return nested


def _repeated(draws: NestedDraws, control: NestedDraws) -> NestedDraws:
    return {
        base: dict.fromkeys(control[base], next(iter(seeds.values())))
        for base, seeds in draws.items()
        if base in control
    }
