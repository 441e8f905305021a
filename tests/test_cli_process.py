"""The command line as a process of its own: start-up, pipes, interrupts, and one run of every verb."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from authors_format import decoder_weights, vgg16_weights, write_checkpoint, write_word_map
from PIL import Image
from tiny_captioner import tiny_captioner

import capxai
from capxai.models.folder import save_model

SOURCE = Path(capxai.__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "capxai"]
CPU_SECONDS = 0.5

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(folder: Path) -> dict[str, str]:
    """The environment of a user who has nothing: no cache, and colors forbidden by nobody."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return {**kept, "PYTHONPATH": str(SOURCE), "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``capxai`` in a folder with a model and a picture, and return what it did."""
    save_model(tiny_captioner(), tmp_path / "model")
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "image.jpg")

    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return start


def _cpu_seconds(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*COMMAND, *arguments], cwd=SOURCE, capture_output=True, check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["explain", "--help"]], ids=" ".join)
def test_help_takes_less_than_half_a_second(arguments: list[str]) -> None:
    assert min(_cpu_seconds(*arguments) for _ in range(3)) < CPU_SECONDS


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["explain", "--help"], ["train", "--help"]], ids=" ".join
)
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "capxai", *arguments]
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=True, timeout=60)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "capxai.cli.main" in imported
    assert not imported & {"torch", "torchvision", "numpy", "PIL.Image", "h5py", "pycocotools.mask"}


def test_no_help_of_any_verb_imports_torch() -> None:
    code = """
import sys
import typer
from typer.testing import CliRunner
from capxai.cli.main import app

groups = typer.main.get_command(app).commands
verbs = [[name, *more] for name, one in groups.items() for more in ([], *([x] for x in getattr(one, "commands", ())))]
for verb in verbs:
    assert CliRunner().invoke(app, [*verb, "--help"]).exit_code == 0, verb
assert ["analyze", "hallucination"] in verbs
print(sorted({"torch", "torchvision", "numpy", "h5py", "matplotlib", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SOURCE, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, capxai, capxai.explain; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=SOURCE, check=True, timeout=60)


def test_explain(run: Run, tmp_path: Path) -> None:
    done = run("explain", "image.jpg", "--model", "model")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "explanations" / "image" / "explanation.html").is_file()
    assert "probability" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_caption(run: Run) -> None:
    done = run("caption", "image.jpg", "--model", "model", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pictures"][0]["image"] == "image.jpg"


def test_prepare(run: Run, tmp_path: Path) -> None:
    done = run("prepare", "scenes", "--out", "corpus", "--size", "8")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "corpus" / "images" / "train").iterdir())) == 8


@pytest.mark.slow
def test_train_and_eval_on_the_built_in_corpus(run: Run, tmp_path: Path) -> None:
    settings = ("size=16", "encoder_epochs=1", "decoder_epochs=1", "hidden_size=16", "embedding_size=16")
    done = run("train", "--out", "runs/tiny", *(word for item in settings for word in ("--set", item)))
    assert done.returncode == 0, done.stderr
    assert "Written to runs/tiny" in done.stdout
    assert json.loads((tmp_path / "runs" / "tiny" / "run.json").read_text())["config"]["size"] == 16
    evaluated = run("eval", "--chair", "--set", "size=16", "--out", "scores")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "Model: runs/tiny." in evaluated.stderr
    assert "CHAIRi" in evaluated.stdout
    assert "chair_i" in json.loads((tmp_path / "scores" / "eval.json").read_text())["overall"]
    explained = run("explain", "image.jpg", "--model", "runs/tiny", "--caption", "a car", "--method", "gradient")
    assert explained.returncode == 0, explained.stderr


def test_import_checkpoint(run: Run, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = vgg16_weights(generator) | decoder_weights("ada-lstm", generator)
    write_checkpoint(tmp_path / "c.pth", weights)
    write_word_map(tmp_path / "w.json")
    done = run("import-checkpoint", "--checkpoint", "c.pth", "--wordmap", "w.json", "--out", "imported")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "imported" / "model.json").is_file()


@pytest.mark.slow
def test_doctor(run: Run) -> None:
    done = run("doctor")
    assert "What works here" in done.stdout
    works = "fail  explain" not in done.stdout
    assert done.returncode == (0 if works else 1)


def test_a_closed_pipe_is_no_error_message(run: Run, tmp_path: Path) -> None:
    run("--version")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "caption", "image.jpg", "--model", "model", "--quiet"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_under_the_output_is_one_sentence(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "prepare", "scenes", "--size", "8", "--out", "scenes"],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: The disk is full: the output could not be written.")
    assert done.stderr.count("\n") == 1


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [*COMMAND, "prepare", "scenes", "--out", "corpus", "--size", "100000"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        # A suite that runs in the background hands down an ignored SIGINT, which Python would go on ignoring.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".corpus*/images/train/*.jpg")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "Interrupted.\n"
    assert not list(tmp_path.glob("*corpus*"))
