"""The live display of a training, drawn at several widths, and who speaks among processes that run together."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from rich.console import Console

from capxai.cli.dashboard import CAPTIONS, REFRESHES_PER_SECOND, Dashboard, clock
from capxai.cli.rendering import print_figures, print_line, print_table
from capxai.cli.reporter import RichReporter, print_json
from capxai.types import SILENT, TrainingStatus

ROOT = Path(__file__).resolve().parents[1]
LONG = " ".join(f"word{number}" for number in range(80))
STATUS = TrainingStatus(
    stage="decoder",
    epoch=3,
    epochs=12,
    step=1234,
    steps=3437,
    loss=2.34561,
    learning_rate=4.2e-4,
    tokens_per_second=1234.5,
    waiting_share=0.0123,
    eta_seconds=3723,
    validation={"loss": 2.4123, "cider": 0.87312, "macro_f1": 0.61},
    samples=(("a man riding a horse", "a man on a horse"), (LONG, "")),
)
WIDTHS = (40, 60, 80, 120, 200)


def drawn(status: TrainingStatus | None, width: int, title: str = "Training ada-lstm") -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    dashboard = Dashboard(title, RichReporter()._bars())
    if status is not None:
        dashboard.show(status)
    console.print(dashboard.render())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", WIDTHS)
def test_everything_is_there_at_every_width(width: int) -> None:
    lines = drawn(STATUS, width)
    assert {len(line) for line in lines} == {min(width, 120)}
    text = "\n".join(lines)
    for piece in (
        "Training ada-lstm",
        "decoder",
        "epoch 3/12",
        "step 1,234/3,437",
        "36 %",
        "1:02:03 left",
        "loss 2.3456",
        "learning rate 4.20e-04",
        "tokens/s 1,234",
        "waiting for data 1.2 %",
        "last validation",
        "cider 0.8731",
        "macro f1 0.61",
        "reference a man riding a horse",
        "caption   a man on a horse",
        "caption   (empty)",
        "running for 0:00:0",
    ):
        assert piece in text  # none is broken between two lines


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_caption_takes_two_lines_and_ends_with_a_word(width: int) -> None:
    lines = [line.strip("│ ") for line in drawn(STATUS, width)]
    place = next(number for number, line in enumerate(lines) if "word0" in line)
    first, second = lines[place].removeprefix("reference").split(), lines[place + 1].split()
    assert second[-1] == "…"
    shown = [*first, *second[:-1]]
    assert shown == LONG.split()[: len(shown)] and lines[place + 2].startswith("caption")


def test_what_is_not_known_yet_is_left_out() -> None:
    assert any("Getting ready" in line for line in drawn(None, 80))
    text = "\n".join(drawn(TrainingStatus("encoder", 1, 5, 0, 0), 80))
    assert "loss -" in text and "tokens/s -" in text
    assert "validation" not in text and "reference" not in text and "left" not in text


def test_no_more_than_two_samples_are_shown() -> None:
    samples = tuple((f"picture {number}", f"said {number}") for number in range(5))
    text = "\n".join(drawn(TrainingStatus("decoder", 1, 1, 1, 2, samples=samples), 80))
    assert text.count("reference") == text.count("said") == CAPTIONS == 2


def test_captions_and_names_cannot_command_the_terminal() -> None:
    evil = "\x1b[2J[red]a\x07 cat[/red]"
    status = TrainingStatus(evil, 1, 1, 1, 2, validation={evil: 1.0}, samples=((evil, evil),))
    text = "\n".join(drawn(status, 120, title=evil))
    assert "\x1b" not in text and "\x07" not in text
    assert text.count("[red]a") == 5  # markup is no markup


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3723, "1:02:03"), (90061, "1 d 1:01:01"), (-3, "0:00:00")]
)
def test_the_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_showing_costs_microseconds() -> None:
    dashboard = Dashboard("Training", RichReporter()._bars())
    begun = time.process_time()
    for _ in range(10_000):
        dashboard.show(STATUS)
    assert (time.process_time() - begun) / 10_000 < 20e-6


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("terminal")
def test_notes_and_bars_share_the_terminal_with_the_display(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = RichReporter()
    with reporter.dashboard("Training") as show:
        show(STATUS)
        reporter.note("epoch 1 is done")
        with reporter.track("Captioning", 4) as advance:
            advance(2)
        with reporter.dashboard("a stage of it") as inner:
            assert inner == show
    with reporter.track("afterwards", 1) as advance:
        advance(1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Training" in captured.err and "epoch 1 is done\n" in captured.err and "afterwards" in captured.err


@pytest.mark.usefixtures("terminal")
def test_a_display_inside_bars_takes_them_in_and_gives_them_back(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = RichReporter()
    with reporter.track("all stages", 3) as advance:
        with reporter.dashboard("Training") as show:
            show(STATUS)
            advance(1)
        advance(1)
        assert reporter._progress is not None and reporter._progress.live.is_started
    assert reporter._progress is None
    assert "all stages" in capsys.readouterr().err


def test_a_pipe_gets_the_notes_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for reporter in (RichReporter(), RichReporter(quiet=True), SILENT):
        with reporter.dashboard("Training") as show:
            show(STATUS)
            reporter.note("epoch 1")
    assert capsys.readouterr() == ("", "epoch 1\n")


def test_an_error_ends_the_display(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    reporter = RichReporter()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), reporter.dashboard("Training"):
            raise KeyboardInterrupt
    assert capsys.readouterr().err.count("\x1b[?25h") == 2  # the cursor is back


def test_on_a_real_terminal_it_is_drawn_and_vanishes() -> None:
    script = textwrap.dedent("""
        import time
        from capxai.cli.reporter import RichReporter
        from capxai.types import TrainingStatus
        reporter, begun = RichReporter(), time.monotonic()
        with reporter.dashboard("Training") as show:
            show(TrainingStatus("decoder", 1, 2, 3, 4, loss=1.5))
            time.sleep(1.2)
            reporter.note("epoch 1: loss 1.5")
        print(time.monotonic() - begun)
    """)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen([sys.executable, "-c", script], stderr=theirs, stdout=subprocess.PIPE, env=environment)
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    output, _ = process.communicate()
    assert process.returncode == 0
    seconds = float(output)
    text = written.decode()
    assert "step 3/4" in text and "epoch 1: loss 1.5" in text
    assert (
        text.count("step 3/4") <= REFRESHES_PER_SECOND * seconds + 4
    )  # at the start, the note and the end it is drawn at once
    assert text.endswith(("\x1b[2K", "\x1b[1A\x1b[2K")) or text.rstrip().endswith("\x1b[2K")


# --- processes that run together


def speak() -> None:
    reporter = RichReporter()
    reporter.note("a note")
    reporter.warn("careful")
    print_line("a line")
    print_table("title", ("name",), [("value",)])
    print_json({"a": 1})
    print_figures({"figure": 1.0, "group": {"x": 2.0}})


def test_only_the_first_process_speaks_and_all_warn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    speak()
    with RichReporter().dashboard("Training") as show, RichReporter().track("work", 1):
        show(STATUS)
    out, err = capsys.readouterr()
    assert out == "" and "careful" in err and "note" not in err and "Training" not in err
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("RANK", "0")
    speak()
    out, err = capsys.readouterr()
    assert "a line" in out and "value" in out and "figure" in out and json.dumps({"a": 1}, indent=2) in out
    assert err == "a note\nWarning: careful\n"


def test_a_rank_without_other_processes_means_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "3")
    print_line("a line")
    assert capsys.readouterr().out == "a line\n"
