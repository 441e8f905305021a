"""Two systems on the same pictures: the difference of each figure, by paired bootstrap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from capxai.evaluate.bootstrap import Difference, difference
from capxai.recipes.evaluation_scores import Figure
from capxai.types import JsonObject


@dataclass(frozen=True)
class ComparedFigure:
    """A figure of two systems.

    Attributes:
        this: Of the system that is evaluated.
        other: Of the one that it is compared with.
        difference: This minus other, with its paired interval.
    """

    this: float
    other: float
    difference: Difference

    def to_json(self) -> JsonObject:
        """Return the numbers as a flat JSON object."""
        found = self.difference
        numbers = {"difference": found.value, "low": found.low, "high": found.high, "p": found.p}
        return {"this": self.this, "other": self.other, **numbers}


@dataclass(frozen=True)
class Comparison:
    """All figures that both systems have.

    Attributes:
        other: Name of the other system.
        other_sha256: Hash of its captions.
        overall: By name of the figure.
    """

    other: str
    other_sha256: str
    overall: Mapping[str, ComparedFigure]

    def to_json(self) -> JsonObject:
        """Return the comparison as a JSON object."""
        figures = {name: figure.to_json() for name, figure in self.overall.items()}
        return {"other": self.other, "other_predictions_sha256": self.other_sha256, "overall": figures}


def compare(this: Mapping[str, Figure], other: Mapping[str, Figure]) -> dict[str, ComparedFigure]:
    """Compare the figures that are defined for both; their draws are of the same weights."""
    return {
        name: ComparedFigure(
            one.value, other[name].value, difference((one.value, one.spread), (other[name].value, other[name].spread))
        )
        for name, one in this.items()
        if name in other
    }
