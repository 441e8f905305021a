"""The log of a training: one JSON line an epoch, the same as a table, as a curve, and for TensorBoard where that is installed."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from capxai.errors import CapxaiError
from capxai.files import write_atomically
from capxai.types import JsonObject

LOG_FILE = "train.jsonl"
TABLE_FILE = "train.csv"
CURVE_FILE = "curve.png"
EVENTS_FOLDER = "tensorboard"
DRAWING_SHARE = 0.05
"""Of the time, at most, for drawing the curve: it takes a tenth of a second, which is long beside the epochs of a tiny corpus."""


class TrainingLog:
    """Writes what happened in each epoch into the folder of a run.

    A record is a JSON object. The curve knows these keys: ``stage`` and ``epoch`` (records without ``epoch`` are left out of it),
    ``loss`` or, where a reward is maximized, ``reward`` (both of training), and ``validation`` with ``loss`` and ``cider``.

    ``train.jsonl`` is the log itself: every line is on the disk when `append` returns. The other files are made from it and may be
    lost. A checkpoint keeps `lines`; resuming cuts the log to that many, so that an epoch that is done again stands in it once.
    Where epochs follow each other fast, not every one is drawn at once; `close`, or leaving the log as a context, draws the last.

    Attributes:
        missing: How many lines the checkpoint knew of that the log had lost.
    """

    def __init__(self, folder: str | Path, resume_lines: int | None = None) -> None:
        """Begin a log, or go on with one.

        Args:
            folder: Of the run; it is made where it is not there.
            resume_lines: None begins anew, whatever lies in the folder; a number keeps the first so many lines.

        Raises:
            CapxaiError: The files cannot be written.
        """
        self._folder = Path(folder)
        self._path = self._folder / LOG_FILE
        self._records = [] if resume_lines is None else self._read(resume_lines)
        self.missing = (resume_lines or 0) - len(self._records)
        self._columns: list[str] = []
        write_atomically(self._path, "".join(_line(record) for record in self._records))
        self._write_table()
        self._events = _events_writer(self._folder / EVENTS_FOLDER, len(self._records))
        self._drawn = 0  # whether the interrupted run had drawn its last epochs is not known
        self._next_drawing = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def lines(self) -> int:
        """The number of records so far."""
        return len(self._records)

    @property
    def records(self) -> tuple[JsonObject, ...]:
        """All records so far, those from before a resumption included."""
        return tuple(self._records)

    def append(self, record: JsonObject) -> None:
        """Write a record; numbers that are infinite or none become null.

        Raises:
            CapxaiError: The disk is full, or the folder cannot be written to; the lines before are still there.
        """
        record = _finite(record)
        _append_durably(self._path, _line(record))
        self._records.append(record)
        self._extend_table(record)
        if time.monotonic() >= self._next_drawing:
            self._draw()
        if self._events is not None:
            for name, value in _flat(record):
                if isinstance(value, int | float) and name != "epoch":
                    self._events.add_scalar(f"{record.get('stage', 'training')}/{name}", value, len(self._records))
            self._events.flush()

    def close(self) -> None:
        """Draw what is not drawn yet, and close what TensorBoard reads.

        Raises:
            CapxaiError: The curve cannot be written.
        """
        if self._events is not None:
            self._events.close()
        if self._drawn < len(self._records):
            self._draw()

    def _read(self, lines: int) -> list[JsonObject]:
        """Return the first so many records, fewer where the file lacks them or a line is damaged."""
        records: list[JsonObject] = []
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return records
        for line in text.split("\n")[:lines]:
            try:
                record = json.loads(line)
            except ValueError:
                break
            if not isinstance(record, dict):
                break
            records.append(record)
        return records

    def _extend_table(self, record: JsonObject) -> None:
        """Add a row, or write the table again where the record brings a new column."""
        row = dict(_flat(record))
        if row.keys() - set(self._columns):
            self._write_table()
        else:
            _append_durably(self._folder / TABLE_FILE, _table([row], self._columns, header=False))

    def _write_table(self) -> None:
        rows = [dict(_flat(record)) for record in self._records]
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        write_atomically(self._folder / TABLE_FILE, _table(rows, self._columns) if rows else "")

    def _draw(self) -> None:
        from capxai.recipes.training_curve import draw_curve

        begun = time.monotonic()
        if any("epoch" in record for record in self._records):
            write_atomically(self._folder / CURVE_FILE, draw_curve(self._records))
        self._drawn, now = len(self._records), time.monotonic()
        self._next_drawing = now + (now - begun) / DRAWING_SHARE


def _line(record: JsonObject) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names and values, those of objects within the record as ``outer.inner``."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _table(rows: list[dict[str, Any]], columns: list[str], header: bool = True) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _append_durably(path: Path, text: str) -> None:
    """Add a line to a file and wait until it is on the disk. A line that does not fit is taken away again."""
    try:
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            data = text.encode("utf-8", "backslashreplace")
            try:
                if file.write(data) < len(data):
                    raise OSError(0, "the disk took only a part of the line; it is full")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise CapxaiError(
            f"'{path}' could not be written ({error.strerror or error}). Expected room for one more line in a file that may be "
            "changed. Free some space on the disk or check the rights of the folder; then go on with --resume."
        ) from error


def _events_writer(folder: Path, lines: int) -> Any:
    """Return TensorBoard's writer, or None where TensorBoard is not installed or cannot be imported."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except Exception:  # its own dependencies fail in many ways, and training must not fail for a display
        return None
    return module.SummaryWriter(str(folder), purge_step=lines + 1)
