"""``capxai prepare``: make a corpus folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capxai.cli.guard import guarded
from capxai.cli.options import ConfigFile, Debug, Force, Json, Quiet, Seed, Settings, examples
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

EXAMPLES = ("capxai prepare scenes --out scenes --size 5000 --seed 0",)

Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The corpus folder to make.", show_default="scenes")
]
Size = Annotated[
    int | None, typer.Option("--size", metavar="N", help="Number of training pictures.", show_default="5000")
]

app = typer.Typer(no_args_is_help=True, help="Make a corpus folder in COCO format.", epilog=examples(EXAMPLES))


@app.callback()
def corpora() -> None:
    """Make a corpus folder in COCO format."""


@app.command(epilog=examples(EXAMPLES))
@guarded
def scenes(
    out: Out = None,
    size: Size = None,
    seed: Seed = None,
    config: ConfigFile = None,
    settings: Settings = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Render the built-in corpus: everyday objects, five captions each, with a planted bias.

    val and robust-val get a tenth of the training pictures, test and robust a fifth.
    """
    from capxai.config import resolve
    from capxai.recipes.prepare import PrepareConfig, run

    typed = {"out": out, "size": size, "seed": seed, "force": force or None}
    report = run(resolve(PrepareConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
        return
    rows = [(name, *(f"{count:,}" for count in counts.values())) for name, counts in report.splits.items()]
    print_table("", ("split", "pictures", "captions", "objects"), rows)
    print_line(f"Written to {report.out} (seed {report.seed}).")
