"""Data-parallel training: two processes that share every batch learn the same as one with the whole of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from capxai.data.scenes import write_corpus

SETTINGS = (
    "hidden_size=16",
    "embedding_size=16",
    "heads=4",
    "minimum_count=1",
    "encoder_epochs=1",
    "encoder_batch_size=6",
    "decoder_epochs=3",
    "joint_epochs=1",
    "self_critical_epochs=1",
    "batch_size=5",  # of eleven pictures: batches of 5, 5 and 1, which leave one process with less, or nothing
    "sampling_rise=0.2",
    "figure_splits=test",
    "threads=1",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.distributed.is_available() or sys.platform == "win32", reason="torch has no distributed package here"
    ),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Render eleven training pictures."""
    folder = tmp_path_factory.mktemp("corpora") / "scenes"
    write_corpus(folder, 11, 0)
    return folder


def train(corpus: Path, out: Path, processes: int, *more: str) -> list[dict[str, object]]:
    """Train with so many processes; return the log."""
    launcher = (
        [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    )
    settings = [word for item in SETTINGS for word in ("--set", item)]
    words = ["-m", "capxai", "train", "--corpus", str(corpus), "--out", str(out), "--device", "cpu", *settings, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *launcher, *words], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Written to") == 1  # one process speaks
    return [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]


def test_two_processes_give_the_loss_curve_of_one(corpus: Path, tmp_path: Path) -> None:
    alone = train(corpus, tmp_path / "alone", 1, "--decoder", "mh-fc")
    shared = train(corpus, tmp_path / "shared", 2, "--decoder", "mh-fc")
    assert [line["stage"] for line in shared] == ["encoder", *["decoder"] * 3, "joint", "self-critical"]
    for one, two in zip(alone, shared, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert two.get("validation") == pytest.approx(one.get("validation"), abs=1e-4)
    processes = [json.loads((tmp_path / name / "run.json").read_text())["processes"] for name in ("alone", "shared")]
    assert processes == [1, 2]
