"""``capxai analyze``: whether explanations are right, and whether they tell hallucinated words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from capxai.cli import (
    analyze_ablation,
    analyze_detector,
    analyze_faithfulness,
    analyze_grounding,
    analyze_hallucination,
    analyze_randomization,
)
from capxai.cli.analyze_options import Levels, Methods, Out, Pictures
from capxai.cli.guard import guarded
from capxai.cli.options import (
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
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from capxai.evaluate.correctness import MethodScore
    from capxai.evaluate.objects import Estimate
    from capxai.recipes.analysis.correctness_report import CorrectnessReport

EXAMPLES = (
    "capxai analyze correctness",
    "capxai analyze correctness --model runs/x --method lrp --method attention --out analysis",
)
COLUMNS = {
    "in mask": "mask_share",
    "mask area": "mask_area",
    "ratio of means": "ratio_of_means",
    "mean of ratios": "mean_of_ratios",
    "points at mask": "points_at_mask",
    "in box": "correctness",
    "box area": "box_area",
    "points at box": "points_at_box",
}

GROUP_EXAMPLES = (
    "capxai analyze correctness --pictures 20",
    "capxai analyze ablation --pictures 20",
    "capxai analyze faithfulness --pictures 20",
    "capxai analyze randomization --pictures 5",
    "capxai analyze hallucination --split robust-val --method lrp --report --out hallucination",
    "capxai analyze detector --pictures 0 --out detector",
    "capxai analyze grounding --pictures 50",
)
HELP = "Measure whether explanations are right, and whether they tell hallucinated words from true ones."

app = typer.Typer(no_args_is_help=True, help=HELP, epilog=examples(GROUP_EXAMPLES))


@app.callback()
def analyses() -> None:
    """Measure whether explanations are right, and whether they tell hallucinated words from true ones."""


@app.command(epilog=examples(EXAMPLES))
@guarded
def correctness(
    model: Model = None,
    corpus: Corpus = None,
    split: Split = None,
    method: Methods = None,
    level: Levels = None,
    pictures: Pictures = None,
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
    """Measure how much of an object word's positive relevance lies on the object.

    The model captions each picture; every method explains that caption; words that name an object of the picture are
    scored. The part of the picture that the object covers is what blind relevance would reach.
    """
    from capxai.config import resolve
    from capxai.recipes.analysis.correctness import CorrectnessConfig, run

    typed = {
        "model": model,
        "corpus": corpus,
        "split": split,
        "method": method or None,
        "level": level or None,
        "pictures": pictures,
        "out": out,
        "device": device,
        "seed": seed,
        "force": force or None,
    }
    report = run(resolve(CorrectnessConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
    else:
        _print_correctness(report)


def _print_correctness(report: CorrectnessReport) -> None:
    left_out = f"; {report.unseen_words} too small to see were left out" if report.unseen_words else ""
    silent = f"; the model says nothing about {report.silent_pictures} of them" if report.silent_pictures else ""
    print_line(f"{report.corpus}, {report.split}, {report.model}: {report.pictures} pictures{silent}.")
    print_line(
        f"{len(report.words)} words that name an object of their picture, in {report.pictures_with_words} pictures{left_out}."
    )
    print_table("", ("method", *COLUMNS, "beats"), [_row(name, score) for name, score in report.methods.items()])
    print_line("In brackets: bootstrap intervals over pictures (95 %).")
    print_line(
        "beats: more relevance in the mask than these controls; the interval of the gain, word by word, is above 0."
    )


def _row(name: str, score: MethodScore) -> tuple[str, ...]:
    beaten = [control for control, above in score.above.items() if above.low > 0]
    return (name, *(_interval(score.figures[key]) for key in COLUMNS.values()), ", ".join(beaten) or "-")


def _interval(found: Estimate) -> str:
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


app.command("ablation", epilog=examples(analyze_ablation.EXAMPLES))(guarded(analyze_ablation.ablation))
app.command("hallucination", epilog=examples(analyze_hallucination.EXAMPLES))(
    guarded(analyze_hallucination.hallucination)
)
app.command("faithfulness", epilog=examples(analyze_faithfulness.EXAMPLES))(guarded(analyze_faithfulness.faithfulness))
app.command("randomization", epilog=examples(analyze_randomization.EXAMPLES))(
    guarded(analyze_randomization.randomization)
)
app.command("grounding", epilog=examples(analyze_grounding.EXAMPLES))(guarded(analyze_grounding.grounding))
app.command("detector", epilog=examples(analyze_detector.EXAMPLES))(guarded(analyze_detector.detector))
