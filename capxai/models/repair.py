"""What a process leaves in a model folder that is killed while it replaces the model, and how that is mended."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path

WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"
WEIGHTS_HASH = "weights_sha256"
"""Entry of the lineage: SHA-256 of ``model.safetensors``, hexadecimal."""

STAGED = ".model-"
"""Begin of the names of hidden folders in which a model is completed before it takes its place."""
PREVIOUS = "previous.safetensors"
"""Where in such a folder the old weights wait until the new description is in its place."""


def repair_model(folder: Path) -> None:
    """Put the old weights back where a process was killed while it replaced them, and remove what it left half-written.

    Nobody else may be writing the folder. Until then `capxai.models.folder.load_model` finds the old weights where they are.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):  # without a whole description there is no model to restore
        described = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))["lineage"][WEIGHTS_HASH]
        if kept := kept_weights(folder, described):
            kept.replace(folder / WEIGHTS_FILE)
    for staged in folder.glob(f"{STAGED}*"):
        shutil.rmtree(staged, ignore_errors=True)


def kept_weights(folder: Path, expected_hash: object) -> Path | None:
    """Find the weights that ``model.json`` describes where a process was killed between the two renames of saving.

    Args:
        folder: The model folder.
        expected_hash: What the description says of the weights.

    Returns:
        Their file; None where the weights are in their place, or nowhere.
    """
    for kept in folder.glob(f"{STAGED}*/{PREVIOUS}"):
        if _hash_of(kept) == expected_hash != _hash_of(folder / WEIGHTS_FILE):
            return kept
    return None


def _hash_of(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
