"""How a study calls fine-tuning: one run, and the cost of an objective's step beside the control's."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from capxai.config import resolve
from capxai.errors import ConfigError
from capxai.files import write_json_atomically
from capxai.models.folder import DESCRIPTION_FILE, WEIGHTS_FILE, bundled_folder
from capxai.recipes.finetune import FinetuneConfig
from capxai.recipes.finetune import run as finetune
from capxai.recipes.study import CONTROL, StudyConfig
from capxai.recipes.study_plan import Base, Run, read_kept
from capxai.types import SILENT, JsonObject, Reporter

TRAINING_FOLDER = "training"
BEGUN_FILE = "begun.json"
ROUNDS = 3
"""How often the objectives take turns while they are timed."""

DEFAULTS = ("validation_pictures=100", "figure_splits=")
"""A study measures by itself, so fine-tuning has little to look at; settings of the study come after these."""


def check_settings(config: StudyConfig) -> None:
    """Refuse settings of fine-tuning that cannot be used before time is spent.

    Raises:
        ConfigError: There are some.
    """
    for name in config.compared:
        tuning = {"objective": name, "updates": config.updates, "learning_rate": config.rate_of(name)}
        resolved = resolve(FinetuneConfig, None, (*DEFAULTS, *config.settings_of(name)), **tuning)
        if resolved.train_encoder:
            raise ConfigError(
                f"settings has train_encoder=true for '{name}'. Expected an encoder that stays as it is: all runs share its features. "
                "Fine-tune such models one by one, and compare them by 'capxai eval --compare'."
            )


def fine_tune(run: Run, config: StudyConfig, corpus: Path, reporter: Reporter) -> JsonObject:
    """Fine-tune one run into its folder, or go on with it where it was stopped; return the report of the fine-tuning.

    Raises:
        ConfigError: The settings cannot be used.
        DivergedError: The loss is not finite.
        CapxaiError: See `capxai.recipes.finetune.run`.
    """
    out = run.folder / TRAINING_FOLDER
    begun = run.folder / BEGUN_FILE
    same = read_kept(begun) == run.settings and (out / "run.json").exists()
    if not same:
        write_json_atomically(begun, run.settings)
    typed = {**_typed(run.base, config, corpus), "seed": run.seed, "out": out, "resume": same, "force": not same}
    tuning = {"updates": run.settings["updates"], "learning_rate": run.settings["learning_rate"]}
    overrides = (*DEFAULTS, *run.settings["settings"])
    report = finetune(resolve(FinetuneConfig, None, overrides, objective=run.objective, **tuning, **typed), reporter)
    return report.to_json()


def _typed(base: Base, config: StudyConfig, corpus: Path) -> JsonObject:
    """Return what all runs of a base model have in common."""
    common = {"model": base.folder or bundled_folder(), "corpus": corpus, "features": base.features}
    return {**common, "device": config.device, "threads": config.threads}


def measure_ratios(
    config: StudyConfig, base: Base, corpus: Path, objectives: Sequence[str], reporter: Reporter
) -> dict[str, float]:
    """Time a few steps of each objective and of the control in turns, and return the median ratio of those that followed each other."""
    seconds: dict[str, list[float]] = {name: [] for name in (CONTROL, *objectives)}
    with (
        tempfile.TemporaryDirectory(prefix="capxai-study-") as folder,
        reporter.track("Timing steps", ROUNDS * len(seconds)) as advance,
    ):
        for turn in range(ROUNDS):
            for name, found in seconds.items():
                found.append(_seconds_of_a_step(config, base, corpus, name, Path(folder, f"{name}-{turn}")))
                advance(1)
    return {
        name: statistics.median(one / other for one, other in zip(seconds[name], seconds[CONTROL], strict=True))
        for name in objectives
    }


def _seconds_of_a_step(config: StudyConfig, base: Base, corpus: Path, objective: str, out: Path) -> float:
    overrides = (*config.settings_of(objective), "validation_pictures=1", "figure_splits=")
    typed = {**_typed(base, config, corpus), "objective": objective, "updates": config.timed_steps, "out": out}
    report = finetune(resolve(FinetuneConfig, None, overrides, **typed), SILENT)
    return report.training_seconds / report.updates


def discard_weights(folder: Path) -> None:
    """Remove the weights of a run, and leave its log, its curve and its settings."""
    for name in (WEIGHTS_FILE, DESCRIPTION_FILE):
        (folder / name).unlink(missing_ok=True)
