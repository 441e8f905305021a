"""A stopped experiment goes on where it was: lines on the disk that were torn or damaged, other settings, Ctrl-C, two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_corpus import planted_model, write_planted_corpus
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.errors import CapxaiError, ConfigError
from capxai.models.folder import save_model
from capxai.recipes.analysis.correctness import CorrectnessConfig, run
from capxai.recipes.analysis.correctness_report import REPORT_FILE, WORDS_FILE, CorrectnessReport
from capxai.recipes.analysis.progress import FOLDER, Progress
from capxai.recipes.analysis.stream import Looking
from capxai.types import Advance, JsonObject, SilentReporter

IDENTITY = {"seed": 0, "model": "m"}
SETTINGS = ("--method", "lrp", "--method", "random", "--device", "cpu", "--set", "batch_size=1", "--set", "threads=1")


def begun(out: Path, identity: JsonObject | None = None, force: bool = False, rank: int = 0) -> Progress:
    progress = Progress(out, rank)
    progress.begin(identity or IDENTITY, force)
    return progress


def records(block: int) -> list[JsonObject]:
    return [{"image_id": 10 * block + number, "share": 0.1 * number} for number in range(2)]


def filled(out: Path, *blocks: int) -> Path:
    """Keep records of blocks and return the file that holds them."""
    progress = begun(out)
    for block in blocks:
        progress.add(block, records(block))
    progress.close()
    return out / FOLDER / "0.jsonl"


def test_what_was_added_is_there(tmp_path: Path) -> None:
    filled(tmp_path, 0, 2)
    assert begun(tmp_path).done() == {0: records(0), 2: records(2)}


def test_a_torn_last_line_is_done_again_and_spoils_nothing_after_it(tmp_path: Path) -> None:
    path = filled(tmp_path, 0, 1)
    path.write_bytes(path.read_bytes()[:-7])
    assert begun(tmp_path).done() == {0: records(0)}
    filled(tmp_path, 1, 2)
    assert begun(tmp_path).done() == {0: records(0), 1: records(1), 2: records(2)}


def test_a_damaged_line_is_passed_over(tmp_path: Path) -> None:
    path = filled(tmp_path, 0, 1, 2)
    lines = path.read_bytes().splitlines()
    place = next(number for number, line in enumerate(lines) if b'"block": 1' in line)
    lines[place] = lines[place].replace(b'"share": 0.1', b'"share": 0.2')  # still good JSON
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert set(begun(tmp_path).done()) == {0, 2}
    path.write_bytes(b"\xff\x00 rubbish\n" + path.read_bytes())
    assert set(begun(tmp_path).done()) == {0, 2}


def test_files_of_other_processes_count_too(tmp_path: Path) -> None:
    for rank in (0, 1):
        progress = begun(tmp_path, rank=rank)
        progress.add(rank, records(rank))
        progress.close()
    assert begun(tmp_path, rank=3).done() == {0: records(0), 1: records(1)}


def test_other_settings_are_refused_by_name_and_forced_ones_begin_afresh(tmp_path: Path) -> None:
    filled(tmp_path, 0)
    with pytest.raises(ConfigError, match=r"other settings \(beam, seed\)\. Expected the same.*--force"):
        begun(tmp_path, {"seed": 1, "model": "m", "beam": 3})
    assert begun(tmp_path).done() == {0: records(0)}
    forced = begun(tmp_path, {"seed": 1, "model": "m"}, force=True)
    assert forced.done() == {}
    with pytest.raises(ConfigError, match=r"\(seed\)"):
        begun(tmp_path)
    forced.remove()
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    progress = begun(tmp_path)
    (tmp_path / FOLDER / "0.jsonl").symlink_to("/dev/full")
    with pytest.raises(CapxaiError, match=r"0\.jsonl' could not be written \(No space left.*Free some space and run"):
        progress.add(0, records(0))
    progress.close()  # says nothing more


def test_numbers_that_json_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        begun(tmp_path).add(0, [{"share": float("nan")}])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of three pictures with objects, and a model that names them."""
    root = tmp_path_factory.mktemp("progress")
    write_planted_corpus(root / "corpus", with_instances=True)
    save_model(planted_model(root / "corpus" / "images"), root / "model")
    return root


@pytest.fixture(scope="module")
def whole(folder: Path) -> CorrectnessReport:
    """The report of a run that nothing stopped."""
    return run(config(folder, folder / "whole"))


def config(folder: Path, out: Path, **settings: Any) -> CorrectnessConfig:
    given = {"method": ("lrp", "random"), "batch_size": 1, "threads": 1, "device": "cpu", **settings}
    return CorrectnessConfig(model=folder / "model", corpus=folder / "corpus", out=out, **given)


