"""``capxai import-checkpoint``: turn a checkpoint of the paper's authors into a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capxai.cli.options import ConfigFile, Debug, Force, Json, Quiet, Settings
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

EXAMPLES = (
    "capxai import-checkpoint --checkpoint BEST_checkpoint.pth --wordmap wordmap.json --out models/authors",
    "capxai explain photo.jpg --model models/authors",
)

Checkpoint = Annotated[
    Path,
    typer.Option("--checkpoint", metavar="F.pth", help="The checkpoint; it is read, never run.", show_default=False),
]
Wordmap = Annotated[
    Path,
    typer.Option("--wordmap", metavar="F.json", help="The word map that belongs to it.", show_default=False),
]
Heads = Annotated[
    int | None,
    typer.Option(
        "--heads", min=1, metavar="N", help="Attention heads, which the checkpoint does not store.", show_default="8"
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The model folder to make.", show_default=False)]


def import_checkpoint(
    checkpoint: Checkpoint,
    wordmap: Wordmap,
    out: Out,
    heads: Heads = None,
    config: ConfigFile = None,
    settings: Settings = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Import a checkpoint in the format of the paper's authors. Nothing that its pickle contains is run."""
    from capxai.config import resolve
    from capxai.recipes.import_checkpoint import ImportCheckpointConfig, run

    typed = {"checkpoint": checkpoint, "wordmap": wordmap, "heads": heads, "out": out, "force": force or None}
    report = run(resolve(ImportCheckpointConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
        return
    print_table("", ("architecture", ""), [(name, str(value)) for name, value in report.architecture.items()])
    print_line(f"Written to {report.out}. Use it with --model {report.out}.")
