"""The processes of a data-parallel run, as torchrun starts them; a run without torchrun is a group of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

from capxai.errors import ConfigError
from capxai.types import SILENT, Reporter, SilentReporter

Item = TypeVar("Item")


class _Warnings(SilentReporter):
    """Lets warnings through and nothing else."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def warn(self, text: str) -> None:
        """Pass the warning on."""
        self._reporter.warn(text)


@dataclass(frozen=True)
class Processes:
    """One process of a group.

    Attributes:
        rank: Its number, from 0.
        world: How many there are.
        device: Where this one computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            distributed.barrier()

    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor over all processes; every one gets the sum, as a new tensor on the same device."""
        total = values.detach().clone()
        if self.world > 1:
            moved = total.to(self.device)  # nccl knows no tensors of the CPU
            distributed.all_reduce(moved)
            total = moved.to(values.device)
        return total

    def gather(self, item: Item) -> list[Item]:
        """Collect an item of every process, in the order of ranks; every process gets the list."""
        if self.world == 1:
            return [item]
        found: list[Item | None] = [None] * self.world
        distributed.all_gather_object(found, item)
        return found  # type: ignore[return-value]  # each entry has been filled

    def broadcast(self, item: Item) -> Item:
        """Return the item of the main process in every process."""
        if self.world == 1:
            return item
        box = [item]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def reporter(self, reporter: Reporter) -> Reporter:
        """Return the reporter in the main process, and one that only warns in the others."""
        return reporter if self.main or reporter is SILENT else _Warnings(reporter)


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Join the group that torchrun started (gloo on the CPU, nccl on CUDA), or be alone.

    Args:
        device: The device that was chosen; of several CUDA devices every process takes the one of its local rank.

    Raises:
        ConfigError: torchrun's environment is not complete, or there are fewer CUDA devices than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes(0, 1, device)
        return
    joined = not distributed.is_initialized()
    if joined:
        device = _own_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        if joined:
            distributed.destroy_process_group()


def _own_device(device: torch.device) -> torch.device:
    missing = [
        name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if os.environ.get(name) in (None, "")
    ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} are not set. Expected the environment that torchrun "
            "makes. Start with 'torchrun --nproc-per-node N -m capxai ...', or unset WORLD_SIZE."
        )
    if device.type != "cuda":
        return device
    place, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if place >= count:
        raise ConfigError(
            f"Process {place} of this machine has no CUDA device of its own: there are {count}. Expected one for each process. Lower "
            "--nproc-per-node, or use --device cpu."
        )
    torch.cuda.set_device(place)
    return torch.device("cuda", place)
