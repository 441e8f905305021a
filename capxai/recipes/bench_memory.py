"""Measures memory in a process of its own, where nothing else has been allocated; see `capxai.recipes.bench_explain`.

Peaks are those of the resident set above what the process holds once the model is loaded and torch has been imported. Linux can reset its
high-water mark; elsewhere the peak of the whole life of the process stands in, which can only hide a peak below one that was there before.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from capxai.errors import DependencyError
from capxai.types import JsonObject

GIB = 2**30
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5), clear_refs
_WARM_UP = 20
"""Explanations before memory is read for the first time: libraries fill their caches by then."""


def peak_memory(size: str, method: str, subject: str, threads: int) -> float:
    """Return the peak of one run of a subject above the loaded model, in GiB, measured in a fresh process.

    Raises:
        DependencyError: The process ends without a figure.
    """
    return float(_in_fresh_process("peak", size, method, subject, str(threads))["peak_gib"])


def memory_growth(count: int, method: str, threads: int) -> JsonObject:
    """Explain ``count`` times in one fresh process and compare its memory after a few of them with that at the end.

    Raises:
        DependencyError: The process ends without a figure.
    """
    return _in_fresh_process("growth", str(count), method, str(threads))


def verb_memory(model: Path, corpus: Path, method: str, threads: int, settled: int) -> JsonObject:
    """Run ``capxai analyze hallucination`` over a corpus in one fresh process and read its memory.

    Args:
        model: The model folder.
        corpus: The corpus folder.
        method: Name of the method.
        threads: Threads of torch.
        settled: Pictures after which memory is read for the first time.

    Returns:
        GiB: ``settled`` and ``end`` with ``pictures``, ``resident_gib`` and ``peak_gib`` (the highest so far; "end" is after the report
        was written), and ``growth_percent`` and ``growth_gib`` of the peak.

    Raises:
        DependencyError: The process ends without a figure.
    """
    return _in_fresh_process("verb", str(model), str(corpus), method, str(threads), str(settled))


def _in_fresh_process(*arguments: str) -> JsonObject:
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", __name__, str(answer), *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if not ended.returncode:
            found: JsonObject = json.loads(answer.read_text())
            return found
        reason = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
    raise DependencyError(
        f"The process that measures memory ended early ({reason}). Expected a figure from it. Free some memory and try again, or leave "
        "memory out with --set memory=false."
    )


def measure_peak(run: Callable[[], object]) -> float:
    """Run something once and return by how much resident memory rose meanwhile at most, in GiB."""
    _tidy()
    with suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK)
    before = resident()
    run()
    return max(0, _peak() - before) / GIB


def resident() -> int:
    """Return the resident memory of this process, in bytes; where the system does not say, its peak so far."""
    return _status("VmRSS") or _peak()


def _peak() -> int:
    found = _status("VmHWM")
    if found is not None:
        return found
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(key: str) -> int | None:
    """Read an entry of /proc/self/status, in bytes; None where there is none."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None


def _tidy() -> None:
    """Collect garbage and, where the C library can, give free memory back to the system."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _measure_peak_of(size: str, method: str, subject: str, threads: str) -> JsonObject:
    import torch

    from capxai.recipes.bench_subjects import SIZES, build_workload

    torch.set_num_threads(int(threads))
    return {"peak_gib": measure_peak(build_workload(SIZES[size], method).subject(subject))}


def _measure_growth(count: str, method: str, threads: str) -> JsonObject:
    import torch

    from capxai.recipes.bench_subjects import EXPLANATION, SIZES, build_workload

    torch.set_num_threads(int(threads))
    run = build_workload(SIZES["bundled"], method).subject(EXPLANATION)
    for _ in range(min(_WARM_UP, int(count))):
        run()
    _tidy()
    before = resident()
    for _ in range(int(count)):
        run()
    _tidy()
    after = resident()
    return {
        "explanations": int(count),
        "before_gib": before / GIB,
        "after_gib": after / GIB,
        "growth_percent": 100 * (after - before) / before,
    }


def _measure_verb(model: str, corpus: str, method: str, threads: str, settled: str) -> JsonObject:
    from capxai.recipes.analysis.hallucination import HallucinationConfig, run
    from capxai.recipes.bench_hallucination_subjects import Watch

    found: list[JsonObject] = []

    def look(done: int) -> None:
        if done >= int(settled) and not found:
            found.append(_memory_after(done))

    folder = Path(corpus)
    report = run(
        HallucinationConfig(
            model=Path(model), corpus=folder, method=(method,), pictures=0, device="cpu", threads=int(threads),
            out=folder / "watched",
        ),
        Watch(look),
    )  # fmt: skip
    found.append(_memory_after(report.pictures))
    settled_at, end = found
    growth = end["peak_gib"] - settled_at["peak_gib"]
    return {
        "settled": settled_at,
        "end": end,
        "growth_gib": growth,
        "growth_percent": 100 * growth / settled_at["peak_gib"],
    }


def _memory_after(pictures: int) -> JsonObject:
    peak = _peak()
    _tidy()
    return {"pictures": pictures, "resident_gib": resident() / GIB, "peak_gib": peak / GIB}


if __name__ == "__main__":
    _TASKS: dict[str, Callable[..., JsonObject]] = {
        "peak": _measure_peak_of,
        "growth": _measure_growth,
        "verb": _measure_verb,
    }
    Path(sys.argv[1]).write_text(json.dumps(_TASKS[sys.argv[2]](*sys.argv[3:])))
