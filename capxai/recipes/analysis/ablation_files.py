"""Files of an ablation: a row for each word and method, plots, and the report last."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from capxai.evaluate.ablation import Loss
from capxai.files import write_atomically, write_json_atomically
from capxai.recipes.analysis.ablation_report import CHANCE, PICTURES, WORDS, AblationReport, Part
from capxai.recipes.analysis.plots import Labels, draw_bars
from capxai.types import JsonObject

WORDS_FILE = "ablation-words.csv"
PICTURES_FILE = "ablation-pictures.csv"
PLOTS = ("ablation-words.png", "ablation-vanished.png", "ablation-pictures.png")

_SAID = ("image_id", "position", "word", "category")


def write_files(out: Path, report: AblationReport, name: str) -> None:
    """Write tables, plots and last the report, under ``name``; what an earlier report with the other part left is removed.

    Raises:
        CapxaiError: A file cannot be written.
    """
    files = dict(_files(report))
    for known in {WORDS_FILE, PICTURES_FILE, *PLOTS} - files.keys():
        (out / known).unlink(missing_ok=True)
    for file, content in files.items():
        write_atomically(out / file, content)
    write_json_atomically(out / name, report.to_json())


def _files(report: AblationReport) -> Iterator[tuple[str, str | bytes]]:
    if report.words is not None:
        yield WORDS_FILE, words_table(report)
        if report.words.every.words:
            title = f"{report.words.settings['deleted']} most relevant words deleted\n(dashed: random ones)"
            yield PLOTS[0], _bars(report.words, "drop", Labels(title, "", "drop in probability of the word"))
    if report.objects is not None:
        yield PICTURES_FILE, pictures_table(report)
        if report.objects.every.words:
            settings = report.objects.settings
            side = settings["patch"]
            title = (
                f"{settings['patches']} most relevant patches covered\n({side} x {side} pixels; dashed: random ones)"
            )
            yield PLOTS[1], _bars(report.objects, "vanished", Labels(title, "", "share of object words that vanish"))
            yield PLOTS[2], _bars(report.objects, "drop", Labels(title, "", "drop in probability of the object word"))


def _bars(part: Part, figure: str, labels: Labels) -> bytes:
    """Draw a figure of all methods; the dashed line is the control."""
    losses: dict[str, Loss] = part.every.figures[figure]
    bars = {name: loss.mean for name, loss in losses.items() if name != CHANCE}
    return draw_bars(labels, bars, losses[part.control].mean.value)


def words_table(report: AblationReport) -> str:
    """Return one row for each ablated word and method, and one for the control; ``deleted`` are places in the caption, from 0."""
    header = (*_SAID, "probability", "method", "drop", "deleted", "caption")
    return _table(header, (row for record in report.records for row in _word_rows(record)))


def _word_rows(record: JsonObject) -> Iterator[tuple[str, ...]]:
    for one in record.get(WORDS, ()):
        said = _said(record, one)
        for name, found in one["methods"].items():
            yield *said, name, _number(found["drop"]), _places(found["deleted"]), record["caption"]
        yield *said, CHANCE, _number(one["control"]["drop"]), "", record["caption"]


def pictures_table(report: AblationReport) -> str:
    """Return one row for each object word and method; ``patches`` are counted row by row from 0."""
    ends = ("present", "method", "vanished", "drop", "patches", "caption", "new_caption")
    return _table((*_SAID, "probability", *ends), (row for record in report.records for row in _picture_rows(record)))


def _picture_rows(record: JsonObject) -> Iterator[tuple[str, ...]]:
    for one in record.get(PICTURES, ()):
        said = (*_said(record, one), str(int(one["present"])))
        for name, found in one["methods"].items():
            losses = (str(int(found["vanished"])), _number(found["drop"]), _places(found["patches"]))
            yield *said, name, *losses, record["caption"], found["caption"]


def _said(record: JsonObject, one: JsonObject) -> tuple[str, ...]:
    return (
        str(record["image_id"]),
        str(one["position"]),
        one["word"],
        one["category"] or "",
        _number(one["probability"]),
    )


def _number(value: float) -> str:
    return f"{value:.9g}"


def _places(values: list[int]) -> str:
    return " ".join(map(str, values))


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
