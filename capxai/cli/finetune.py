"""``capxai finetune``: fine-tune a captioner by LRP inference and other objectives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from capxai.cli.options import ConfigFile, Corpus, Debug, Device, Force, Json, Quiet, Seed, Settings
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json, speaks
from capxai.cli.study import EXAMPLES as STUDY_EXAMPLES
from capxai.cli.study import run_study

if TYPE_CHECKING:
    from capxai.recipes.finetune import FinetuneConfig, FinetuneReport
    from capxai.recipes.finetune_changes import ChangesReport

Value = TypeVar("Value")

EXAMPLES = (
    "capxai finetune",
    "capxai finetune --model runs/x --objective lrp-counterfactual --out runs/y",
    "capxai finetune --model runs/coco --corpus coco --features coco.h5 --objective lrp-scst --set epochs=10",
    "capxai finetune --resume --out runs/y",
    *STUDY_EXAMPLES,
    "torchrun --nproc-per-node 4 -m capxai finetune --model runs/coco --corpus coco --features coco.h5",
)

Models = Annotated[
    list[Path] | None,
    typer.Option(
        "--model",
        metavar="DIR",
        help="Model folder to begin with; it is not changed. With --study it may be repeated.",
        show_default="the newest run under runs/, else the bundled model",
    ),
]
Objectives = Annotated[
    list[str] | None,
    typer.Option(
        "--objective",
        metavar="lrp|ce|scst|lrp-scst|lrp-counterfactual|...",
        help="What is made small; 'list' names all. With --study it may be repeated.",
        show_default="lrp",
    ),
]
Features = Annotated[
    Path | None,
    typer.Option(
        "--features",
        metavar="F.h5",
        help="Stored features of the corpus, see 'capxai extract-features'.",
        show_default="from the pictures",
    ),
]
Lambda = Annotated[
    float | None,
    typer.Option("--lambda", min=0, max=1, help="Of lrp: the weight of the plain cross-entropy.", show_default="0.5"),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="float32|bfloat16|float16",
        help="Of the networks in training; weights stay float32.",
        show_default="float32",
        rich_help_panel="Common options",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The model folder to make.", show_default="a new one under runs/"),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the run in --out, or with the newest unfinished one under runs/. Its settings are taken over.",
    ),
]
Study = Annotated[
    bool,
    typer.Option(
        "--study",
        help="Fine-tune by several objectives with several seeds, and compare them on the chosen splits. Its settings (--set) are those of "
        "a study: seeds, splits, updates, learning_rates, ...",
    ),
]
Report = Annotated[
    bool,
    typer.Option(
        "--report/--no-report", help="Write changes.html: what was changed, and what the words were seen from."
    ),
]


def finetune(
    model: Models = None,
    objective: Objectives = None,
    study: Study = False,
    corpus: Corpus = None,
    features: Features = None,
    plain_share: Lambda = None,
    out: Out = None,
    resume: Resume = False,
    report: Report = True,
    device: Device = None,
    precision: Precision = None,
    seed: Seed = None,
    config: ConfigFile = None,
    settings: Settings = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fine-tune a captioner. With nothing typed: by LRP inference, on the built-in corpus, in minutes on a CPU.

    Every objective sees the same batches in the same order and drops the same units, so that they can be compared; 'ce' is the
    control. Updates, learning rate, the vectors that are re-weighted, stop words and much else are settings: see --set.

    Ctrl-C, a crash or a full disk loses nothing: --resume goes on from the last checkpoint, to the same weights.
    """
    if objective == ["list"]:
        _print_objectives(json)
        return
    typed = {
        "model": model,
        "objective": objective,
        "corpus": corpus,
        "features": features,
        "plain_share": plain_share,
        "out": out,
        "device": device,
        "precision": precision,
        "seed": seed,
        "force": force or None,
    }
    if study:
        run_study({**typed, "resume": resume}, config, settings or (), json, quiet)
        return
    from capxai.recipes.finetune import run

    typed |= {"model": _only(model, "--model"), "objective": _only(objective, "--objective")}
    resolved, reporter = _resolved(resume, config, settings or [], typed), RichReporter(quiet)
    done = run(resolved, reporter)
    changes = _write_changes(resolved, done, reporter) if report and speaks() else None
    if json:
        print_json({**done.to_json(), "changes": None if changes is None else changes.to_json()})
    else:
        _print(done, changes)


def _only(values: list[Value] | None, option: str) -> Value | None:
    """Return the one value of an option that only a study may repeat.

    Raises:
        ConfigError: There are several.
    """
    from capxai.errors import ConfigError

    if values and len(values) > 1:
        raise ConfigError(
            f"{option} was typed {len(values)} times. Expected it once. Compare several with --study, or leave all but one out."
        )
    return values[0] if values else None


def _write_changes(config: FinetuneConfig, done: FinetuneReport, reporter: RichReporter) -> ChangesReport | None:
    """Write what was changed beside the model; the model is there, whatever comes of it."""
    from capxai.errors import CapxaiError
    from capxai.recipes.finetune_changes import ChangesConfig, run

    shared = {name: getattr(config, name) for name in ("corpus", "size", "corpus_seed", "features", "device")}
    try:
        return run(ChangesConfig(after=done.out, before=done.base, **shared), reporter)
    except CapxaiError as error:
        reporter.warn(f"The report of what was changed could not be written: {error}")
        return None


def _resolved(resume: bool, config: Path | None, settings: list[str], typed: Mapping[str, object]) -> FinetuneConfig:
    """Collect the settings: of a resumed run, what was not typed is as it was."""
    from capxai.config import resolve, resolve_over
    from capxai.recipes.finetune import FinetuneConfig

    if not resume:
        return resolve(FinetuneConfig, config, settings, **typed)
    from capxai.recipes.finetune_run import FOLDERS

    folder = typed["out"] or FOLDERS.newest_unfinished()
    assert isinstance(folder, Path)
    saved = FOLDERS.saved_settings(folder)
    return resolve_over(FinetuneConfig, saved, config, settings, **{**typed, "out": folder, "resume": True})


def _print_objectives(json: bool) -> None:
    from capxai.recipes.finetune_objectives import OBJECTIVES

    if json:
        print_json({name: kind.summary for name, kind in OBJECTIVES.items()})
    else:
        print_table("", ("objective", "what it does"), [(name, kind.summary) for name, kind in OBJECTIVES.items()], 2)


def _print(report: FinetuneReport, changes: ChangesReport | None) -> None:
    figures = {"val, before": report.before, "val": report.validation, **report.figures}
    names = list(dict.fromkeys(name for split in figures.values() for name in split))
    rows = [
        (split, *(f"{found[name]:.4f}" if name in found else "-" for name in names)) for split, found in figures.items()
    ]
    print_table("", ("split", *(name.replace("_", " ") for name in names)), rows)
    print_line(f"Kept the model after {report.updates} updates by {report.objective}; {report.seconds:.0f} s.")
    if changes is not None:
        _print_changes(changes)
    print_line(f"Written to {report.out}; {report.base} is as it was.")
    print_line(f"The same model again: {report.command}")


def _print_changes(changes: ChangesReport) -> None:
    counts = changes.counts
    print_line(f"Captions that changed on {changes.split}: {counts['changed_captions']} of {counts['pictures']}.")
    for kind, name in (("hallucinations", "hallucinated object words"), ("true", "true object words")):
        print_line(f"Of {name}, {counts[f'vanished_{kind}']} vanished and {counts[f'appeared_{kind}']} appeared.")
    print_line(f"What the words were seen from, before and after: {changes.page}")
