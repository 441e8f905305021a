"""What is written beside the outputs of a run, so that it can be repeated."""

from __future__ import annotations

from pathlib import Path

from capxai.config import Config, run_record
from capxai.files import write_json_atomically

RECORD_FILE = "run.json"


def write_record(folder: Path, verb: str, config: Config, **details: object) -> Path:
    """Write ``run.json`` into a folder of outputs: settings, versions and seed.

    Args:
        folder: Where the outputs are.
        verb: The verb of the command line that made them.
        config: The settings as they were resolved.
        **details: What else determined them, such as the device that was chosen.

    Raises:
        CapxaiError: The file cannot be written.
    """
    path = folder / RECORD_FILE
    write_json_atomically(path, run_record(config, verb=verb, **details))
    return path
