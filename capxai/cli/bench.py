"""``capxai bench``: how fast it is on this machine, beside what it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from capxai.cli import bench_hallucination
from capxai.cli.guard import guarded
from capxai.cli.options import ConfigFile, Debug, Json, Quiet, Settings, examples
from capxai.cli.rendering import print_figures, print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from capxai.recipes.bench_finetune import BenchFinetuneReport
    from capxai.recipes.bench_train import BenchTrainReport

EXPLAIN_EXAMPLES = ("capxai bench explain", "capxai bench explain --growth 1000 --json > bench.json")
TRAIN_EXAMPLES = ("capxai bench train", "capxai bench train --decoder mh-fc --set batch_sizes=64 --json > bench.json")
FEATURES_EXAMPLES = (
    "capxai bench features",
    "capxai bench features --set workers=4 --set folder=. --json > bench.json",
)
FINETUNE_EXAMPLES = ("capxai bench finetune", "capxai bench finetune --objective lrp --repeat 21 --json > bench.json")
EXAMPLES = (
    "capxai bench explain",
    "capxai bench features",
    "capxai bench train",
    "capxai bench finetune",
    "capxai bench hallucination",
)

app = typer.Typer(no_args_is_help=True, help="Measure speed and memory.", epilog=examples(EXAMPLES))

Method = Annotated[
    str | None, typer.Option("--method", metavar="NAME", help="Method of explanation.", show_default="lrp")
]
Size = Annotated[
    str | None, typer.Option("--size", metavar="full|small", help="Size of the model.", show_default="full")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of torch.", show_default="2")]
Repeat = Annotated[int | None, typer.Option("--repeat", min=1, help="How often each is timed.", show_default="3")]
Steps = Annotated[
    int | None, typer.Option("--repeat", min=1, help="How many steps of each are timed.", show_default="9")
]
Turns = Annotated[int | None, typer.Option("--repeat", min=1, help="How often each is timed.", show_default="5")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=0, help="Processes that decode pictures.", show_default="1")
]
Decoders = Annotated[
    list[str] | None,
    typer.Option("--decoder", metavar="ada-lstm|mh-fc", help="What is trained; may be repeated.", show_default="both"),
]
Objectives = Annotated[
    list[str] | None,
    typer.Option(
        "--objective",
        metavar="lrp|lrp-counterfactual",
        help="What is timed beside ce; may be repeated.",
        show_default="both",
    ),
]
Growth = Annotated[
    int | None,
    typer.Option("--growth", min=0, metavar="N", help="Explain N times and see memory grow.", show_default="left out"),
]


@app.callback()
def subjects() -> None:
    """Measure speed and memory on this machine."""


@app.command(epilog=examples(EXPLAIN_EXAMPLES))
@guarded
def explain(
    method: Method = None,
    size: Size = None,
    threads: Threads = None,
    repeat: Repeat = None,
    growth: Growth = None,
    config: ConfigFile = None,
    settings: Settings = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Time one whole explanation, a bare forward pass of as many pictures, and zennit on the same trunk.

    VGG16 at 224 pixels with ada-lstm, ten words; the weights are random, which changes no time. Memory is the peak above
    the loaded model. It takes some minutes, nearly all of them zennit's.
    """
    from capxai.config import resolve
    from capxai.recipes.bench_explain import BenchExplainConfig, run

    typed = {"method": method, "size": size, "threads": threads, "repeat": repeat, "growth": growth}
    report = run(resolve(BenchExplainConfig, config, settings or (), **typed), RichReporter(quiet)).to_json()
    if json:
        print_json(report)
        return
    del report["provenance"], report["schema"]
    print_figures(report)
    for note in report["notes"]:
        print_line(note)


