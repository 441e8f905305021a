"""What every run of a training does around it: torch's state, the corpus, and a checkpoint, the same in all processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from capxai.data.corpus import Corpus
from capxai.errors import ConfigError
from capxai.recipes.builtin_corpus import open_corpus
from capxai.recipes.training_data import changed
from capxai.train.checkpoint import CHECKPOINT_FILE, State, read_checkpoint
from capxai.train.processes import Processes
from capxai.types import JsonObject, Reporter


@contextmanager
def torch_state(seed: int, threads: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch and set its threads (None leaves them), and give both back afterwards."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


def open_shared_corpus(folder: Path | None, scenes: tuple[int, int], group: Processes, reporter: Reporter) -> Corpus:
    """Let the main process render the built-in corpus, and the others find it.

    Args:
        folder: The corpus folder; None for the built-in corpus.
        scenes: Training pictures and seed of the built-in corpus.
        group: The processes.
        reporter: Where progress and the choice are shown.
    """
    if not group.main:
        group.barrier()
    corpus = open_corpus(folder, *scenes, reporter)
    if group.main:
        group.barrier()
    return corpus


def read_shared_checkpoint(folder: Path, identity: JsonObject, group: Processes) -> State | None:
    """Return where to go on from in every process; None where a run was stopped before its first checkpoint.

    Args:
        folder: Of the run.
        identity: What the run works on now; its entry "data" must be as it was.
        group: The processes.

    Raises:
        ConfigError: The data are not those of the run.
        ModelError: The checkpoint is damaged.
    """
    state = None
    if group.main and (folder / CHECKPOINT_FILE).exists():
        state = read_checkpoint(folder)
        other = changed(state["identity"]["data"], identity["data"])
        if other:
            raise ConfigError(
                f"The run in '{folder}' was begun on other data: {', '.join(other)} changed since. Expected the same. Restore it, or "
                "begin a new run."
            )
    return group.broadcast(state)
