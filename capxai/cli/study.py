"""``capxai finetune --study``: settings of a study from the command line, and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json
from capxai.errors import ConfigError

if TYPE_CHECKING:
    from capxai.recipes.study import StudyReport

EXAMPLES = (
    "capxai finetune --study --model runs/a --model runs/b --model runs/c --objective lrp --objective lrp-counterfactual --out runs/study",
)

INSTEAD = {
    "seed": "--set seeds=0,1,2",
    "precision": "--set settings=precision=bfloat16",
    "plain_share": "--set settings=lrp:plain_share=0.3",
    "resume": "the same command again, which goes on with what is there",
}
"""Options of a single fine-tuning, and what a study has instead of them."""


def run_study(
    typed: Mapping[str, object], config: Path | None, settings: Sequence[str], json: bool, quiet: bool
) -> None:
    """Perform a study and print its tables.

    Args:
        typed: Options of ``capxai finetune`` by name, None where they were not typed; "model" and "objective" are lists.
        config: File with settings.
        settings: Settings as ``--set`` takes them.
        json: Print JSON.
        quiet: Show no progress.

    Raises:
        ConfigError: An option was typed that a study does not have.
    """
    from capxai.config import resolve
    from capxai.recipes.study import StudyConfig, run

    own = dict(typed)
    for name, instead in INSTEAD.items():
        if own.pop(name, None) not in (None, False):
            option = "--lambda" if name == "plain_share" else f"--{name}"
            raise ConfigError(f"{option} was typed with --study, which has no such option. Use {instead}.")
    for option, name in (("model", "models"), ("objective", "objectives")):
        values = own.pop(option, None)
        own[name] = tuple(values) if isinstance(values, list) and values else None
    report = run(resolve(StudyConfig, config, settings, **own), RichReporter(quiet))
    if json:
        print_json(report.to_json())
    else:
        _print(report)


def _print(report: StudyReport) -> None:
    from capxai.recipes.study_report import notes_of
    from capxai.recipes.study_tables import METHOD_TEXT, tables

    for table in tables(report.results):
        print_table(table.title, table.header, table.rows)
        print_line("")
    for note in (*notes_of(report), METHOD_TEXT):
        print_line(note)
    print_line(f"{report.seconds:.0f} s. Written: {', '.join(str(path) for path in report.files)}.")
