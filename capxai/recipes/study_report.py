"""Reads what the runs of a study have kept, compares it, and writes the tables and the plot."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from capxai.config import run_record
from capxai.files import write_atomically, write_json_atomically
from capxai.recipes.study import StudyConfig, StudyReport
from capxai.recipes.study_figures import Measured
from capxai.recipes.study_plan import DRAWS_FILE, FAILURE_FILE, FIGURES_FILE, Run, read_kept
from capxai.recipes.study_plot import draw_study
from capxai.recipes.study_results import Place, compare_runs
from capxai.recipes.study_tables import csv_text, markdown
from capxai.types import JsonObject

RESULT_FILE, CSV_FILE, MARKDOWN_FILE, PLOT_FILE = "study.json", "study.csv", "study.md", "study.png"

Kept = list[tuple[Run, JsonObject]]


def report_runs(config: StudyConfig, runs: Sequence[Run], ratios: dict[str, float], seconds: float) -> StudyReport:
    """Compare all runs that are finished, and write the files of the study.

    Args:
        config: The settings of the study.
        runs: All its runs.
        ratios: Cost of a step of objectives in steps of the control.
        seconds: How long this call took.

    Raises:
        CapxaiError: A file cannot be read or written.
    """
    kept = [(run, found) for run in runs if (found := read_kept(run.folder / FIGURES_FILE)) is not None]
    failures = [(run.name, read_kept(run.folder / FAILURE_FILE)) for run in runs]
    rows = list(dict.fromkeys(run.row for run in runs))
    measured = {name: {_place(run): _read_measured(run, found, name) for run, found in kept} for name in config.splits}
    report = StudyReport(
        out=config.out,
        results=compare_runs(measured, rows, _seconds(kept)),
        finished=len(kept),
        runs=len(runs),
        failed={name: found["message"] for name, found in failures if found is not None},
        compute={name: ratios[name] for name in config.compute_controls},
        seconds=seconds,
    )
    return _write(config, report)


def _place(run: Run) -> Place:
    return run.row, run.base.name, run.seed


def _seconds(kept: Kept) -> dict[str, float]:
    rows = dict.fromkeys(run.row for run, _ in kept)
    return {row: statistics.median(found["seconds"] for run, found in kept if run.row == row) for row in rows}


def _read_measured(run: Run, kept: JsonObject, split: str) -> Measured:
    with np.load(run.folder / DRAWS_FILE) as arrays:
        drawn = {name: arrays[f"{split}/{name}"] for name in kept["splits"][split]}
    return Measured(kept["splits"][split], drawn)


def _write(config: StudyConfig, report: StudyReport) -> StudyReport:
    out, plot = config.out, draw_study(report.results) if report.finished else None
    names = (RESULT_FILE, CSV_FILE, MARKDOWN_FILE, *([PLOT_FILE] if plot is not None else []))
    report = replace(report, files=tuple(out / name for name in names))
    record = run_record(config, verb="finetune --study")
    write_json_atomically(out / RESULT_FILE, {**record, "report": report.to_json()})
    write_atomically(out / CSV_FILE, csv_text(report.results))
    write_atomically(
        out / MARKDOWN_FILE,
        markdown(report.results, "Fine-tuning by " + ", ".join(config.compared), notes_of(report)),
    )
    if plot is not None:
        write_atomically(out / PLOT_FILE, plot)
    return report


def notes_of(report: StudyReport) -> list[str]:
    """Say in sentences what a reader of the tables must know."""
    notes = [f"{report.finished} of {report.runs} runs are finished."]
    notes += [f"Left out: {name} ({message})" for name, message in report.failed.items()]
    if report.compute:
        ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in report.compute.items())
        notes.append(
            f"Cost of a step in steps of the control, measured side by side: {ratios}. The row ce@NAME is the control with that many times "
            "the steps."
        )
    return notes
