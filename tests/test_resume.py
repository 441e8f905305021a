"""Nothing is lost: runs that are killed, interrupted, or run out of disk go on to the same weights, bit for bit."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.data.scenes import write_corpus
from capxai.errors import CapxaiError, ConfigError, ModelError
from capxai.models.folder import load_model
from capxai.recipes import train, training_run
from capxai.recipes.interruption import interruption, terminable
from capxai.recipes.train import TrainConfig
from capxai.recipes.training_resume import is_unfinished, newest_unfinished, read_record
from capxai.train.checkpoint import CHECKPOINT_FILE, read_checkpoint, write_checkpoint
from capxai.train.loop import Loop
from capxai.types import SilentReporter

KILLS = 20

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


class Listener(SilentReporter):
    """Remembers warnings and notes."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, text: str) -> None:
        self.heard.append(text)

    def warn(self, text: str) -> None:
        self.heard.append(text)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Render twelve training pictures."""
    folder = tmp_path_factory.mktemp("corpora") / "scenes"
    write_corpus(folder, 12, 0)
    return folder


def settings(corpus: Path, out: Path) -> TrainConfig:
    """Return settings of a run of a second or two, with all stages and a checkpoint after every step."""
    return TrainConfig(
        corpus=corpus,
        out=out,
        hidden_size=16,
        embedding_size=16,
        minimum_count=1,
        encoder_epochs=1,
        encoder_batch_size=6,
        decoder_epochs=3,
        joint_epochs=1,
        self_critical_epochs=1,
        batch_size=3,
        sampling_rise=0.2,
        figure_splits=(),
        checkpoint_seconds=0,
        device="cpu",
        threads=1,
    )


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train without an interruption."""
    torch.set_num_threads(1)
    return train.run(settings(corpus, tmp_path_factory.mktemp("runs") / "whole")).out


def log_without_times(folder: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    timed = ("seconds", "waiting_share", "tokens_per_second", "reward", "greedy_reward")
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def assert_same(folder: Path, whole: Path) -> None:
    """Compare weights bit for bit, and the log but for its times."""
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert log_without_times(folder) == log_without_times(whole)
    assert load_model(folder).lineage["epoch"] == load_model(whole).lineage["epoch"]
    assert not is_unfinished(folder)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".") or path.name == CHECKPOINT_FILE]


