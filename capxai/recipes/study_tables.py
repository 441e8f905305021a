"""The tables of a study: as rows for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from capxai.recipes.evaluation_titles import title
from capxai.recipes.study_results import Figure, Results
from capxai.recipes.study_statistics import Mean

PERCENT = 100.0
UNSCALED = ("objects_per_caption",)
"""Figures that are shown as they are; all others, CIDEr-D and BLEU too, are shown times 100, as papers do."""
DIFFERENCES = ("chair_i", "recall", "cider", "objects_per_caption")
"""Figures whose differences have a table; the others are in the CSV file."""

METHOD_TEXT = (
    "Figures are times 100 (shares in percent), but objects per caption. A mean is that over base models of the mean over their seeds; "
    "+- is half its 95 % interval by Student's t over the base models' means, or over seeds where there is one base model. Differences are "
    "formed within base model and seed; p is the paired t-test over base models (or over the seeds of a single one); 'pairs' counts those "
    "of the same base model and seed that lie below and above the control, p (sign) is the sign test over them; 'drawn' is the 95 % "
    "interval by a bootstrap over base models, seeds and pictures."
)


@dataclass(frozen=True)
class Table:
    """A table in words.

    Attributes:
        title: What it shows.
        header: Names of the columns.
        rows: The cells.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(results: Results) -> list[Table]:
    """Return, for each split, the means of all rows, and how the rows differ from the controls."""
    return [table for split in results.splits for table in (_means(results, split), *_contrasts(results, split))]


def _means(results: Results, split: str) -> Table:
    names = results.names(split)
    header = ("objective", *(_heading(name) for name in names), "runs")
    rows = []
    for row in results.rows:
        found = results.figures[split][row]
        runs = max(figure.mean.runs for figure in found.values())
        rows.append((row, *(_with_reach(name, found[name].mean) for name in names), str(runs)))
    return Table(f"On {split}", header, tuple(rows))


def _contrasts(results: Results, split: str) -> Iterator[Table]:
    names = [name for name in DIFFERENCES if name in results.names(split)]
    rows = [
        (row, control, *cells)
        for row in results.rows
        for control, cells in _compared(results.figures[split][row], names)
    ]
    if not rows:
        return
    header: tuple[str, ...] = ("objective", "against")
    if "chair_i" in names:
        header += ("CHAIRi, relative %", "CHAIRi drawn", "p", "pairs < / >", "p (sign)")
    header += tuple(f"{_heading(name)}, difference" for name in names)
    yield Table(f"On {split}, against the control", header, tuple(rows))


def _compared(found: dict[str, Figure] | object, names: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    assert isinstance(found, dict)
    first = found.get(names[0]) if names else None
    for control in first.against if first is not None else ():
        cells: tuple[str, ...] = ()
        if "chair_i" in names and "chair_i" in found:
            cells = _judgement(found["chair_i"], control)
        yield control, (*cells, *(_difference(name, found[name], control) for name in names))


def _judgement(figure: Figure, control: str) -> tuple[str, ...]:
    one = figure.against[control]
    relative = "-" if one.relative is None else _spanned("", one.relative, PERCENT, signed=True)
    drawn = figure.drawn_difference[control]
    span = "-" if drawn is None else f"[{PERCENT * drawn[0]:+.1f}, {PERCENT * drawn[1]:+.1f}]"
    return relative, span, _probability(one.p), f"{one.below} / {one.above}", _probability(one.p_sign)


def _difference(name: str, figure: Figure, control: str) -> str:
    return _spanned(name, figure.against[control].difference, scale(name), signed=True)


def scale(name: str) -> float:
    """Return by what a figure is multiplied to be shown."""
    return 1.0 if name in UNSCALED else PERCENT


def _heading(name: str) -> str:
    return title(name).name


def _with_reach(name: str, mean: Mean) -> str:
    digits, factor = (2 if name in UNSCALED else 1), scale(name)
    text = f"{factor * mean.value:.{digits}f}"
    return text if mean.high is None else f"{text} +- {factor * (mean.high - mean.value):.{digits}f}"


def _spanned(name: str, mean: Mean, factor: float, signed: bool) -> str:
    digits, sign = (2 if name in UNSCALED else 1), "+" if signed else ""
    text = f"{factor * mean.value:{sign}.{digits}f}"
    if mean.low is None or mean.high is None:
        return text
    return f"{text} [{factor * mean.low:{sign}.{digits}f}, {factor * mean.high:{sign}.{digits}f}]"


def _probability(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def markdown(results: Results, heading: str, notes: Sequence[str]) -> str:
    """Write all tables as Markdown."""
    parts = [f"# {heading}", METHOD_TEXT, *notes]
    for table in tables(results):
        lines = [_markdown_row(table.header), _markdown_row(["---", *["---:"] * (len(table.header) - 1)])]
        lines += [_markdown_row(row) for row in table.rows]
        parts += [f"## {table.title}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


_COLUMNS = (
    "split", "objective", "figure", "value", "low", "high", "units", "runs", "drawn_low", "drawn_high",
    "against", "difference", "difference_low", "difference_high", "relative", "relative_low", "relative_high",
    "p", "pairs", "p_pairs", "above", "below", "p_sign", "drawn_difference_low", "drawn_difference_high",
)  # fmt: skip


def csv_text(results: Results) -> str:
    """Write every figure, and every comparison of it, as one line of CSV, unscaled."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for split, rows in results.figures.items():
        for row, figures in rows.items():
            for name, figure in figures.items():
                mean, drawn = figure.mean, figure.drawn or (None, None)
                head = [split, row, name, mean.value, mean.low, mean.high, mean.units, mean.runs, *drawn]
                writer.writerow([*head, *[None] * (len(_COLUMNS) - len(head))])
                for control in figure.against:
                    writer.writerow([*head, control, *_contrast_cells(figure, control)])
    return stream.getvalue()


def _contrast_cells(figure: Figure, control: str) -> list[object]:
    one, relative = figure.against[control], figure.against[control].relative
    shares = (None, None, None) if relative is None else (relative.value, relative.low, relative.high)
    drawn = figure.drawn_difference[control] or (None, None)
    apart = one.difference
    tests = (one.p, one.pairs, one.p_pairs, one.above, one.below, one.p_sign)
    return [apart.value, apart.low, apart.high, *shares, *tests, *drawn]
