"""The device that a recipe computes on, chosen by name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from capxai.errors import ConfigError, DependencyError, unknown_choice

if TYPE_CHECKING:
    import torch

_CHOICES = ("auto", "cpu", "cuda", "cuda:N", "mps")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    ``auto`` takes the first CUDA device, or else the CPU. It never takes ``mps``, which the tests do
    not cover.

    Raises:
        ConfigError: There is no such name.
        DependencyError: torch cannot use that device here.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ConfigError(unknown_choice("device", name, _CHOICES))
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    if name.startswith("cuda") and int(name.partition(":")[2] or 0) >= count:
        found = f"{count} CUDA device{'s' if count != 1 else ''}"
        raise DependencyError(
            f"The device '{name}' was asked for, and torch finds {found}. Expected one that is there. "
            "Use --device auto or --device cpu; 'capxai doctor' lists the devices."
        )
    if name == "mps" and not torch.backends.mps.is_available():
        raise DependencyError(
            "The device 'mps' was asked for, and torch finds none. Expected a Mac with Apple silicon. "
            "Use --device auto or --device cpu."
        )
    return torch.device("cuda:0" if name == "cuda" else name)
