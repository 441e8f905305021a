"""Fine-tuning that is killed or interrupted goes on to the same weights, bit for bit, whatever the objective draws."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from finetune_cases import settings, write_base
from test_resume import Listener, in_child, log_without_times, stop_after
from test_resume import assert_same as assert_same_run

from capxai.config import to_json
from capxai.data.scenes import write_corpus
from capxai.errors import ConfigError
from capxai.models.folder import load_model, save_model
from capxai.recipes import finetune, training_curve
from capxai.recipes.finetune import FinetuneConfig
from capxai.recipes.finetune_run import FOLDERS
from capxai.recipes.run_folder import refuse_differences
from capxai.train.checkpoint import read_checkpoint

KILLS = 4
DRAWING = ("lrp-counterfactual", "lrp-omega-random", "scst")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Compute on one thread, and draw no curves: they take longer than the runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_curve, "draw_curve", lambda records: b"a curve")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Render twelve training pictures."""
    folder = tmp_path_factory.mktemp("corpora") / "scenes"
    write_corpus(folder, 12, 0)
    return folder


@pytest.fixture(scope="module")
def base(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("models") / "base", corpus, "mh-fc")


def config(corpus: Path, base: Path, out: Path, objective: str) -> FinetuneConfig:
    return settings(
        corpus, base, out, objective=objective, updates=7, validate_every=3, all_words=True, checkpoint_seconds=0
    )


def assert_same(folder: Path, whole: Path) -> None:
    assert_same_run(folder, whole)
    assert log_without_times(folder)[0]["epoch"] == 0
    assert not FOLDERS.is_unfinished(folder)


@pytest.fixture(scope="module")
def wholes(corpus: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Fine-tune without an interruption, by every objective that draws random numbers in another way."""
    root = tmp_path_factory.mktemp("runs")
    return {name: finetune.run(config(corpus, base, root / name, name)).out for name in DRAWING}


def test_killed_at_random_moments(corpus: Path, base: Path, wholes: dict[str, Path], tmp_path: Path) -> None:
    objective = "lrp-counterfactual"
    begun = time.perf_counter()
    in_child(lambda: finetune.run(config(corpus, base, tmp_path / "timed", objective)), None)
    assert_same(tmp_path / "timed", wholes[objective])
    seconds, draw = time.perf_counter() - begun, random.Random(0)
    kills = runs = 0
    while kills < KILLS:
        runs += 1
        settings_of_run = config(corpus, base, tmp_path / f"killed-{runs}", objective)
        assert settings_of_run.out is not None
        for patience in range(1, KILLS + 1):
            begun_before = settings_of_run.out.exists() and FOLDERS.record(settings_of_run.out) is not None
            moment = draw.uniform(0, seconds / 2) * (1 + patience / 5) if kills < KILLS else None
            resumed = replace(settings_of_run, resume=begun_before)
            if not in_child(lambda found=resumed: finetune.run(found), moment):
                break
            kills += 1
        assert_same(settings_of_run.out, wholes[objective])


@pytest.mark.parametrize(("objective", "steps"), list(zip(DRAWING, (5, 2, 5), strict=True)))
def test_an_interrupted_run_goes_on(
    corpus: Path, base: Path, wholes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str, steps: int
) -> None:  # fmt: skip
    listener = Listener()
    unfinished = replace(config(corpus, base, tmp_path / "run", objective), checkpoint_seconds=1e6)
    with monkeypatch.context() as patch:
        stop_after(patch, steps, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            finetune.run(unfinished, listener)
    assert unfinished.out is not None
    assert listener.heard[-1].endswith(f"capxai finetune --resume --out {unfinished.out}")
    assert FOLDERS.is_unfinished(unfinished.out)
    position = read_checkpoint(unfinished.out)["loop"]["position"]
    assert (position["epoch"] - 1) * 3 + position["step"] == steps
    report = finetune.run(replace(unfinished, resume=True, model=None))  # what was the newest run then may not be now
    assert report.base == base
    assert_same(unfinished.out, wholes[objective])
    again = finetune.run(replace(unfinished, resume=True), listener)
    assert "finished already" in listener.heard[-1]
    assert again.to_json() == report.to_json()


def test_a_run_that_is_not_the_same_is_refused(
    corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "base"
    model = load_model(base)
    save_model(model, own)
    unfinished = config(corpus, own, tmp_path / "run", "lrp")
    with monkeypatch.context() as patch:
        stop_after(patch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            finetune.run(unfinished)
    with pytest.raises(ConfigError, match=r"objective is 'ce', and was 'lrp'; seed is 4, and was 0"):
        finetune.run(replace(unfinished, resume=True, objective="ce", seed=4))
    model.decoder.word_head.fc.bias.data += 1
    save_model(model, own, force=True)
    with pytest.raises(ConfigError, match="begun on other data: base model changed"):
        finetune.run(replace(unfinished, resume=True))


def test_a_setting_that_an_earlier_version_did_not_know_was_its_default(tmp_path: Path) -> None:
    now = FinetuneConfig(out=tmp_path)
    saved = {name: value for name, value in to_json(now).items() if name != "emphasis"}
    refuse_differences(now, saved, (), "nothing")
    with pytest.raises(ConfigError, match=r"emphasis is 0\.5, and was None"):
        refuse_differences(replace(now, emphasis=0.5), saved, (), "nothing")
