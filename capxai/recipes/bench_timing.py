"""What benchmarks share: a clock, what it found, and how two of these compare."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """What one subject took.

    Attributes:
        seconds: Median over the repeats, by the clock on the wall.
        fastest: The shortest.
        slowest: The longest.
        cpu_seconds: Median of the time of all threads together.
        peak_gib: Highest resident memory above the loaded model, GiB; None where it was not measured.
    """

    seconds: float
    fastest: float
    slowest: float
    cpu_seconds: float
    peak_gib: float | None = None

    @classmethod
    def of(cls, times: Sequence[tuple[float, float]], peak_gib: float | None = None) -> Measurement:
        """Summarize the (wall, CPU) seconds of all repeats."""
        wall, cpu = zip(*times, strict=True)
        return cls(statistics.median(wall), min(wall), max(wall), statistics.median(cpu), peak_gib)


@dataclass(frozen=True)
class Ratio:
    """How many times as long one subject takes as another.

    Attributes:
        seconds: By their medians.
        fastest: By their fastest runs, which other processes disturb least.
        cpu_seconds: By the time of all threads together; threads that wait for a busy processor inflate it.
    """

    seconds: float
    fastest: float
    cpu_seconds: float

    @classmethod
    def of(cls, one: Measurement, other: Measurement) -> Ratio:
        """Divide one subject's times by another's."""
        return cls(one.seconds / other.seconds, one.fastest / other.fastest, one.cpu_seconds / other.cpu_seconds)


def clocked(subject: Callable[[], object]) -> tuple[float, float]:
    """Run once and return the seconds by the clock on the wall and of all threads together."""
    wall, cpu = time.perf_counter(), time.process_time()
    subject()
    return time.perf_counter() - wall, time.process_time() - cpu


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads while the context lasts."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def machine() -> dict[str, object]:
    """Describe the processor, as far as times depend on it."""
    import os

    import torch

    return {"cpu_count": os.cpu_count(), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
