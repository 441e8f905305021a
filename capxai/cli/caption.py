"""``capxai caption``: say what is in a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capxai.cli.options import Beam, ConfigFile, Debug, Device, Images, Json, Model, Quiet, Settings
from capxai.cli.rendering import end_with_failures, print_line, warn_of_domain
from capxai.cli.reporter import RichReporter, print_json

EXAMPLES = (
    "capxai caption image.jpg",
    "capxai caption image.jpg --grounded --json",
    "capxai caption image.jpg --flag",
    "capxai caption photos/*.jpg --model runs/x --beam 5 --json",
)

Grounded = Annotated[
    bool,
    typer.Option("--grounded", help="Let object words that the picture hardly speaks for give way to the next best."),
]

Flag = Annotated[
    bool,
    typer.Option("--flag", help="Mark object words that are probably not in the picture, with their probability."),
]
Detector = Annotated[
    Path | None,
    typer.Option(
        "--detector",
        metavar="FILE",
        help="What --flag goes by, as 'capxai analyze detector' writes it.",
        show_default="detector.json beside the model",
    ),
]


def caption(
    images: Images,
    model: Model = None,
    beam: Beam = None,
    grounded: Grounded = False,
    flag: Flag = False,
    detector: Detector = None,
    device: Device = None,
    config: ConfigFile = None,
    settings: Settings = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Caption pictures, many at a time. Prints one line for each: its path, a tab, the caption.

    With --flag a word is marked so: "a car next to a [traffic light? 83 %]", 83 % being the probability that there is
    none in the picture.
    """
    from capxai.config import resolve
    from capxai.recipes.caption import CaptionConfig, run

    typed = {
        "images": images,
        "model": model,
        "beam": beam,
        "grounded": grounded or None,
        "flag": flag or None,
        "detector": detector,
        "device": device,
    }
    reporter = RichReporter(quiet)
    report = run(resolve(CaptionConfig, config, settings or (), **typed), reporter)
    if json:
        print_json(report.to_json())
    else:
        for picture in report.pictures:
            print_line(f"{picture.image}\t{picture.text}")
    if report.pictures:
        warn_of_domain(report.model, report.domain_note, reporter)
    end_with_failures(report.failures, len(report.pictures) + len(report.failures))
