"""Draws the curve of a training: loss in one panel, CIDEr in the other, one stage after the other."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from capxai.types import JsonObject

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, DOTS_PER_INCH = 7.0, 5.5, 130
TRAINING, VALIDATION = "#0072B2", "#D55E00"
"""Blue and vermilion, which the color-blind tell apart (Okabe and Ito 2008)."""
MARKED_UP_TO = 40
"""Epochs; more of them make a line of their own."""

Points = list[float | None]


def draw_curve(records: Sequence[JsonObject]) -> bytes:
    """Draw the epochs among the records of a training.

    Args:
        records: As `capxai.recipes.training_log.TrainingLog` describes them.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    epochs = [record for record in records if "epoch" in record]
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="tight")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    stages = [str(record.get("stage", "")) for record in epochs]
    # The loss of a stage with a reward is no cross-entropy, so it does not share an axis with the others.
    _panel(
        above,
        "loss",
        stages,
        training=[None if "reward" in record else _number(record.get("loss")) for record in epochs],
        validation=[_number(_validation(record, "loss")) for record in epochs],
    )
    _panel(
        below,
        "CIDEr",
        stages,
        training=[_number(record.get("reward")) for record in epochs],
        validation=[_number(_validation(record, "cider")) for record in epochs],
    )
    _name_stages(above, stages)
    below.set_xlabel("epoch")
    below.xaxis.get_major_locator().set_params(integer=True)
    if epochs and epochs[0].get("epoch") == 0:  # what the training began with
        below.xaxis.set_major_formatter(lambda place, _: f"{place - 1:g}")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    return file.getvalue()


def _validation(record: JsonObject, name: str) -> Any:
    figures = record.get("validation") or {}
    return next((value for key, value in figures.items() if str(key).lower() == name), None)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _panel(axes: Axes, label: str, stages: Sequence[str], training: Points, validation: Points) -> None:
    for name, points, color in (("training", training, TRAINING), ("validation", validation, VALIDATION)):
        marker = "o" if len(points) <= MARKED_UP_TO else ""
        shown = name
        for begin, end in _runs(stages):
            places = [place for place in range(begin, end) if points[place] is not None]
            if places:
                values = [float(points[place] or 0.0) for place in places]
                axes.plot([place + 1 for place in places], values, color=color, marker=marker, ms=3.5, label=shown)
                shown = "_"  # one entry of the legend for all stages
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    for begin, _ in _runs(stages)[1:]:
        axes.axvline(begin + 0.5, color="0.6", lw=0.8)
    if axes.lines and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color="0.5")


def _runs(stages: Sequence[str]) -> list[tuple[int, int]]:
    """Return where each stage begins and ends (exclusive)."""
    begins = [place for place, stage in enumerate(stages) if place == 0 or stage != stages[place - 1]]
    return list(zip(begins, [*begins[1:], len(stages)], strict=True))


def _name_stages(axes: Axes, stages: Sequence[str]) -> None:
    """Write the name of each stage above its part of the curve."""
    axes.set_xlim(0.5, len(stages) + 0.5)
    for begin, end in _runs(stages):
        axes.text(
            (begin + end + 1) / 2,
            1.02,
            stages[begin],
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize="small",
        )