@app.command(epilog=examples(FEATURES_EXAMPLES))
@guarded
def features(
    size: Size = None,
    threads: Threads = None,
    workers: Workers = None,
    repeat: Turns = None,
    config: ConfigFile = None,
    settings: Settings = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Time an extraction of features beside a bare loop of decoding and going forward, and the store being read and written.

    VGG16 at 224 pixels; the weights are random, which changes no time. The files are made in a temporary folder (--set folder=DIR for one
    on the disk that matters).
    """
    from capxai.config import resolve
    from capxai.recipes.bench_features import BenchFeaturesConfig, run, summary

    typed = {"size": size, "threads": threads, "workers": workers, "repeat": repeat}
    report = run(resolve(BenchFeaturesConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
    else:
        print_figures(summary(report))


@app.command(epilog=examples(TRAIN_EXAMPLES))
@guarded
def train(
    decoder: Decoders = None,
    size: Size = None,
    threads: Threads = None,
    repeat: Steps = None,
    config: ConfigFile = None,
    settings: Settings = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Time a training step from stored features, and the same arithmetic written bare, in turns.

    Features of 14x14x512, E = H = 512, 9,586 words; the weights are random, which changes no time. The third of each three steps maps
    every word to the vocabulary by itself, as the published code does.
    """
    from capxai.config import resolve
    from capxai.recipes.bench_train import BenchTrainConfig, run

    typed = {"decoders": tuple(decoder) if decoder else None, "size": size, "threads": threads, "repeat": repeat}
    report = run(resolve(BenchTrainConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
        return
    _print_steps(report)


def _print_steps(report: BenchTrainReport) -> None:
    print_line(f"Training steps: {report.description}.")
    rows = [
        (name, subject, *map(_figure, (found.seconds, found.fastest, found.slowest, found.cpu_seconds)))
        for name, steps in report.steps.items()
        for subject, found in steps.subjects.items()
    ]
    print_table("", ("decoder", "step", "median s", "fastest s", "slowest s", "CPU s"), rows, left=2)
    print_line("")
    compared = [
        (
            name,
            *map(_figure, (found.ours_over_bare.seconds, found.paired, found.ours_over_bare.fastest)),
            _figure(found.in_loop_over_bare.seconds),
            f"{100 * found.waiting_share:.2f} %",
            f"{found.tokens_per_second:,.0f}",
        )
        for name, found in report.steps.items()
    ]
    header = ("", "capxai / bare", "step by step", "by fastest", "in the loop / bare", "waiting for data", "tokens/s")
    print_table("Compared", header, compared)
    for note in report.notes:
        print_line(note)


@app.command(epilog=examples(FINETUNE_EXAMPLES))
@guarded
def finetune(
    objective: Objectives = None,
    decoder: Decoders = None,
    size: Size = None,
    threads: Threads = None,
    repeat: Steps = None,
    config: ConfigFile = None,
    settings: Settings = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Time steps of fine-tuning objectives beside steps of cross-entropy, in turns, and count what they cost at least.

    B 32, 19 words, 9,586 words to choose from, E = H = 512, stored features of 14x14x512; the weights are random, which changes no time.
    The counted floor is that of the multiply-adds of all matrix products, forward and backward. A step of lrp may cost 1.5 at most.
    """
    from capxai.config import resolve
    from capxai.recipes.bench_finetune import BenchFinetuneConfig, run

    typed = {
        "objectives": tuple(objective) if objective else None,
        "decoders": tuple(decoder) if decoder else None,
        "size": size,
        "threads": threads,
        "repeat": repeat,
    }
    report = run(resolve(BenchFinetuneConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
    else:
        _print_costs(report)


def _print_costs(report: BenchFinetuneReport) -> None:
    print_line(f"Fine-tuning steps: {report.description}.")
    rows = [
        (decoder, name, *map(_figure, (found.seconds, found.fastest, found.slowest, found.cpu_seconds)))
        for decoder, costs in report.decoders.items()
        for name, found in costs.subjects.items()
    ]
    print_table("", ("decoder", "step", "median s", "fastest s", "slowest s", "CPU s"), rows, left=2)
    print_line("")
    compared = [
        (
            decoder,
            name,
            *map(_figure, (cost.over_control.seconds, cost.paired, cost.over_control.fastest)),
            *map(_figure, (cost.over_control.cpu_seconds, cost.floor)),
            "-" if cost.target is None else f"{cost.target:g}: {'reached' if cost.reached else 'missed'}",
        )
        for decoder, costs in report.decoders.items()
        for name, cost in costs.costs.items()
    ]
    header = (
        "decoder",
        "step / ce",
        "by medians",
        "step by step",
        "by fastest",
        "by CPU time",
        "counted floor",
        "target",
    )
    print_table("Compared", header, compared, left=2)
    print_line("")
    counted = [
        (decoder, name, found) for decoder, one in report.decoders.items() for name, found in one.billions.items()
    ]
    parts = list(dict.fromkeys(part.partition(",")[0] for _, _, found in counted for part in found))
    cells = [(decoder, name, *(_billions(found, part) for part in (*parts, ""))) for decoder, name, found in counted]
    print_table(
        "Multiply-adds, forward and backward, in billions", ("decoder", "step", *parts, "together"), cells, left=2
    )


def _billions(found: dict[str, float], part: str) -> str:
    """Add up all passes through one part; "" stands for all parts."""
    return f"{sum(value for name, value in found.items() if name.partition(',')[0] == part or not part):.3g}"


def _figure(value: float) -> str:
    return f"{value:.3f}"


app.command("hallucination", epilog=examples(bench_hallucination.EXAMPLES))(guarded(bench_hallucination.hallucination))
