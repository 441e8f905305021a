"""Data-parallel fine-tuning: two processes that share every batch learn the same as one with the whole of it, whatever they draw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from finetune_cases import write_base

from capxai.data.scenes import write_corpus

SETTINGS = ("updates=4", "batch_size=5", "validate_every=2", "validation_pictures=6", "figure_splits=test", "threads=1")
SCRIPT = """
import sys
from pathlib import Path
from capxai.config import resolve
from capxai.recipes.finetune import FinetuneConfig, run
folder, objective, out, *settings = sys.argv[1:]
given = {"model": Path(folder, "base"), "corpus": Path(folder, "scenes"), "out": Path(out), "objective": objective}
run(resolve(FinetuneConfig, None, settings, all_words=True, **given))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.distributed.is_available() or sys.platform == "win32", reason="torch has no distributed package here"
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Render eleven training pictures, so that batches of five leave one process with less; save a base model and a script."""
    found = tmp_path_factory.mktemp("parallel")
    write_corpus(found / "scenes", 11, 0)
    write_base(found / "base", found / "scenes", "mh-fc")
    (found / "script.py").write_text(SCRIPT)
    return found


def tune(folder: Path, objective: str, processes: int) -> list[dict[str, object]]:
    """Fine-tune with so many processes; return the log."""
    launcher = (
        [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    )
    out = folder / f"{objective}-{processes}"
    words = [str(folder / "script.py"), str(folder), objective, str(out), "device=cpu", *SETTINGS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *launcher, *words], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "run.json").read_text())["processes"] == processes
    return [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("objective", ["lrp-counterfactual", "lrp-omega-random", "scst-counterfactual"])
def test_two_processes_give_the_loss_curve_of_one(folder: Path, objective: str) -> None:
    alone, shared = tune(folder, objective, 1), tune(folder, objective, 2)
    assert [line["epoch"] for line in shared] == [0, 1, 2]
    for one, two in zip(alone[1:], shared[1:], strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert two["validation"] == pytest.approx(one["validation"], abs=2e-4)