def in_child(work: Callable[[], object], kill_after: float | None) -> bool:
    """Do something in a forked process, which has all imports already; return whether it was killed before its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if kill_after is not None:
                timer = threading.Timer(kill_after, os.kill, (os.getpid(), signal.SIGKILL))
                timer.daemon = True
                timer.start()
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.slow
def test_killed_at_twenty_random_moments(corpus: Path, whole: Path, tmp_path: Path) -> None:
    begun = time.perf_counter()
    in_child(lambda: train.run(settings(corpus, tmp_path / "timed")), None)
    assert_same(tmp_path / "timed", whole)
    seconds, draw = time.perf_counter() - begun, random.Random(0)
    kills = runs = 0
    while kills < KILLS:  # a run that comes to its end before it is killed makes room for the next one
        runs += 1
        config, resumed = settings(corpus, tmp_path / f"killed-{runs}"), 0
        assert config.out is not None
        while True:
            moment = draw.uniform(0, seconds / 2) * (1 + resumed / 10)  # it has to get somewhere before the next time
            again = replace(config, resume=config.out.exists() and read_record(config.out) is not None)
            if not in_child(lambda config=again: train.run(config), moment):
                break
            kills, resumed = kills + 1, resumed + 1
        assert_same(config.out, whole)


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int, act: Callable[[], object]) -> None:
    """Act after so many steps of a run."""
    step, taken = Loop._step, iter(range(1, 1_000_000))

    def counted(*arguments: object) -> object:
        found = step(*arguments)  # type: ignore[arg-type]
        if next(taken) == steps:
            act()
        return found

    monkeypatch.setattr(Loop, "_step", counted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(
    corpus: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    config, listener = replace(settings(corpus, tmp_path / "run"), checkpoint_seconds=1e6), Listener()
    with monkeypatch.context() as patch:
        stop_after(patch, 7, lambda: os.kill(os.getpid(), number))
        with pytest.raises(KeyboardInterrupt):
            train.run(config, listener)
    assert f"capxai train --resume --out {config.out}" in listener.heard[-1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert config.out is not None
    state = read_checkpoint(config.out)
    assert (state["stage"], state["loop"]["position"]["epoch"], state["loop"]["position"]["step"]) == ("decoder", 2, 1)
    train.run(replace(config, resume=True))
    assert_same(config.out, whole)


def test_the_command_line_resumes_with_the_settings_of_the_run(
    corpus: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = settings(corpus, Path("runs", "x"))
    with monkeypatch.context() as patch:
        stop_after(patch, 4, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train.run(config)
    assert newest_unfinished() == config.out
    refused = CliRunner().invoke(app, ["train", "--out", "runs/x"])
    assert refused.exit_code == 1
    assert "not finished" in refused.stderr and "capxai train --resume --out runs/x" in refused.stderr
    refused = CliRunner().invoke(app, ["train", "--resume", "--seed", "3", "--set", "batch_size=4"])
    assert refused.exit_code == 1
    assert "batch_size is 4, and was 3; seed is 3, and was 0" in refused.stderr
    done = CliRunner().invoke(app, ["train", "--resume", "--json"])
    assert done.exit_code == 0, done.stderr
    assert_same(tmp_path / "runs" / "x", whole)
    again = CliRunner().invoke(app, ["train", "--resume", "--out", "runs/x", "--json"])
    assert again.exit_code == 0
    assert "finished already" in again.stderr
    assert json.loads(again.stdout) == json.loads(done.stdout)
    nothing = CliRunner().invoke(app, ["train", "--resume"])
    assert nothing.exit_code == 1
    assert "There is no unfinished run under 'runs'" in nothing.stderr


def test_a_run_that_is_not_there_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"There is no run in '.*nowhere' to resume"):
        train.run(TrainConfig(out=tmp_path / "nowhere", resume=True))


def test_a_plateau_run_may_be_made_longer_and_a_cosine_not(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for schedule in ("plateau", "cosine"):
        config = replace(
            settings(corpus, tmp_path / schedule), schedule=schedule, joint_epochs=0, self_critical_epochs=0
        )
        with monkeypatch.context() as patch:
            stop_after(patch, 4, lambda: os.kill(os.getpid(), signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                train.run(config)
        longer = replace(config, decoder_epochs=4, resume=True)
        if schedule == "cosine":
            with pytest.raises(ConfigError, match="decoder_epochs is 4, and was 3"):
                train.run(longer)
        else:
            train.run(longer)
            assert len(log_without_times(tmp_path / schedule)) == 5


def test_a_corpus_that_changed_is_refused(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(corpus, tmp_path / "run")
    with monkeypatch.context() as patch:
        stop_after(patch, 4, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train.run(config)
    other = tmp_path / "scenes"
    write_corpus(other, 12, 1)
    assert config.out is not None
    record = json.loads((config.out / "run.json").read_text())
    record["config"]["corpus"] = str(other)
    (config.out / "run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="begun on other data: corpus"):
        train.run(replace(config, corpus=other, resume=True))


def test_a_full_disk_leaves_the_last_checkpoint_whole(corpus: Path, whole: Path, tmp_path: Path) -> None:
    config = settings(corpus, tmp_path / "run")
    assert config.out is not None
    size = (whole / "model.safetensors").stat().st_size
    seen = tmp_path / "seen"

    def train_without_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        original = training_run.write_checkpoint

        def fill_the_disk(folder: Path, state: dict[str, object]) -> None:
            if state["stage"] == "decoder" and state["captioned_epochs"] == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # a checkpoint is larger than its model
            original(folder, state)

        training_run.write_checkpoint = fill_the_disk
        try:
            train.run(config)
        except CapxaiError as error:
            seen.write_text(str(error))

    in_child(train_without_room, None)
    assert CHECKPOINT_FILE in seen.read_text()
    assert "could not be written" in seen.read_text()
    state = read_checkpoint(config.out)
    assert (state["stage"], state["captioned_epochs"]) == ("decoder", 0)
    assert not list(config.out.glob(".checkpoint*"))
    train.run(replace(config, resume=True))
    assert_same(config.out, whole)


def test_an_error_after_the_first_checkpoint_says_how_to_go_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, listener = settings(corpus, tmp_path / "a run"), Listener()

    def fail(*given: object, **named: object) -> None:
        raise CapxaiError("The disk is full.")

    monkeypatch.setattr(training_run, "save_model", fail)
    with pytest.raises(CapxaiError):
        train.run(config, listener)
    assert any(f"capxai train --resume --out '{config.out}'" in text for text in listener.heard)


def test_the_echo_of_a_signal_by_torchrun_is_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with interruption() as found:
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setenv("WORLD_SIZE", "2")
        os.kill(os.getpid(), signal.SIGTERM)
        assert found.wanted and not found.hurried
        monkeypatch.setenv("WORLD_SIZE", "1")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert found.hurried


def test_sigterm_ends_like_ctrl_c_and_forked_workers_quietly() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with terminable():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"stage": "decoder", "weights": torch.zeros(3)})
    assert torch.equal(read_checkpoint(tmp_path)["weights"], torch.zeros(3))
    content = (tmp_path / CHECKPOINT_FILE).read_bytes()
    (tmp_path / CHECKPOINT_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"checkpoint\.pt' cannot be read.*Expected a checkpoint"):
        read_checkpoint(tmp_path)
