"""``capxai explain``: which pixels and which words spoke for and against each word of a caption."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capxai.cli.options import Beam, ConfigFile, Debug, Device, Force, Images, Json, Model, Quiet, Seed, Settings
from capxai.cli.rendering import end_with_failures, print_line, print_table, warn_of_domain
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capxai.recipes.explain import ExplainedPicture, ExplainReport
    from capxai.types import JsonObject

EXAMPLES = (
    "capxai explain image.jpg",
    'capxai explain image.jpg --caption "a red car on the road" --method grad-cam --out compare',
    "capxai explain image.jpg --why knife --not fork",
    "capxai explain photos/*.jpg --model runs/x --json > report.json",
)
METHODS = "lrp|gradient|gradient-x-input|guided-backprop|grad-cam|guided-grad-cam|attention|random"
TABLES_UP_TO = 3
"""With more pictures than this, each gets one line instead of a table of its words."""

Method = Annotated[str | None, typer.Option("--method", metavar=METHODS, help="How to explain.", show_default="lrp")]
Caption = Annotated[
    str | None,
    typer.Option("--caption", metavar="TEXT", help="The caption to explain.", show_default="the model's own"),
]
Why = Annotated[
    str | None,
    typer.Option("--why", metavar="WORD", help="Explain this word of the caption alone.", show_default="all words"),
]
Not = Annotated[
    str | None,
    typer.Option("--not", metavar="WORD", help="Why it is that word rather than this one of the vocabulary."),
]
Head = Annotated[
    str | None,
    typer.Option("--head", metavar="all|N", help="Attention head whose relevance to keep.", show_default="all"),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Where to; each picture gets a folder in it.", show_default="explanations"
    ),
]
Scale = Annotated[
    str | None,
    typer.Option("--scale", metavar="caption|word", help="What shares a color scale.", show_default="caption"),
]

Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="float32|float64",
        help="Of all arithmetic.",
        show_default="float32",
        rich_help_panel="Common options",
    ),
]

_RULES = "Rules of lrp"
Eps = Annotated[
    float | None,
    typer.Option("--eps", help="Stabilizer of the decoder's rule.", show_default="0.01", rich_help_panel=_RULES),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        "--alpha", help="Weight of what speaks for, in the encoder.", show_default="1", rich_help_panel=_RULES
    ),
]
Beta = Annotated[
    float | None,
    typer.Option("--beta", help="Weight of what speaks against; alpha - 1.", show_default="0", rich_help_panel=_RULES),
]
Gamma = Annotated[
    float | None,
    typer.Option("--gamma", help="Gamma rule in the encoder instead.", show_default="off", rich_help_panel=_RULES),
]
ZBox = Annotated[bool, typer.Option("--z-box", help="z-box rule for the first convolution.", rich_help_panel=_RULES)]


def explain(
    images: Images,
    model: Model = None,
    method: Method = None,
    caption: Caption = None,
    why: Why = None,
    against: Not = None,
    head: Head = None,
    out: Out = None,
    beam: Beam = None,
    scale: Scale = None,
    eps: Eps = None,
    alpha: Alpha = None,
    beta: Beta = None,
    gamma: Gamma = None,
    z_box: ZBox = False,
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
    """Show for every word of a caption which pixels and which preceding words spoke for and against it.

    Writes a folder for each picture: explanation.html (open it in a browser), .png, .npz and .json.
    """
    from capxai.config import resolve
    from capxai.recipes.explain import ExplainConfig, run

    typed = {
        "images": images,
        "model": model,
        "method": method,
        "caption": caption,
        "why": why,
        "against": against,
        "head": head,
        "out": out,
        "beam": beam,
        "scale": scale,
        "eps": eps,
        "alpha": alpha,
        "beta": beta,
        "gamma": gamma,
        "z_box": z_box or None,
        "device": device,
        "precision": precision,
        "seed": seed,
        "force": force or None,
    }
    reporter = RichReporter(quiet)
    report = run(resolve(ExplainConfig, config, settings or (), **typed), reporter)
    if json:
        print_json(report.to_json())
    else:
        _print_report(report)
    if report.pictures:
        warn_of_domain(report.model, report.domain_note, reporter)
    end_with_failures(report.failures, len(report.pictures) + len(report.failures))


def _print_report(report: ExplainReport) -> None:
    for picture in report.pictures:
        if len(report.pictures) <= TABLES_UP_TO:
            _print_picture(picture)
        else:
            print_line(f"{picture.image}: {picture.explanation['caption']}  ->  {picture.folder}")


def _print_picture(picture: ExplainedPicture) -> None:
    print_line(f"{picture.image}: {picture.explanation['caption']}")
    if picture.explanation["contrast"] is not None:
        print_line(_contrast_line(picture.explanation))
    words = picture.explanation["words"]
    parts = [part for part in words[0]["share"] if any(word["share"][part] is not None for word in words)]
    print_table(
        "", ("word", "probability", *(part.replace("_", " ") for part in parts)), [_row(word, parts) for word in words]
    )
    print_line(f"Shares are of the {picture.explanation['share_of']}. Written to {picture.folder}:")
    for suffix in ("html", "png", "npz", "json"):
        print_line(f"  {picture.folder / f'explanation.{suffix}'}")
    print_line("")


def _contrast_line(explanation: JsonObject) -> str:
    word, other = explanation["words"][0], explanation["contrast"]
    return (
        f"{word['token']} rather than {other['token']}: logit {word['logit']:.3f} against {other['logit']:.3f}, difference "
        f"{other['logit_difference']:+.3f}; probability {word['probability']:.3f} against {other['probability']:.3f}"
    )


def _row(word: JsonObject, parts: Sequence[str]) -> tuple[str, ...]:
    shares = (word["share"][part] for part in parts)
    return (
        word["token"],
        f"{word['probability']:.3f}",
        *("-" if share is None else f"{share:+.1%}" for share in shares),
    )
