"""What is written beside the outputs of a run, so that it can be repeated: settings, versions and seed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import capxai
from capxai.errors import CapxaiError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RECORD_FILE = "run.json"
PACKAGES = ("torch", "torchvision", "numpy", "pillow")


def write_record(folder: Path, verb: str, config: DataclassInstance, **facts: Any) -> Path:
    """Write ``run.json`` into a folder of outputs: complete, or not at all.

    Args:
        folder: A folder that exists.
        verb: The verb of the command line that made the outputs.
        config: The settings as they were resolved; paths become text.
        facts: What else determined the outputs, such as the device.

    Raises:
        CapxaiError: The file cannot be written.
    """
    assert is_dataclass(config)
    content = {"verb": verb, "config": asdict(config), **facts, "versions": versions()}
    path = folder / RECORD_FILE
    partial = folder / f".{RECORD_FILE}.{os.getpid()}.partial"
    try:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CapxaiError(f"Cannot write {path}: {error.strerror or error}. Choose a folder that can be written.") from error
    return path


def versions() -> dict[str, str]:
    """Return the versions of capxai, Python and the packages that results depend on."""
    found = {"capxai": capxai.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
