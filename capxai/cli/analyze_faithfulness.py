"""``capxai analyze faithfulness``: whether words fall when what explains them is taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from capxai.cli.analyze_options import Methods, Out, Pictures
from capxai.cli.options import ConfigFile, Corpus, Debug, Device, Force, Json, Model, Quiet, Seed, Settings, Split
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from capxai.evaluate.bootstrap import Estimate
    from capxai.evaluate.faithfulness import CurveScore
    from capxai.recipes.analysis.faithfulness_report import FaithfulnessReport, LevelReport

EXAMPLES = (
    "capxai analyze faithfulness --pictures 20",
    "capxai analyze faithfulness --model runs/x --method lrp --method attention --level pixels --out faithfulness",
)
TITLES = {
    "pixels": "Blocks of pixels, before object words",
    "words": "Preceding words, before every word that has enough",
}
COLUMNS = ("deletion area", "to random", "insertion area", "to random", "beats random in")

Levels = Annotated[
    list[str] | None,
    typer.Option("--level", metavar="pixels|words", help="What is taken; may be repeated.", show_default="both"),
]
Block = Annotated[
    int | None, typer.Option("--block", min=1, metavar="N", help="Side of a block, in pixels.", show_default="8")
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, metavar="N", help="Steps of a curve.", show_default="10")]


def faithfulness(
    model: Model = None,
    corpus: Corpus = None,
    split: Split = None,
    method: Methods = None,
    level: Levels = None,
    block: Block = None,
    steps: Steps = None,
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
    """Measure whether a word falls when what explains it is taken away, and rises when it is given back.

    The model captions each picture, and every method explains that caption. Blocks of pixels, and preceding words, are
    removed most relevant first (deletion), or put into an empty picture or prefix most relevant first (insertion); the
    curve is the probability of the word, the figure the area under it. A right explanation has a low area of deletion
    and a high one of insertion.
    """
    from capxai.config import resolve
    from capxai.recipes.analysis.faithfulness import FaithfulnessConfig, run

    typed = {
        "model": model,
        "corpus": corpus,
        "split": split,
        "method": method or None,
        "level": level or None,
        "block": block,
        "steps": steps,
        "pictures": pictures,
        "out": out,
        "device": device,
        "seed": seed,
        "force": force or None,
    }
    report = run(resolve(FaithfulnessConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
    else:
        _print_faithfulness(report)


def _print_faithfulness(report: FaithfulnessReport) -> None:
    silent = f"; the model says nothing about {report.silent_pictures} of them" if report.silent_pictures else ""
    print_line(f"{report.corpus}, {report.split}, {report.model}: {report.pictures} pictures{silent}.")
    for name, level in report.levels.items():
        print_line("")
        _print_level(TITLES[name], level)
    print_line("")
    print_line("In brackets: bootstrap intervals over pictures (95 %). Deletion: lower is better; insertion: higher.")
    print_line("to random: the area of random order subtracted, word by word; beaten where the interval leaves out 0.")


def _print_level(title: str, level: LevelReport) -> None:
    figures = level.to_json()
    print_line(
        f"{title}: {figures['words']} words in {level.pictures_with_words} pictures; mean probability "
        f"{figures['mean_probability_whole']:.3f} with everything, {figures['mean_probability_empty']:.3f} with nothing."
    )
    print_table("", ("method", *COLUMNS), [_row(name, score) for name, score in level.methods.items()])


def _row(name: str, score: CurveScore) -> tuple[str, ...]:
    beaten = [kind for kind, beats in zip(("deletion", "insertion"), score.beats_random, strict=True) if beats]
    figures = (score.deletion_area, score.deletion_to_random, score.insertion_area, score.insertion_to_random)
    return (name, *map(_interval, figures), ", ".join(beaten) or "-")


def _interval(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
