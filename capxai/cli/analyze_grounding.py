"""``capxai analyze grounding``: calibrate the veto of ``capxai caption --grounded``, and measure what it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from capxai.cli.analyze_options import Out, Pictures
from capxai.cli.options import Beam, ConfigFile, Corpus, Debug, Device, Force, Json, Model, Quiet, Seed, Settings, Split
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from capxai.evaluate.bootstrap import Difference, Estimate
    from capxai.recipes.analysis.grounding_report import GroundingReport

EXAMPLES = (
    "capxai analyze grounding --pictures 50",
    "capxai analyze grounding --model runs/x --calibrate val --split robust-val --pictures 0 --out grounding --install",
)
MEASURES = "context|share|margin|lead|above|language|probability"
COLUMNS = {
    "CHAIRi": "chair_i",
    "CHAIRs": "chair_s",
    "precision": "precision",
    "recall": "recall",
    "F1": "f1",
    "CIDEr": "cider",
    "BLEU-4": "bleu_4",
    "objects": "objects_per_caption",
}
COMPARED = ("chair_i", "recall", "cider", "objects_per_caption")
"""Figures whose differences fit on a screen; the report has all."""

Calibrate = Annotated[
    str | None,
    typer.Option("--calibrate", metavar="NAME", help="Split that the thresholds come from.", show_default="val"),
]
Measure = Annotated[
    str | None,
    typer.Option("--measure", metavar=MEASURES, help="What must not be too low.", show_default="context"),
]
Quantile = Annotated[
    float | None,
    typer.Option("--quantile", metavar="Q", help="Share of true mentions under the threshold.", show_default="0.1"),
]
Install = Annotated[bool, typer.Option("--install", help="Put the thresholds beside the model.")]


def grounding(
    model: Model = None,
    corpus: Corpus = None,
    calibrate: Calibrate = None,
    split: Split = None,
    measure: Measure = None,
    quantile: Quantile = None,
    install: Install = False,
    pictures: Pictures = None,
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
    """Calibrate a veto on object words with too little evidence, and measure captions with and without it.

    While decoding, an object word gives way to the next best word if less relevance reaches the picture's side of the
    word head than in all but a few of the true mentions of its category. Controls: the same by the word's
    probability, and at random at the same rate.
    """
    from capxai.config import resolve
    from capxai.recipes.analysis.grounding import GroundingConfig, run

    typed = {
        "model": model,
        "corpus": corpus,
        "calibrate": calibrate,
        "split": split,
        "measure": measure,
        "quantile": quantile,
        "install": install or None,
        "pictures": pictures,
        "beam": beam,
        "out": out,
        "device": device,
        "seed": seed,
        "force": force or None,
    }
    report = run(resolve(GroundingConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
    else:
        _print_report(report)


def _print_report(report: GroundingReport) -> None:
    found = report.grounding
    examples = sum(found.examples.values())
    print_line(
        f"Calibrated on {found.provenance['split']}: {examples} true mentions of {len(found.examples)} categories; the lowest "
        f"{found.quantile:.0%} of '{found.measure}' of each category give way."
    )
    if report.rare():
        print_line(f"Too rare for a threshold of their own, all categories' is used: {', '.join(report.rare())}.")
    print_line(f"{report.corpus}, {report.split}, {report.model}: {report.pictures} pictures.")
    names = {name: key for name, key in COLUMNS.items() if any(key in row for row in report.figures.values())}
    rows = [(name, *(_interval(row.get(key)) for key in names.values())) for name, row in report.figures.items()]
    print_table("", ("decoding", *names), rows)
    compared = {name: key for name, key in names.items() if key in COMPARED}
    print_table(
        "",
        ("difference", *compared),
        [(name, *(_difference(row.get(key)) for key in compared.values())) for name, row in report.differences.items()],
    )
    rates = ", ".join(f"{name} {rate:.1%}" for name, rate in report.rates.items())
    print_line(f"Object words of the plain captions that a veto forbids: {rates}; random as often as {found.measure}.")
    print_line("In brackets: bootstrap intervals over pictures (95 %); * the interval of a difference does not hold 0.")


def _interval(found: Estimate | None) -> str:
    if found is None:
        return "-"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _difference(found: Difference | None) -> str:
    if found is None:
        return "-"
    mark = " *" if found.low > 0 or found.high < 0 else ""
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]{mark}"
