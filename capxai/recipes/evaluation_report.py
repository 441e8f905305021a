"""What an evaluation has found, and its files: eval.json, eval.csv, categories.csv, predictions.json, images.txt and eval.html."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from capxai.errors import CapxaiError
from capxai.evaluate.predictions import write_predictions
from capxai.files import write_atomically, write_json_atomically
from capxai.types import JsonObject

if TYPE_CHECKING:
    from capxai.data.corpus import Split
    from capxai.evaluate.bootstrap import Estimate
    from capxai.evaluate.frequent_objects import FrequentReport
    from capxai.evaluate.objects import ObjectReport
    from capxai.recipes.evaluation_compare import Comparison
    from capxai.recipes.evaluation_scores import Scores

SCHEMA = 2
EVALUATION_FILE = "eval.json"
PICTURES_FILE = "eval.csv"
CATEGORIES_FILE = "categories.csv"
PREDICTIONS_FILE = "predictions.json"
IMAGES_FILE = "images.txt"
PAGE_FILE = "eval.html"
FILES = (EVALUATION_FILE, PICTURES_FILE, CATEGORIES_FILE, PREDICTIONS_FILE, IMAGES_FILE, PAGE_FILE)

_BETWEEN = "; "


@dataclass(frozen=True)
class EvaluateReport:
    """What was measured.

    Attributes:
        model: The model folder, "bundled model" or the file of predictions.
        corpus: Name of the corpus, or of the annotation files.
        split: The split; empty for annotation files.
        overall: Each figure with its interval; None where it is not defined, as CHAIRi of captions that name no object.
        images: What eval.json says of each picture.
        provenance: Settings, versions, and hashes of the picture list, the lexicon and the predictions.
        frequent: Frequent object words, or None.
        objects: Categories, confusions and co-occurrences; None where objects were not measured.
        skipped: Metrics that were asked for and did not run, and why.
        notes: What a reader should know.
        comparison: Differences to another system's captions, or None.
    """

    model: str
    corpus: str
    split: str
    overall: Mapping[str, Estimate | None]
    images: Sequence[JsonObject]
    provenance: JsonObject
    objects: ObjectReport | None = None
    frequent: FrequentReport | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    comparison: Comparison | None = None

    def to_json(self) -> JsonObject:
        """Return the report as eval.json has it."""
        report: JsonObject = {"schema": SCHEMA, "model": self.model, "corpus": self.corpus, "split": self.split}
        report["overall"] = {name: found.to_json() if found else None for name, found in self.overall.items()}
        if self.skipped:
            report["skipped"] = dict(self.skipped)
        if self.notes:
            report["notes"] = list(self.notes)
        if self.comparison is not None:
            report["comparison"] = self.comparison.to_json()
        if self.objects is not None:
            found = self.objects.to_json()
            report |= {name: value for name, value in found.items() if name not in ("overall", "images")}
        if self.frequent is not None:
            report["frequent_words"] = {
                name: value for name, value in self.frequent.to_json().items() if name != "overall"
            }
        report["images"] = list(self.images)
        report["provenance"] = self.provenance
        return report


def pictures_of(captions: Mapping[int, str], split: Split, scores: Scores) -> list[JsonObject]:
    """Describe each picture: caption, references, metrics, and what its caption names, hallucinates and misses."""
    images: list[JsonObject] = []
    for row, (number, caption) in enumerate(captions.items()):
        image: JsonObject = {"image_id": number, "caption": caption, "references": list(split.captions[number])}
        if scores.metrics:
            image["metrics"] = {name: float(values[row]) for name, values in scores.metrics.items()}
        images.append(image if scores.objects is None else image | scores.objects.images[row].to_json())
    return images


def refuse_existing(folder: Path, force: bool) -> None:
    """See that no output would be replaced.

    Raises:
        CapxaiError: One is there and ``force`` is off.
    """
    present = [name for name in FILES if (folder / name).exists()]
    if present and not force:
        raise CapxaiError(
            f"'{folder}' already holds {', '.join(present)}, which were kept. Expected a folder without an evaluation. "
            "Choose another one, or replace them with --force."
        )


def write_report(report: EvaluateReport, folder: Path, paths: Mapping[int, Path] | None) -> None:
    """Write the files of a report, each as a whole; those of an earlier one that have no successor are removed.

    Args:
        report: What was found.
        folder: Where to; made if it is not there.
        paths: Picture files by image id for the page; None writes no page.

    Raises:
        CapxaiError: A file cannot be written.
    """
    value = report.to_json()
    write_predictions(folder / PREDICTIONS_FILE, {image["image_id"]: image["caption"] for image in report.images})
    write_atomically(folder / IMAGES_FILE, "".join(f"{image['image_id']}\n" for image in report.images))
    write_atomically(folder / PICTURES_FILE, _encoded(_picture_rows(report.images)))
    if value.get("categories"):
        write_atomically(folder / CATEGORIES_FILE, _encoded(_category_rows(value["categories"])))
    else:
        _remove(folder / CATEGORIES_FILE)
    if paths is not None:
        from capxai.recipes.evaluation_page import render_page

        write_atomically(folder / PAGE_FILE, render_page(value, paths).encode("utf-8", "replace"))
    else:
        _remove(folder / PAGE_FILE)
    write_json_atomically(folder / EVALUATION_FILE, value)


def _remove(path: Path) -> None:
    """Remove a file of an earlier evaluation, whose figures are no longer those of the folder."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CapxaiError(
            f"'{path}' of an earlier evaluation could not be removed ({error.strerror}). Expected a folder of one evaluation. "
            "Remove it, or choose another folder."
        ) from error


def _picture_rows(images: Sequence[JsonObject]) -> list[list[object]]:
    """Return one row for each picture, after the header."""
    metrics = list(dict.fromkeys(name for image in images for name in image.get("metrics", {})))
    lists = [
        name for name in ("objects", "mentioned", "hallucinated", "missed") if any(name in image for image in images)
    ]
    rows: list[list[object]] = [["image_id", "caption", *metrics, *lists]]
    for image in images:
        figures = [image.get("metrics", {}).get(name) for name in metrics]
        rows.append(
            [
                image["image_id"],
                _harmless(image["caption"]),
                *figures,
                *(_BETWEEN.join(image.get(name, ())) for name in lists),
            ]
        )
    return rows


def _category_rows(categories: Mapping[str, JsonObject]) -> list[list[object]]:
    columns = list(dict.fromkeys(column for score in categories.values() for column in score))
    return [
        ["category", *columns],
        *([name, *(score.get(column) for column in columns)] for name, score in categories.items()),
    ]


def _harmless(text: str) -> str:
    """Keep a spreadsheet from taking a caption for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _encoded(rows: Sequence[Sequence[object]]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream).writerows([["" if cell is None else cell for cell in row] for row in rows])
    return stream.getvalue().encode("utf-8", "replace")
