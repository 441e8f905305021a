"""``capxai analyze ablation``: what a model loses without what a method calls important."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from capxai.cli.analyze_options import Methods, Out, Pictures
from capxai.cli.options import ConfigFile, Corpus, Debug, Device, Force, Json, Model, Quiet, Seed, Settings, Split
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from capxai.evaluate.ablation import Loss
    from capxai.recipes.analysis.ablation_report import AblationReport, Group, Part

EXAMPLES = (
    "capxai analyze ablation --pictures 20",
    "capxai analyze ablation --model runs/x --method lrp --method gradient --part words --out ablation",
)

Parts = Annotated[
    list[str] | None,
    typer.Option("--part", metavar="words|pictures", help="What is ablated; may be repeated.", show_default="both"),
]


def ablation(
    model: Model = None,
    corpus: Corpus = None,
    split: Split = None,
    method: Methods = None,
    part: Parts = None,
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
    """Take away what a method calls important, and measure what the model loses.

    The model captions each picture, and every method explains that caption. Words: the three most relevant preceding
    words are deleted, and the word loses probability; the control deletes three random ones. Pictures: the 20 most
    relevant patches of 8 x 8 pixels get the mean color, and an object word vanishes from the new caption, or loses
    probability after the old prefix; the control covers random patches.
    """
    from capxai.config import resolve
    from capxai.recipes.analysis.ablation import AblationConfig, run

    typed = {
        "model": model,
        "corpus": corpus,
        "split": split,
        "method": method or None,
        "part": part or None,
        "pictures": pictures,
        "out": out,
        "device": device,
        "seed": seed,
        "force": force or None,
    }
    report = run(resolve(AblationConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
    else:
        _print_ablation(report)


def _print_ablation(report: AblationReport) -> None:
    print_line(f"{report.corpus}, {report.split}, {report.model}: {report.pictures} pictures.")
    if report.words is not None:
        _print_words(report.words)
    if report.objects is not None:
        _print_objects(report.objects)
    print_line("")
    print_line("In brackets: bootstrap intervals over pictures (95 %).")
    print_line(
        "above: the same word's loss by the control subtracted; * its interval lies above 0, the control is beaten."
    )


def _print_words(part: Part) -> None:
    set_to = part.settings
    print_line("")
    print_line(
        f"Words: {set_to['deleted']} most relevant preceding words deleted, from word {set_to['first_word']} on; {_found(part.every)}."
    )
    if not part.every.words:
        return
    names = list(part.every.figures["drop"])
    rows = [
        (name, *_cells(part.every, "drop", name), *(_cells(kind, "drop", name)[0] for kind in part.kinds.values()))
        for name in names
    ]
    print_table("", ("method", "drop in probability", f"above {part.control}", "object words", "other words"), rows)
    print_line(
        f"{part.control}: the mean of {set_to['control_draws']} random deletions of the same candidates for each word, or of all there are."
    )
    if set_to["left_out"]:
        print_line(f"Left out, as they say nothing about preceding words: {', '.join(set_to['left_out'])}.")


def _print_objects(part: Part) -> None:
    set_to = part.settings
    rows, columns = set_to["grid"]
    print_line("")
    print_line(
        f"Pictures: {set_to['patches']} of {rows} x {columns} patches of {set_to['patch']} x {set_to['patch']} pixels covered; "
        f"{_found(part.every)}."
    )
    if not part.every.words:
        return
    print_table(
        "",
        ("method", "words vanished", f"above {part.control}", "drop in probability", f"above {part.control}"),
        [
            (name, *_cells(part.every, "vanished", name), *_cells(part.every, "drop", name))
            for name in part.every.figures["drop"]
        ],
    )
    print_line(f"{part.control}: one random choice of patches for each word.")


def _found(group: Group) -> str:
    if not group.words:
        return "no caption has such a word"
    return f"{group.words} words in {group.pictures} pictures, mean probability {group.probability:.3f}"


def _cells(group: Group, figure: str, name: str) -> tuple[str, str]:
    """Return a loss and its difference to the control, each with its interval."""
    if not group.words:
        return "-", "-"
    loss: Loss = group.figures[figure][name]
    mean = f"{loss.mean.value:.3f} [{loss.mean.low:.3f}, {loss.mean.high:.3f}]"
    if loss.above is None:
        return mean, "-"
    mark = " *" if loss.beats_control else "  "
    return mean, f"{loss.above.value:.3f} [{loss.above.low:.3f}, {loss.above.high:.3f}]{mark}"
