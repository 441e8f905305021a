"""The ``capxai`` command: its verbs, its version, and the ends of a process.

Importing torch takes seconds, so a verb imports its recipe when it runs; ``--help`` and ``--version`` import none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

import capxai
from capxai.cli import (
    analyze,
    bench,
    caption,
    doctor,
    eval,  # noqa: A004
    explain,
    extract_features,
    finetune,
    import_checkpoint,
    prepare,
    train,
)
from capxai.cli.guard import INTERRUPTED, guarded
from capxai.cli.options import examples
from capxai.recipes.allocation import keep_freed_memory

EXAMPLES = ("capxai explain image.jpg", "capxai doctor")

VERBS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "explain": (explain.explain, explain.EXAMPLES),
    "caption": (caption.caption, caption.EXAMPLES),
    "extract-features": (extract_features.extract_features, extract_features.EXAMPLES),
    "train": (train.train, train.EXAMPLES),
    "finetune": (finetune.finetune, finetune.EXAMPLES),
    "eval": (eval.evaluate, eval.EXAMPLES),
    "import-checkpoint": (import_checkpoint.import_checkpoint, import_checkpoint.EXAMPLES),
    "doctor": (doctor.doctor, doctor.EXAMPLES),
}
GROUPS = {"prepare": prepare.app, "analyze": analyze.app, "bench": bench.app}

app = typer.Typer(
    name="capxai",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(EXAMPLES),
)
for name, (verb, lines) in VERBS.items():
    app.command(name, epilog=examples(lines))(guarded(verb))
for name, group in GROUPS.items():
    app.add_typer(group, name=name)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"capxai {capxai.__version__}")
        raise typer.Exit


@app.callback()
def capxai_command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Explain image captions: which pixels and which words spoke for and against each word."""


def main() -> int:
    """Run the command line and return its exit code."""
    keep_freed_memory()
    try:
        code = app(standalone_mode=True)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return INTERRUPTED
    return int(code or 0)
