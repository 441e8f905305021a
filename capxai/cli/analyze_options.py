"""Options that the verbs of ``capxai analyze`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Methods = Annotated[
    list[str] | None,
    typer.Option("--method", metavar="NAME", help="A method, or 'all'; may be repeated.", show_default="all"),
]
Levels = Annotated[
    list[str] | None,
    typer.Option(
        "--level", metavar="pixels|regions", help="Which relevance to score; may be repeated.", show_default="both"
    ),
]
Pictures = Annotated[
    int | None,
    typer.Option("--pictures", min=0, metavar="N", help="First N pictures of it; 0 takes all.", show_default="200"),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder for report, tables and plots; a stopped run goes on there."),
]
