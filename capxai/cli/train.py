"""``capxai train``: train a captioner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capxai.cli.options import ConfigFile, Corpus, Debug, Force, Json, Quiet, Seed, Settings
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

EXAMPLES = (
    "capxai train",
    "capxai train --corpus scenes --decoder mh-fc --out runs/x --set decoder_epochs=12",
)

Decoder = Annotated[
    str | None,
    typer.Option("--decoder", metavar="ada-lstm|mh-fc|adaptive", help="What writes.", show_default="ada-lstm"),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="compact|vgg16|resnet50|resnet101",
        help="What sees; compact is trained here, the others have ImageNet weights.",
        show_default="compact",
    ),
]
EncoderWeights = Annotated[
    Path | None,
    typer.Option(
        "--encoder-weights",
        metavar="FILE",
        help="torchvision's weights file, where there is no internet.",
        show_default=False,
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="float32|bfloat16",
        help="Of the convolutions in training.",
        show_default="float32",
        rich_help_panel="Common options",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The model folder to make.", show_default="a new one under runs/"),
]


def train(
    corpus: Corpus = None,
    decoder: Decoder = None,
    encoder: Encoder = None,
    encoder_weights: EncoderWeights = None,
    out: Out = None,
    precision: Precision = None,
    seed: Seed = None,
    config: ConfigFile = None,
    settings: Settings = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a captioner. With nothing typed: on the built-in corpus, in minutes on a CPU.

    Epochs, sizes and learning rates are settings: see --set.
    """
    from capxai.config import resolve
    from capxai.recipes.train import TrainConfig, run

    typed = {
        "corpus": corpus,
        "decoder": decoder,
        "encoder": encoder,
        "encoder_weights": encoder_weights,
        "out": out,
        "precision": precision,
        "seed": seed,
        "force": force or None,
    }
    report = run(resolve(TrainConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
        return
    figures = {"validation": report.validation, **report.figures}
    names = sorted({name for split in figures.values() for name in split})
    rows = [
        (split, *(f"{found[name]:.4f}" if name in found else "-" for name in names)) for split, found in figures.items()
    ]
    print_table("", ("split", *(name.replace("_", " ") for name in names)), rows)
    print_line(f"Kept epoch {report.epoch}; {report.seconds:.0f} s. Written to {report.out}.")
    print_line(f"The same model again: {report.command}")