class Stopping(SilentReporter):
    """A user who presses Ctrl-C after so many pictures, and what was said to them."""

    def __init__(self, after: int) -> None:
        self._left = after
        self.said: list[str] = []
        self.announced = 0

    def note(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        self.announced = total

        def advance(amount: int) -> None:
            self._left -= amount
            if self._left == 0:
                signal.raise_signal(signal.SIGINT)

        yield advance


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the ids of the pictures that are looked at."""
    ids: list[int] = []
    look = Looking.look

    def noting(self: Looking, pictures: Any, pixels: Any) -> Any:
        ids.extend(picture.id for picture in pictures)
        return look(self, pictures, pixels)

    monkeypatch.setattr(Looking, "look", noting)
    return ids


def without_provenance(report: JsonObject) -> JsonObject:
    return {key: value for key, value in report.items() if key != "provenance"}


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_run_goes_on_to_the_same_report(
    folder: Path, whole: CorrectnessReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    stopping = Stopping(after)
    with pytest.raises(KeyboardInterrupt):
        run(config(folder, tmp_path), stopping)
    assert stopping.announced == 3 and "Interrupted; what is done is kept" in stopping.said[-1]
    assert (tmp_path / FOLDER).exists() and not (tmp_path / REPORT_FILE).exists()
    ids, patient = counted(monkeypatch), Stopping(0)
    report = run(config(folder, tmp_path), patient)
    assert ids == [1, 2, 3][after:] and patient.announced == 3 - after
    assert f"Going on: {after} of 3 batches are done." in patient.said
    assert report.to_json() == whole.to_json() | {"provenance": report.provenance}
    assert (tmp_path / WORDS_FILE).read_text() == (folder / "whole" / WORDS_FILE).read_text()
    written, before = (json.loads((place / REPORT_FILE).read_text()) for place in (tmp_path, folder / "whole"))
    assert without_provenance(written) == without_provenance(before)
    assert not (tmp_path / FOLDER).exists()


def test_a_run_that_was_stopped_is_not_gone_on_with_under_other_settings(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(config(folder, tmp_path), Stopping(1))
    for changed in ({"eps": 0.02}, {"batch_size": 3}, {"method": ("lrp",)}, {"level": ("pixels",)}, {"beam": 1}):
        (name,) = changed
        with pytest.raises(ConfigError, match=rf"other settings \({name}\)"):
            run(config(folder, tmp_path, **changed))
    ids = counted(monkeypatch)
    assert run(config(folder, tmp_path, seed=4, force=True)).provenance["seed"] == 4
    assert ids == [1, 2, 3]


def test_without_a_folder_nothing_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stopping = Stopping(1)
    with pytest.raises(KeyboardInterrupt):
        run(CorrectnessConfig(folder / "model", folder / "corpus", batch_size=1, method=("random",)), stopping)
    assert not any("Interrupted" in text for text in stopping.said) and not list(tmp_path.iterdir())


def test_the_command_says_how_to_begin_afresh(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(config(folder, tmp_path), Stopping(1))
    typed = ["analyze", "correctness", "--model", str(folder / "model"), "--corpus", str(folder / "corpus"), *SETTINGS]
    refused = CliRunner().invoke(app, [*typed, "--seed", "9", "--out", str(tmp_path)])
    assert refused.exit_code == 1
    assert "other settings (seed)" in " ".join(refused.output.split()) and "Traceback" not in refused.output


pytest_processes = pytest.mark.skipif(
    not torch.distributed.is_available() or sys.platform == "win32", reason="torch has no distributed package here"
)


def shared(folder: Path, out: Path) -> JsonObject:
    """Run the command in two processes and return its report."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "capxai"]
    words = ["analyze", "correctness", "--model", str(folder / "model"), "--corpus", str(folder / "corpus"), *SETTINGS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *launcher, *words, "--out", str(out), "--json"],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report: JsonObject = json.loads((out / REPORT_FILE).read_text())
    assert json.loads(done.stdout) == report  # one process speaks
    assert not (out / FOLDER).exists()
    return report


@pytest.mark.slow
@pytest_processes
def test_two_processes_give_the_figures_of_one_and_go_on_with_its_work(
    folder: Path, whole: CorrectnessReport, tmp_path: Path
) -> None:
    expected = without_provenance(json.loads((folder / "whole" / REPORT_FILE).read_text()))
    report = shared(folder, tmp_path / "shared")
    assert report["provenance"]["processes"] == 2 and whole.provenance["processes"] == 1
    assert without_provenance(report) == expected
    with pytest.raises(KeyboardInterrupt):
        run(config(folder, tmp_path / "begun"), Stopping(1))
    (first,) = (tmp_path / "begun" / FOLDER).glob("*.jsonl")
    assert first.name == "0.jsonl"
    assert without_provenance(shared(folder, tmp_path / "begun")) == expected
