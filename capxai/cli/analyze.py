"""``capxai analyze``: whether explanations are right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capxai.cli.guard import guarded
from capxai.cli.options import (
    Beam,
    ConfigFile,
    Corpus,
    Debug,
    Device,
    Force,
    Json,
    Model,
    Quiet,
    Seed,
    Settings,
    Split,
    examples,
)
from capxai.cli.rendering import print_figures
from capxai.cli.reporter import RichReporter, print_json

EXAMPLES = ("capxai analyze correctness", "capxai analyze correctness --model runs/x --method lrp --out analysis")

app = typer.Typer(no_args_is_help=True, help="Measure whether explanations are right.", epilog=examples(EXAMPLES))

Method = Annotated[
    list[str] | None,
    typer.Option("--method", metavar="NAME", help="A method; may be repeated.", show_default="every method"),
]
Pictures = Annotated[
    int | None,
    typer.Option("--pictures", min=1, metavar="N", help="The first so many of the split.", show_default="200"),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder for the report.", show_default=False)]


@app.callback()
def analyses() -> None:
    """Measure whether explanations are right."""


@app.command(epilog=examples(EXAMPLES))
@guarded
def correctness(
    model: Model = None,
    corpus: Corpus = None,
    split: Split = None,
    pictures: Pictures = None,
    method: Method = None,
    beam: Beam = None,
    out: Out = None,
    device: Device = None,
    seed: Seed = None,
    config: ConfigFile = None,
    settings: Settings = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure how much of an object word's positive relevance lies inside the object.

    The object's share of the picture's area is the control.
    """
    from capxai.config import resolve
    from capxai.recipes.correctness import CorrectnessConfig, run

    typed = {
        "model": model,
        "corpus": corpus,
        "split": split,
        "pictures": pictures,
        "method": method or None,
        "beam": beam,
        "out": out,
        "device": device,
        "seed": seed,
        "force": force or None,
    }
    report = run(resolve(CorrectnessConfig, config, settings or (), **typed), RichReporter(quiet)).to_json()
    if json:
        print_json(report)
    else:
        print_figures({name: value for name, value in report.items() if name not in ("schema", "provenance")})
