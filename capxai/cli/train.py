"""``capxai train``: train a captioner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capxai.cli.options import ConfigFile, Corpus, Debug, Device, Force, Json, Quiet, Seed, Settings
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from capxai.recipes.train import TrainConfig, TrainReport

EXAMPLES = (
    "capxai train",
    "capxai train --corpus scenes --decoder mh-fc --out runs/x --set decoder_epochs=12",
    "capxai train --corpus coco --features coco.h5 --out runs/coco --set self_critical_epochs=20",
    "capxai train --resume --out runs/coco",
    "torchrun --nproc-per-node 4 -m capxai train --corpus coco --features coco.h5 --precision bfloat16",
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
        help="What sees; compact is trained here, the others have ImageNet weights. Features bring their own.",
        show_default="compact",
    ),
]
EncoderWeights = Annotated[
    Path | None,
    typer.Option(
        "--encoder-weights",
        metavar="FILE|random",
        help="The encoder's weights, where there is no internet; or random ones.",
        show_default=False,
    ),
]
Features = Annotated[
    Path | None,
    typer.Option(
        "--features",
        metavar="F.h5",
        help="Train from stored features, see 'capxai extract-features'.",
        show_default="from the pictures",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="float32|bfloat16|float16",
        help="Of the networks in training; weights stay float32.",
        show_default="float32",
        rich_help_panel="Common options",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The model folder to make.", show_default="a new one under runs/"),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the run in --out, or with the newest unfinished one under runs/. Its settings are taken over.",
    ),
]


def train(
    corpus: Corpus = None,
    features: Features = None,
    decoder: Decoder = None,
    encoder: Encoder = None,
    encoder_weights: EncoderWeights = None,
    out: Out = None,
    resume: Resume = False,
    device: Device = None,
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

    Every other corpus takes the paper's sizes, learning rates and rules. Epochs (also those of joint training with the
    encoder, and of self-critical training), sizes and learning rates are settings: see --set.

    Ctrl-C, a crash or a full disk loses nothing: --resume goes on from the last checkpoint, to the same weights.
    """
    from capxai.recipes.train import run

    typed = {
        "corpus": corpus,
        "features": features,
        "decoder": decoder,
        "encoder": encoder,
        "encoder_weights": encoder_weights,
        "out": out,
        "device": device,
        "precision": precision,
        "seed": seed,
        "force": force or None,
    }
    report = run(_resolved(resume, config, settings or [], typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
    else:
        _print(report)


def _resolved(resume: bool, config: Path | None, settings: list[str], typed: Mapping[str, object]) -> TrainConfig:
    """Collect the settings: of a resumed run, what was not typed is as it was."""
    from capxai.config import resolve, resolve_over
    from capxai.recipes.train import TrainConfig

    if not resume:
        return resolve(TrainConfig, config, settings, **typed)
    from capxai.recipes.training_resume import newest_unfinished, saved_settings

    folder = typed["out"] or newest_unfinished()
    assert isinstance(folder, Path)
    return resolve_over(
        TrainConfig, saved_settings(folder), config, settings, **{**typed, "out": folder, "resume": True}
    )


def _print(report: TrainReport) -> None:
    figures = {"validation": report.validation, **report.figures}
    names = sorted({name for split in figures.values() for name in split})
    rows = [
        (split, *(f"{found[name]:.4f}" if name in found else "-" for name in names)) for split, found in figures.items()
    ]
    print_table("", ("split", *(name.replace("_", " ") for name in names)), rows)
    print_line(f"Kept epoch {report.epoch}; {report.seconds:.0f} s. Written to {report.out}.")
    print_line(f"The same model again: {report.command}")
