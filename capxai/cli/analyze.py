"""``capxai analyze``: whether explanations are right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capxai.cli.guard import guarded
from capxai.cli.options import ConfigFile, Corpus, Debug, Device, Force, Json, Model, Quiet, Seed, Settings, examples
from capxai.cli.rendering import print_figures
from capxai.cli.reporter import RichReporter, print_json

EXAMPLES = ("capxai analyze correctness", "capxai analyze correctness --model runs/x --method lrp --out analysis")

app = typer.Typer(no_args_is_help=True, help="Measure whether explanations are right.", epilog=examples(EXAMPLES))

Method = Annotated[
    str | None, typer.Option("--method", metavar="NAME", help="One method.", show_default="every method")
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
    method: Method = None,
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
        "method": method,
        "out": out,
        "device": device,
        "seed": seed,
        "force": force or None,
    }
    report = run(resolve(CorrectnessConfig, config, settings or (), **typed), RichReporter(quiet)).to_json()
    if json:
        print_json(report)
    else:
        print_figures(report)
