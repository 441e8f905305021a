"""The README: every command and every line of Python in it runs, in the order in which it stands there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from authors_format import decoder_weights, vgg16_weights, write_checkpoint, write_word_map
from small_corpora import write_coco, write_karpathy
from typer.testing import CliRunner

from capxai.cli.main import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

# What makes a command small enough for a test. Nothing else about it is changed.
SHORTER = {
    "--size 5000": "--size 200",
    "capxai train": "capxai train --set encoder_epochs=1 --set decoder_epochs=1 --set hidden_size=16 --set embedding_size=16",
    "--pictures 200": "--pictures 3",
    "--pictures 20 ": "--pictures 2 ",
    "--pictures 48": "--pictures 2 --size small --set memory=no",
    "--set seeds=0,1,2": "--set seeds=0",
    "--set updates=150": "--set updates=1 --set timed_steps=1",
    "capxai finetune --model": "capxai finetune --set updates=2 --model",
    "--repeat 3": "--repeat 1 --size small",
    "/data/coco": "coco-archives",
    "--encoder vgg16": "--encoder vgg16 --encoder-weights random",
    "self_critical_epochs=5": "self_critical_epochs=1",
    "capxai eval --chair": "capxai eval --chair --set size=40",
}


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(README) if kind == language]


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith(("capxai ", "torchrun "))]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README takes for given."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(ROOT / "data" / "example.jpg", folder / "image.jpg")
    generator = torch.Generator().manual_seed(0)
    weights = vgg16_weights(generator) | decoder_weights("ada-lstm", generator)
    write_checkpoint(folder / "BEST_checkpoint.pth", weights)
    write_word_map(folder / "WORDMAP.json")
    write_coco(folder / "coco-archives", {"train2017": range(1, 9), "val2017": range(11, 17)})
    write_karpathy(folder, "flickr30k", {"train": range(1, 6), "val": range(6, 8), "test": range(8, 10)})
    (folder / "pictures").rename(folder / "flickr30k-images")
    return folder


def run(line: str) -> tuple[int, str]:
    """Run a command in the working folder; return its exit code and what it wrote."""
    program, *words = shlex.split(line)
    if program == "capxai":
        result = CliRunner().invoke(app, words)
        return result.exit_code, result.output
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def test_every_command_runs(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    assert len(commands()) >= 10
    for command in commands():
        line = command
        for long, short in SHORTER.items():
            line = line.replace(long, short)
        code, output = run(line)
        assert code == 0, f"{command}\n{output}"
    assert (workplace / "explanations" / "image" / "explanation.html").is_file()


def test_the_python_runs(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(workplace)
    for number, block in enumerate(blocks("python")):
        exec(compile(block, f"README.md, block {number}", "exec"), {})
    assert (workplace / "explanations" / "from-python" / "explanation.npz").is_file()
    assert "(" in capsys.readouterr().out


def test_setup_commands_are_what_ci_runs() -> None:
    setup = [line for block in blocks("sh") for line in block.splitlines() if "pip install" in line]
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert len(setup) == 2
    assert 'pip install ".[dev]"' in setup[1]
    assert 'pip install --quiet ".[dev]"' in ci
    assert setup[1].endswith("pytest -q")
    assert "\npytest -q\n" in ci


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link
