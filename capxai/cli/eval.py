"""``capxai eval``: how good a model's captions are, and what it hallucinates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capxai.cli.options import Beam, ConfigFile, Corpus, Debug, Device, Json, Quiet, Seed, Settings, Split
from capxai.cli.rendering import print_figures
from capxai.cli.reporter import RichReporter, print_json

EXAMPLES = ("capxai eval --chair", "capxai eval --chair --model runs/x --split robust --out robust")

EvaluatedModel = Annotated[
    Path | None,
    typer.Option(
        "--model", metavar="DIR", help="Model folder.", show_default="the newest under runs/, or else the bundled model"
    ),
]
Chair = Annotated[bool, typer.Option("--chair", help="Count objects that captions name and pictures do not show.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder for eval.json.", show_default="nothing is written")
]


def evaluate(
    model: EvaluatedModel = None,
    corpus: Corpus = None,
    split: Split = None,
    chair: Chair = False,
    beam: Beam = None,
    out: Out = None,
    device: Device = None,
    seed: Seed = None,
    config: ConfigFile = None,
    settings: Settings = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Caption a split of a corpus and measure the captions against what its annotators say and saw."""
    from capxai.config import resolve
    from capxai.recipes.evaluate import EvaluateConfig, run

    typed = {
        "model": model,
        "corpus": corpus,
        "split": split,
        "chair": chair or None,
        "beam": beam,
        "out": out,
        "device": device,
        "seed": seed,
    }
    report = run(resolve(EvaluateConfig, config, settings or (), **typed), RichReporter(quiet)).to_json()
    if json:
        print_json(report)
    else:
        print_figures({name: value for name, value in report.items() if name not in ("schema", "provenance")})
