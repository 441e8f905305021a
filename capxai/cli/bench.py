"""``capxai bench``: how fast it is on this machine, beside what it is compared with."""

from __future__ import annotations

from typing import Annotated

import typer

from capxai.cli.guard import guarded
from capxai.cli.options import ConfigFile, Debug, Json, Quiet, Settings, examples
from capxai.cli.rendering import print_figures, print_line
from capxai.cli.reporter import RichReporter, print_json

EXAMPLES = ("capxai bench explain", "capxai bench explain --growth 1000 --json > bench.json")

app = typer.Typer(no_args_is_help=True, help="Measure speed and memory.", epilog=examples(EXAMPLES))

Method = Annotated[
    str | None, typer.Option("--method", metavar="NAME", help="Method of explanation.", show_default="lrp")
]
Size = Annotated[
    str | None, typer.Option("--size", metavar="full|small", help="Size of the model.", show_default="full")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of torch.", show_default="2")]
Repeat = Annotated[int | None, typer.Option("--repeat", min=1, help="How often each is timed.", show_default="3")]
Growth = Annotated[
    int | None,
    typer.Option("--growth", min=0, metavar="N", help="Explain N times and see memory grow.", show_default="left out"),
]


@app.callback()
def subjects() -> None:
    """Measure speed and memory on this machine."""


@app.command(epilog=examples(EXAMPLES))
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
