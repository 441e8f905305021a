"""Options that several verbs share.

An option that was not typed is None: the default lives in the recipe's configuration, where ``--config`` can change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

_COMMON = "Common options"

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        help="Read settings from a file; options and --set go first.",
        rich_help_panel=_COMMON,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set one setting; may be repeated.", rich_help_panel=_COMMON),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|cuda:N|mps",
        help="Where to compute.",
        show_default="auto",
        rich_help_panel=_COMMON,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Seed of everything random.", show_default="0", rich_help_panel=_COMMON),
]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.", rich_help_panel=_COMMON)]
Force = Annotated[
    bool, typer.Option("--force", help="Replace outputs that are already there.", rich_help_panel=_COMMON)
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_COMMON)]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="Leave out notes and progress; results and warnings stay.", rich_help_panel=_COMMON),
]

Model = Annotated[
    Path | None,
    typer.Option(
        "--model", metavar="DIR", help="Model folder, as 'capxai train' writes it.", show_default="the bundled model"
    ),
]
Corpus = Annotated[
    Path | None,
    typer.Option(
        "--corpus", metavar="DIR", help="Corpus folder, see 'capxai prepare'.", show_default="the built-in corpus"
    ),
]
Split = Annotated[str | None, typer.Option("--split", metavar="NAME", help="Split of the corpus.", show_default="test")]
Beam = Annotated[int | None, typer.Option("--beam", min=1, help="Captions kept while searching.", show_default="3")]
Images = Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Picture files.", show_default=False)]


def examples(commands: Sequence[str]) -> str:
    """Return the end of a verb's help: commands that can be typed as they stand, one a line."""
    return "\n\n".join(("Examples:" if len(commands) > 1 else "Example:", *commands))
