"""The log of a training: what is on the disk after every record, what a resumption keeps, and what the curve shows."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from capxai.errors import CapxaiError
from capxai.recipes import training_log
from capxai.recipes.training_curve import draw_curve
from capxai.recipes.training_log import CURVE_FILE, LOG_FILE, TABLE_FILE, TrainingLog
from capxai.types import JsonObject


def epoch(number: int, stage: str = "decoder", **more: Any) -> JsonObject:
    return {"stage": stage, "epoch": number, "loss": 4.0 / number, **more}


def validated(number: int) -> JsonObject:
    return epoch(number, validation={"loss": 4.5 / number, "cider": 0.1 * number})


def lines(folder: Path) -> list[JsonObject]:
    return [json.loads(line) for line in (folder / LOG_FILE).read_text().splitlines()]


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / TABLE_FILE).open(newline="")))


def test_every_record_is_written_at_once(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "new" / "run")
    folder = tmp_path / "new" / "run"
    assert (log.lines, lines(folder), rows(folder)) == (0, [], [])
    for number in (1, 2):
        log.append(validated(number))
        assert log.lines == number
        assert lines(folder) == [validated(n) for n in range(1, number + 1)]
    assert [row["validation.cider"] for row in rows(folder)] == ["0.1", "0.2"]
    assert log.records == (validated(1), validated(2))


def test_a_new_column_joins_the_table(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path)
    log.append(epoch(1, "encoder"))
    log.append(validated(1))
    log.append(epoch(2, "encoder"))
    log.append(epoch(3, samples=["a, b", 'c "d"']))
    found = rows(tmp_path)
    assert list(found[0]) == ["stage", "epoch", "loss", "validation.loss", "validation.cider", "samples"]
    assert [row["validation.loss"] for row in found] == ["", "4.5", "", ""]
    assert json.loads(found[3]["samples"]) == ["a, b", 'c "d"']


def test_without_resuming_an_old_log_is_replaced(tmp_path: Path) -> None:
    TrainingLog(tmp_path).append(epoch(1))
    TrainingLog(tmp_path)
    assert (tmp_path / LOG_FILE).read_text() == "" == (tmp_path / TABLE_FILE).read_text()


def test_resuming_cuts_what_comes_after_the_checkpoint(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path)
    for number in (1, 2, 3):
        log.append(validated(number))
    with (tmp_path / LOG_FILE).open("a") as file:
        file.write('{"stage": "dec')  # killed in the middle of a line
    again = TrainingLog(tmp_path, resume_lines=2)
    assert (again.lines, again.missing) == (2, 0)
    assert lines(tmp_path) == [validated(1), validated(2)]
    again.append(validated(3))
    whole = TrainingLog(tmp_path / "whole")
    for number in (1, 2, 3):
        whole.append(validated(number))
    whole.close()
    again.close()
    for name in (LOG_FILE, TABLE_FILE, CURVE_FILE):
        assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_log_that_lost_lines_says_how_many(tmp_path: Path) -> None:
    TrainingLog(tmp_path).append(epoch(1))
    (tmp_path / LOG_FILE).write_text(json.dumps(epoch(1)) + "\nnot JSON\n" + json.dumps(epoch(3)) + "\n")
    log = TrainingLog(tmp_path, resume_lines=3)
    assert (log.lines, log.missing) == (1, 2)
    assert TrainingLog(tmp_path / "elsewhere", resume_lines=2).missing == 2


def test_what_is_no_number_becomes_null(tmp_path: Path) -> None:
    TrainingLog(tmp_path).append({"epoch": 1, "loss": float("nan"), "validation": {"loss": float("inf"), "all": [1.0]}})
    assert lines(tmp_path) == [{"epoch": 1, "loss": None, "validation": {"loss": None, "all": [1.0]}}]


def test_a_line_that_does_not_fit_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = TrainingLog(tmp_path)
    log.append(epoch(1))
    before = (tmp_path / LOG_FILE).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CapxaiError, match=r"train\.jsonl' could not be written \(No space left on device\).*--resume"):
        log.append(epoch(2))
    assert (tmp_path / LOG_FILE).read_bytes() == before
    assert log.lines == 1


def test_the_curve_is_drawn_within_its_share_of_the_time_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    clock = iter(float(tick) for tick in (0, 0, 1, 5, 22, 22, 23, 24))

    def draw(records: list[JsonObject]) -> bytes:
        drawn.append(len(records))
        return b"picture"

    monkeypatch.setattr("capxai.recipes.training_curve.draw_curve", draw)
    monkeypatch.setattr(training_log.time, "monotonic", lambda: next(clock))
    with TrainingLog(tmp_path) as log:
        log.append(epoch(1))  # asked at 0, drawn from 0 to 1: not again before 21
        log.append(epoch(2))  # at 5
        assert drawn == [1]
        log.append(epoch(3))  # at 22, drawn until 23
        assert drawn == [1, 3]
    assert drawn == [1, 3]  # nothing new to draw
    assert (tmp_path / CURVE_FILE).read_bytes() == b"picture"


def test_closing_draws_the_last_epoch(tmp_path: Path) -> None:
    with TrainingLog(tmp_path) as log:
        for number in range(1, 4):
            log.append(validated(number))
    assert (tmp_path / CURVE_FILE).read_bytes() == draw_curve(log.records)
    for number in range(1, 3):
        assert (tmp_path / CURVE_FILE).read_bytes() != draw_curve(log.records[:number])


def colors(picture: bytes) -> set[tuple[int, ...]]:
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    return {tuple(color) for color in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}


def test_the_curve_shows_training_and_validation_in_their_colors() -> None:
    blue, vermilion = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
    training, both = draw_curve([epoch(1), epoch(2)]), draw_curve([validated(1), validated(2)])
    assert blue in colors(training) and vermilion not in colors(training)
    assert {blue, vermilion} <= colors(both)
    rewarded = {**validated(1), "stage": "self-critical", "reward": 0.5, "loss": -9.0}
    assert draw_curve([rewarded]) == draw_curve(
        [{**rewarded, "loss": 7.0}]
    )  # no cross-entropy, so it is not drawn as one


def test_drawing_leaves_the_state_of_pyplot_alone() -> None:
    draw_curve([validated(1)])
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


class _Writer:
    """What the log needs of TensorBoard's writer."""

    made: list[_Writer] = []  # noqa: RUF012

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.closed = folder, purge_step, False
        self.scalars: list[tuple[str, float, int]] = []
        self.made.append(self)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def test_tensorboard_gets_the_figures_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_log.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=_Writer))
    with TrainingLog(tmp_path) as log:
        log.append(validated(1))
    TrainingLog(tmp_path, resume_lines=1)
    first, second = _Writer.made
    assert first.scalars == [
        ("decoder/loss", 4.0, 1),
        ("decoder/validation.loss", 4.5, 1),
        ("decoder/validation.cider", 0.1, 1),
    ]
    assert first.closed and first.folder == str(tmp_path / "tensorboard")
    assert (first.purge_step, second.purge_step) == (1, 2)


def test_a_tensorboard_that_cannot_be_imported_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise TypeError("Descriptors cannot be created directly")

    monkeypatch.setattr(training_log.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(training_log.importlib, "import_module", broken)
    TrainingLog(tmp_path).append(epoch(1))
    assert not (tmp_path / "tensorboard").exists()
