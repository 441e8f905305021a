"""The plot of a study: hallucination against what it may cost, one mark for each row, with error bars."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from capxai.recipes.study_results import Results
from capxai.recipes.study_statistics import Mean
from capxai.recipes.study_tables import scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, DOTS_PER_INCH = 11.0, 5.2, 130
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Which the color-blind tell apart (Okabe and Ito 2008); the shape of the mark is the second cue."""
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
ROBUST, TEST = "robust", "test"


def draw_study(results: Results) -> bytes | None:
    """Draw CHAIRi against object recall of the split where objects are parted, and against CIDEr-D of the usual one.

    The split "robust" and the split "test" are taken where they are there, else the last and the first one.

    Returns:
        A PNG file; None where no split has objects.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    hard, usual = _choose(results.splits, ROBUST, -1), _choose(results.splits, TEST, 0)
    if "chair_i" not in results.names(hard):
        return None
    picture = Picture(figsize=(WIDTH, HEIGHT), layout="constrained")
    FigureCanvasAgg(picture)
    left, right = picture.subplots(1, 2, sharey=True)
    _panel(left, results, (hard, "recall", f"object recall on {hard} (%)"), hard)
    _panel(right, results, (usual, "cider", f"CIDEr-D on {usual} (x 100)"), hard)
    left.set_ylabel(f"CHAIRi on {hard} (%), lower is better")
    handles, labels = left.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside right center", frameon=False, title="objective")
    picture.suptitle("Hallucination against what it may cost: means and 95 % intervals", fontsize=11)
    file = io.BytesIO()
    picture.savefig(file, format="png", dpi=DOTS_PER_INCH)
    return file.getvalue()


def _choose(splits: Sequence[str], wanted: str, place: int) -> str:
    return wanted if wanted in splits else splits[place]


def _panel(axes: Axes, results: Results, across: tuple[str, str, str], hard: str) -> None:
    split, name, label = across
    for place, row in enumerate(results.rows):
        x, y = results.figures[split][row][name].mean, results.figures[hard][row]["chair_i"].mean
        axes.errorbar(
            scale(name) * x.value,
            scale("chair_i") * y.value,
            xerr=_reach(x, scale(name)),
            yerr=_reach(y, scale("chair_i")),
            fmt=MARKS[place % len(MARKS)],
            color=COLORS[place % len(COLORS)],
            markersize=8,
            markeredgecolor="white",
            markeredgewidth=0.8,
            elinewidth=1.1,
            capsize=2.5,
            label=row,
        )
    axes.set_xlabel(label)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _reach(mean: Mean, factor: float) -> float:
    return 0.0 if mean.high is None else factor * (mean.high - mean.value)
