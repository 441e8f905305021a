"""Runs of ``capxai eval`` on the small annotation files, and what they print."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from capxai.cli.main import app

RUNNER = CliRunner()
FILES = ("--predictions", "ours.json", "--captions", "captions.json", "--instances", "instances.json")
PYTHON_BLEU = ("--metrics", "bleu", "--set", "tokenizer=python")


def invoke(*arguments: object) -> Result:
    return RUNNER.invoke(app, ["eval", *(str(argument) for argument in arguments)])


def report(*arguments: object) -> dict[str, Any]:
    """Run with ``--json`` and return what was printed."""
    result = invoke(*arguments, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def refusal(*arguments: object) -> str:
    """Run, expect exit code 1 without an internal error, and return the message on one line."""
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    assert "Internal error" not in result.stderr
    assert not result.stdout.strip()
    return " ".join(result.stderr.split())
