"""``capxai bench``: how fast it is on this machine, beside what it is compared with."""

from __future__ import annotations

import typer

from capxai.cli.guard import guarded
from capxai.cli.options import ConfigFile, Debug, Json, Quiet, Settings, examples
from capxai.cli.rendering import print_figures
from capxai.cli.reporter import RichReporter, print_json

EXAMPLES = ("capxai bench explain", "capxai bench explain --json > bench.json")

app = typer.Typer(no_args_is_help=True, help="Measure speed and memory.", epilog=examples(EXAMPLES))


@app.callback()
def subjects() -> None:
    """Measure speed and memory on this machine."""


@app.command(epilog=examples(EXAMPLES))
@guarded
def explain(
    config: ConfigFile = None,
    settings: Settings = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Time one whole explanation, a bare forward pass of as many pictures, and zennit on the same trunk.

    VGG16 at 224 pixels with ada-lstm, ten words; the weights are random, which changes no time.
    """
    from capxai.config import resolve
    from capxai.recipes.bench_explain import BenchExplainConfig, run

    report = run(resolve(BenchExplainConfig, config, settings or ()), RichReporter(quiet)).to_json()
    if json:
        print_json(report)
    else:
        print_figures(report)
