"""The checkpoint of a run: all that a later process needs to go on with, in one file that is whole at every moment.

It holds tensors and plain values only, and reading it executes nothing.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from capxai import __version__
from capxai.errors import ModelError
from capxai.files import replacing

CHECKPOINT_FILE = "checkpoint.pt"
SCHEMA = 1

State = dict[str, Any]
"""Tensors, numbers, texts, None, and lists and dictionaries of these."""


def write_checkpoint(folder: Path, state: State) -> None:
    """Put a checkpoint in the place of the one before, which stays whole until then.

    Raises:
        CapxaiError: The disk is full, or the folder cannot be written to; the checkpoint before is still there.
    """
    content = io.BytesIO()  # where torch writes to a file itself, it hides what the system says about a full disk
    torch.save({"schema": SCHEMA, "capxai": __version__, **state}, content)
    with replacing(folder / CHECKPOINT_FILE) as temporary, temporary.open("xb") as file:
        file.write(content.getbuffer())


def read_checkpoint(folder: Path) -> State:
    """Read a checkpoint to the CPU.

    Raises:
        ModelError: It is not there, damaged, or of another version.
    """
    path = folder / CHECKPOINT_FILE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives fail in many ways
        raise ModelError(
            f"'{path}' cannot be read ({type(error).__name__}). Expected a checkpoint that 'capxai train' wrote. Train "
            "again, without --resume and into another folder; the best model so far is unharmed."
        ) from error
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        found = state.get("schema") if isinstance(state, dict) else type(state).__name__
        raise ModelError(
            f"'{path}' has schema {found!r}. This is capxai {__version__}, which reads checkpoints of schema {SCHEMA}. "
            "Resume with the version that began the run."
        )
    return state


def remove_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a finished run, and halves of files that killed processes left behind."""
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    for half in folder.glob(f".{Path(CHECKPOINT_FILE).stem}.*.part*"):
        half.unlink(missing_ok=True)
