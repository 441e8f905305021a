"""``capxai analyze randomization``: whether explanations change when the model is randomized."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from capxai.cli.analyze_options import Methods, Out
from capxai.cli.options import ConfigFile, Corpus, Debug, Device, Force, Json, Model, Quiet, Seed, Settings, Split
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from capxai.evaluate.bootstrap import Estimate
    from capxai.recipes.analysis.randomization_report import MethodReport, RandomizationReport

EXAMPLES = (
    "capxai analyze randomization --pictures 5",
    "capxai analyze randomization --model runs/x --method lrp --method guided-backprop --out randomization",
)
DRAWN = {"permute": "their entries shuffled", "fresh": "initialized anew"}
AT_THE_END = {"signed": "spearman", "absolute": "spearman_absolute", "cosine": "cosine", "SSIM": "ssim"}

Levels = Annotated[
    list[str] | None,
    typer.Option(
        "--level",
        metavar="pixels|regions|words",
        help="Which relevance to compare; may be repeated.",
        show_default="all three",
    ),
]
Draws = Annotated[
    str | None,
    typer.Option(
        "--draw",
        metavar="permute|fresh",
        help="Shuffle the entries of each tensor, or initialize anew.",
        show_default="permute",
    ),
]
FewPictures = Annotated[
    int | None,
    typer.Option("--pictures", min=0, metavar="N", help="First N pictures of it; 0 takes all.", show_default="50"),
]


def randomization(
    model: Model = None,
    corpus: Corpus = None,
    split: Split = None,
    method: Methods = None,
    level: Levels = None,
    draw: Draws = None,
    pictures: FewPictures = None,
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
    """Measure whether explanations change when the layers of the model are randomized.

    The model captions each picture, and every method explains the object words. Then a copy of the model loses what it
    has learned, from the word head down to the first convolution, one stage after the other, and the same words are
    explained again. An explanation that stays as it was does not come from what the model has learned.
    """
    from capxai.config import resolve
    from capxai.recipes.analysis.randomization import RandomizationConfig, run

    typed = {
        "model": model,
        "corpus": corpus,
        "split": split,
        "method": method or None,
        "level": level or None,
        "draw": draw,
        "pictures": pictures,
        "out": out,
        "device": device,
        "seed": seed,
        "force": force or None,
    }
    report = run(resolve(RandomizationConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
    else:
        _print_randomization(report)


def _print_randomization(report: RandomizationReport) -> None:
    silent = f"; the model says nothing about {report.silent_pictures} of them" if report.silent_pictures else ""
    print_line(f"{report.corpus}, {report.split}, {report.model}: {report.pictures} pictures{silent}.")
    print_line(
        f"{report.words} object words, explained again after each stage; weights of a stage and of those before it: {DRAWN[report.draw]}."
    )
    print_table("", ("", "original", *report.stages), [_probability(report)])
    for level in dict.fromkeys(one.level for one in report.methods):
        _print_level(report, level, [one for one in report.methods if one.level == level])
    print_line("")
    print_line("Rank correlation (Spearman) with the relevance of the original after each stage, the mean over words.")
    print_line("signed: the same; absolute: of absolute values. In brackets: bootstrap intervals over pictures (95 %).")
    print_line(
        f"high: either rank correlation is {report.high:g} or more, so the relevance hardly depends on what is random."
    )
    _print_unchanged(report)


def _probability(report: RandomizationReport) -> tuple[str, ...]:
    return ("probability of the words", *(f"{one.value:.3f}" for one in report.probability))


def _print_level(report: RandomizationReport, level: str, methods: list[MethodReport]) -> None:
    print_line("")
    stages = [(one.method, *map(_value, one.figures["spearman"])) for one in methods]
    print_table(f"Relevance of {level}, {methods[0].words} words", ("method", *report.stages), stages)
    ends = {title: figure for title, figure in AT_THE_END.items() if figure in methods[0].figures}
    rows = [
        (one.method, *(_interval(one.figures[figure][-1]) for figure in ends.values()), report.held(one) or "-")
        for one in methods
    ]
    print_table("With all layers random", ("method", *ends, "was high until"), rows)
    undefined = [f"{one.method} {max(one.undefined)}" for one in methods if any(one.undefined)]
    if undefined:
        print_line(f"Words left out at some stage, whose relevance is the same everywhere: {', '.join(undefined)}.")


def _print_unchanged(report: RandomizationReport) -> None:
    for stages, what in ((report.decoder_stages, "the decoder"), (len(report.stages), "the whole model")):
        found = [f"{one.method} ({one.level}, {one.highest_rank(stages - 1):.2f})" for one in report.unchanged(stages)]
        print_line(f"Stays high with {what} random: {', '.join(found) or 'none'}.")


def _value(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.value:.2f}"


def _interval(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
