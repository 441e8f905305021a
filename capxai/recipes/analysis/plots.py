"""Plots of experiments: bars with intervals, curves over an axis, and distributions of two kinds of words side by side.

Colors are those that the color-blind tell apart (Okabe and Ito 2008); line style and mark are the second cue.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from capxai.evaluate.bootstrap import Estimate
from capxai.recipes.study_plot import COLORS, MARKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 130
STYLES = ("-", "--", "-.", ":")
_BARS = (*COLORS[:-1], "#999999")
"""On black, an interval could not be seen."""
_TRUE, _FALSE = COLORS[0], COLORS[1]
_CONTROLS = {"random": "#8c8c8c"}
"""Lines that the others are held against."""


@dataclass(frozen=True)
class Labels:
    """What a plot says about itself.

    Attributes:
        title: What is shown.
        x: The horizontal axis, with its unit; "" for bars, whose names stand there.
        y: The vertical axis, with its unit.
    """

    title: str
    x: str
    y: str


def draw_bars(labels: Labels, bars: Mapping[str, Estimate], baseline: float | None = None, alike: int = 1) -> bytes:
    """Draw a bar with its 95 % interval for each name.

    Args:
        labels: What the plot says about itself.
        bars: By name.
        baseline: Where a dashed line goes across (what blind relevance would reach).
        alike: How many bars that follow each other share a color.
    """
    figure, axes = _figure(max(4.4, 1.6 + 0.75 * len(bars)), 4.2)
    for place, found in enumerate(bars.values()):
        reach = [[max(0.0, found.value - found.low)], [max(0.0, found.high - found.value)]]
        axes.bar(place, found.value, color=_BARS[place // alike % len(_BARS)], width=0.7)
        axes.errorbar(place, found.value, yerr=reach, color="#222222", capsize=3, elinewidth=1.1)
    if baseline is not None:
        axes.axhline(baseline, color="#444444", linestyle="--", linewidth=1)
    axes.axhline(0, color="#222222", linewidth=0.8)
    axes.set_xticks(range(len(bars)), list(bars), rotation=30, ha="right")
    return _finish(figure, axes, labels)


def draw_curves(
    labels: Labels,
    x: Sequence[float],
    curves: Mapping[str, Sequence[Estimate]],
    diagonal: bool = False,
    ticks: Sequence[str] | None = None,
) -> bytes:
    """Draw a line with its 95 % band for each name over common places.

    ``diagonal`` adds the line of chance of a ROC plot; ``ticks`` are names to write at the places instead of numbers.
    """
    figure, axes = _figure(7.6, 4.6)
    for place, (name, points) in enumerate(curves.items()):
        color = _CONTROLS.get(name, COLORS[place % len(COLORS)])
        axes.plot(
            x, [point.value for point in points], STYLES[place % len(STYLES)], color=color, label=name,
            marker=MARKS[place % len(MARKS)] if len(points) <= 25 else None, markersize=4,
        )  # fmt: skip
        axes.fill_between(x, [p.low for p in points], [p.high for p in points], color=color, alpha=0.13, linewidth=0)
    if diagonal:
        axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", linewidth=1)
    if ticks is not None:
        axes.set_xticks(x, ticks, rotation=30, ha="right")
    _legend(figure, axes)
    return _finish(figure, axes, labels)


def draw_distributions(labels: Labels, groups: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> bytes:
    """Draw for each name the distribution of a number of true words and of hallucinated words, as boxes (5, 25, 50, 75, 95 %)."""
    figure, axes = _figure(2.2 + 1.1 * len(groups), 4.4)
    for place, pair in enumerate(groups.values()):
        for side, values, color in ((-0.19, pair[0], _TRUE), (0.19, pair[1], _FALSE)):
            if len(values):
                _box(axes, place + side, np.asarray(values, dtype=np.float64), color)
    axes.axhline(0, color="#222222", linewidth=0.8)
    axes.set_xticks(range(len(groups)), list(groups), rotation=30, ha="right")
    for name, color in (("true", _TRUE), ("hallucinated", _FALSE)):
        axes.bar(0, 0, color=color, alpha=0.55, label=name)
    _legend(figure, axes)
    return _finish(figure, axes, labels)


def _box(axes: Axes, x: float, values: np.ndarray, color: str) -> None:
    low, first, middle, third, high = np.percentile(values, (5, 25, 50, 75, 95))
    axes.plot([x, x], [low, high], color=color, linewidth=1.2)
    axes.bar(x, third - first, bottom=first, width=0.3, color=color, alpha=0.55)
    axes.plot([x - 0.15, x + 0.15], [middle, middle], color="#111111", linewidth=1.6)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=9)


def _finish(figure: Figure, axes: Axes, labels: Labels) -> bytes:
    axes.set_xlabel(labels.x)
    axes.set_ylabel(labels.y)
    axes.set_title(labels.title, fontsize=11)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DOTS_PER_INCH, metadata={"Software": "capxai"})
    return file.getvalue()
