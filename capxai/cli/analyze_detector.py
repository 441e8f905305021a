"""``capxai analyze detector``: calibrate a detector of hallucinated words on some splits, and measure it on another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from capxai.cli.analyze_options import Out, Pictures
from capxai.cli.options import Beam, ConfigFile, Corpus, Debug, Device, Force, Json, Model, Quiet, Seed, Settings
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from capxai.evaluate.bootstrap import Estimate
    from capxai.recipes.analysis.detector_report import DetectorReport, DetectorScore

EXAMPLES = (
    "capxai analyze detector --pictures 0 --out detector",
    "capxai analyze detector --model runs/x --calibrate robust-val --split robust --out detector --install",
)

Calibrate = Annotated[
    list[str] | None,
    typer.Option(
        "--calibrate",
        metavar="NAME",
        help="Split to calibrate on; may be repeated.",
        show_default="val and robust-val, if there",
    ),
]
Split = Annotated[str | None, typer.Option("--split", metavar="NAME", help="Split to measure.", show_default="robust")]
Install = Annotated[
    bool, typer.Option("--install", help="Also put the detector beside the model, for 'capxai caption --flag'.")
]


def detector(
    model: Model = None,
    corpus: Corpus = None,
    calibrate: Calibrate = None,
    split: Split = None,
    pictures: Pictures = None,
    beam: Beam = None,
    install: Install = False,
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
    """Calibrate a detector of hallucinated object words, and measure it on another split.

    A plain logistic regression reads, for each object word that the model says, its relevance, attention, probability,
    what is left of that on changed pictures, and how much the region it comes from looks like the regions that true
    words of its category come from. No boxes are needed. Each group of numbers is measured alone as well.
    """
    from capxai.config import resolve
    from capxai.recipes.analysis.detector import DetectorConfig, run

    typed = {
        "model": model,
        "corpus": corpus,
        "calibrate": calibrate or None,
        "split": split,
        "pictures": pictures,
        "beam": beam,
        "install": install or None,
        "out": out,
        "device": device,
        "seed": seed,
        "force": force or None,
    }
    report = run(resolve(DetectorConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
    else:
        _print_report(report)


def _print_report(report: DetectorReport) -> None:
    found = report.to_json()
    for name, counts in (("calibrated on", found["calibration"]), ("measured on", found["measured"])):
        where = report.split if name == "measured on" else " and ".join(found["calibrated_on"])
        print_line(
            f"{name} {where}: {counts['true_words']} true and {counts['hallucinated_words']} hallucinated object words in "
            f"{counts['pictures']} pictures."
        )
    print_table(
        f"{report.corpus}, {report.split}, {report.model}",
        ("detector reads", "numbers", "AUC", "within words", "left out: AUC", "within words", "Brier", "ECE"),
        [_row(name, one) for name, one in report.scores.items()],
    )
    together = report.scores["together"].alarm
    print_line(
        f"together: from {together.threshold:.0%} on a word is doubtful, which calls {together.called} words: precision "
        f"{_share(together.precision)}, recall {_share(together.recall)}."
    )
    print_line(
        "In brackets: bootstrap intervals over pictures (95 %). AUC: true words are class 1; within words: pairs that name the same "
        "category. left out: calibration words, each by a detector that had not seen its picture. ECE: expected calibration error."
    )


def _row(name: str, one: DetectorScore) -> tuple[str, ...]:
    areas = (one.auc, one.within)
    left_out = (one.left_out_auc, one.left_out_within)
    return (
        name,
        str(one.numbers),
        *(_interval(area) for area in areas),
        *("-" if area is None else f"{area.value:.3f}" for area in left_out),
        f"{one.reliability.brier:.3f}",
        f"{one.reliability.error:.3f}",
    )


def _interval(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _share(found: float | None) -> str:
    return "-" if found is None else f"{found:.0%}"
