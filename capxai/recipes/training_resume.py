"""The runs of ``capxai train``: which settings a resumed one may change."""

from __future__ import annotations

from pathlib import Path

from capxai.recipes.run_folder import RunFolders, refuse_differences
from capxai.recipes.train import EPOCHS, OUTPUTS, TrainConfig
from capxai.types import JsonObject

FOLDERS = RunFolders("train")
read_record, saved_settings, is_unfinished = FOLDERS.record, FOLDERS.saved_settings, FOLDERS.is_unfinished
newest_unfinished, resume_command = FOLDERS.newest_unfinished, FOLDERS.resume_command
FREE = (*OUTPUTS, "threads", "memory", "figure_splits", "patience")
"""Settings that a resumed run may have otherwise; epochs may be raised where no cosine is spread over them."""
COSINE_STAGES = ("encoder_epochs",)


def choose_folder(config: TrainConfig) -> Path:
    """Choose the folder of a run, and refuse to overwrite anything before time is spent.

    Raises:
        ModelError: There is a model or an unfinished run already, or none to resume.
    """
    return FOLDERS.choose(config, config.decoder)


def refuse_other_settings(config: TrainConfig, saved: JsonObject, schedule: str) -> None:
    """Refuse to go on with other settings than the run was begun with.

    Args:
        config: The settings now.
        saved: Those of the run, as JSON.
        schedule: "cosine" or "plateau", for the decoder.

    Raises:
        ConfigError: Some differ; all are named.
    """
    longer = [name for name in EPOCHS if _only_longer(name, config, saved, schedule)]
    allowed = f"{', '.join(FREE)}, and with schedule=plateau more epochs of captions"
    refuse_differences(config, saved, (*FREE, *longer), allowed)


def _only_longer(name: str, config: TrainConfig, saved: JsonObject, schedule: str) -> bool:
    if name in COSINE_STAGES or schedule == "cosine":
        return False
    first, second = saved.get(name), getattr(config, name)
    return first is not None and second is not None and second > first > 0
