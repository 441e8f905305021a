"""The ``capxai`` command: its verbs, its version, and the ends of a process.

Importing torch takes seconds, so a verb imports its recipe when it runs; ``--help`` and ``--version`` import neither.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import capxai
from capxai.cli import caption, doctor, explain, import_checkpoint, prepare, train
from capxai.cli.guard import INTERRUPTED, guarded
from capxai.cli.options import examples

EXAMPLES = ("capxai explain image.jpg", "capxai doctor")

app = typer.Typer(
    name="capxai",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(EXAMPLES),
)

app.command("explain", epilog=examples(explain.EXAMPLES))(guarded(explain.explain))
app.command("caption", epilog=examples(caption.EXAMPLES))(guarded(caption.caption))
app.command("train", epilog=examples(train.EXAMPLES))(guarded(train.train))
app.add_typer(prepare.app, name="prepare")
app.command("import-checkpoint", epilog=examples(import_checkpoint.EXAMPLES))(
    guarded(import_checkpoint.import_checkpoint)
)
app.command("doctor", epilog=examples(doctor.EXAMPLES))(guarded(doctor.doctor))


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
    try:
        code = app(standalone_mode=True)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return INTERRUPTED
    return int(code or 0)
