"""Times one whole explanation beside what it is compared with, and measures their memory, all in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from capxai.errors import ConfigError
from capxai.recipes.bench_timing import Measurement, Ratio, clocked, machine, torch_threads
from capxai.types import SILENT, JsonObject, Reporter

if TYPE_CHECKING:
    from capxai.recipes.bench_subjects import Workload

SCHEMA = 1


@dataclass(frozen=True)
class BenchExplainConfig:
    """Settings of ``capxai bench explain``.

    Attributes:
        method: The method of explanation.
        size: "full" is VGG16 at 224 px, ada-lstm with E = H = 512 and V = 9,586, and ten words; "small" tries the benchmark itself.
        threads: Threads of torch.
        repeat: How often each is timed. They take turns, so that whatever else the machine does hits all alike.
        memory: Measure peak memory, each in a process of its own.
        zennit: Compare with zennit, where it is installed: one forward and one backward pass for each target.
        zennit_batch: Also time zennit with all targets as one batch; which of the two is faster depends on the machine.
        growth: Explain so many times in one process, with a model of the bundled one's kind, and report how its memory grows; 0 leaves
            that out.
    """

    method: str = "lrp"
    size: Literal["full", "small"] = "full"
    threads: int = 2
    repeat: int = 3
    memory: bool = True
    zennit: bool = True
    zennit_batch: bool = True
    growth: int = 0

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        least = {"threads": 1, "repeat": 1, "growth": 0}
        problems = [
            f"{name} is {getattr(self, name)}. Expected {bound} or more."
            for name, bound in least.items()
            if getattr(self, name) < bound
        ]
        if problems:
            raise ConfigError("These settings of the benchmark cannot be used:\n  " + "\n  ".join(problems))


@dataclass(frozen=True)
class BenchExplainReport:
    """What was measured.

    Attributes:
        description: Sizes of the model, in words.
        words: Words of the caption = pictures of the forward pass = targets of zennit.
        subjects: By name.
        ratios: ``explanation_over_forward``, ``explanation_over_forward_channels_last``, and where measured
            ``zennit_over_explanation`` and ``zennit_batch_over_explanation``.
        limit: The lowest ``explanation_over_forward`` that counting multiplications allows.
        growth: Of memory over many explanations, or None.
        notes: What was left out, and why.
        provenance: Settings and versions.
    """

    description: str
    words: int
    subjects: dict[str, Measurement]
    ratios: dict[str, Ratio]
    limit: float
    growth: JsonObject | None
    notes: tuple[str, ...]
    provenance: JsonObject

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        return {
            "schema": SCHEMA,
            "model": self.description,
            "words": self.words,
            "limit_explanation_over_forward": self.limit,
            "subjects": {name: asdict(found) for name, found in self.subjects.items()},
            "ratios": {name: asdict(found) for name, found in self.ratios.items()},
            "growth": self.growth,
            "notes": list(self.notes),
            "provenance": self.provenance,
        }


def run(config: BenchExplainConfig, reporter: Reporter = SILENT) -> BenchExplainReport:
    """Time and measure an explanation, a bare forward pass of as many pictures, and zennit on the same trunk and targets.

    Everything runs on the CPU.

    Raises:
        RelevanceError: There is no such method.
        DependencyError: A process that measures memory ends early.
    """
    from capxai.config import run_record
    from capxai.explain.methods import find_method
    from capxai.recipes.bench_memory import memory_growth
    from capxai.recipes.bench_subjects import SIZES, build_workload, counted_limit

    find_method(config.method)
    size = SIZES[config.size]
    notes = _notes(config)
    for note in notes:
        reporter.note(note)
    with torch_threads(config.threads):
        workload = build_workload(size, config.method)
        names = _subjects(config)
        times = _times(workload, names, config.repeat, reporter)
        limit = counted_limit(workload)
    peaks = _peaks(config, names, reporter)
    if config.growth:
        reporter.note(f"Explaining {config.growth} times in one process ...")
    subjects = {name: Measurement.of(times[name], peaks.get(name)) for name in names}
    return BenchExplainReport(
        description=(
            f"{size.encoder} at {size.image_size} px, ada-lstm, E = H = {size.units}, V = {size.vocabulary}, random weights"
        ),
        words=size.words,
        subjects=subjects,
        ratios=_ratios(subjects),
        limit=limit,
        growth=memory_growth(config.growth, config.method, config.threads) if config.growth else None,
        notes=notes,
        provenance=run_record(config, verb="bench explain", device="cpu", **_machine()),
    )


def _notes(config: BenchExplainConfig) -> tuple[str, ...]:
    from capxai.recipes.bench_subjects import has_zennit

    if config.zennit and not has_zennit():
        return ("zennit is not installed, so the comparison with it was left out. Install it with: pip install zennit",)
    return ()


def _subjects(config: BenchExplainConfig) -> list[str]:
    from capxai.recipes import bench_subjects as known

    names = [known.EXPLANATION, known.FORWARD, known.CHANNELS_LAST]
    if config.zennit and known.has_zennit():
        names += [known.ZENNIT] + ([known.ZENNIT_BATCH] if config.zennit_batch else [])
    return names


def _times(
    workload: Workload, names: Sequence[str], repeat: int, reporter: Reporter
) -> dict[str, list[tuple[float, float]]]:
    """Return (wall, CPU) seconds of every run by subject. zennit, slow and without caches of its own, is not warmed up."""
    from capxai.recipes.bench_subjects import ZENNIT, ZENNIT_BATCH

    subjects = {name: workload.subject(name) for name in names}
    warmed_up = [name for name in names if name not in (ZENNIT, ZENNIT_BATCH)]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with reporter.track("Timing", len(warmed_up) + repeat * len(names)) as advance:
        for name in warmed_up:
            clocked(subjects[name])
            advance(1)
        for _ in range(repeat):
            for name in names:
                times[name].append(clocked(subjects[name]))
                advance(1)
    return times


def _peaks(config: BenchExplainConfig, names: Sequence[str], reporter: Reporter) -> dict[str, float]:
    from capxai.recipes.bench_memory import peak_memory

    if not config.memory:
        return {}
    peaks = {}
    with reporter.track("Measuring memory", len(names)) as advance:
        for name in names:
            peaks[name] = peak_memory(config.size, config.method, name, config.threads)
            advance(1)
    return peaks


def _ratios(subjects: dict[str, Measurement]) -> dict[str, Ratio]:
    from capxai.recipes import bench_subjects as known

    pairs = {
        "explanation_over_forward": (known.EXPLANATION, known.FORWARD),
        "explanation_over_forward_channels_last": (known.EXPLANATION, known.CHANNELS_LAST),
        "zennit_over_explanation": (known.ZENNIT, known.EXPLANATION),
        "zennit_batch_over_explanation": (known.ZENNIT_BATCH, known.EXPLANATION),
    }
    return {
        name: Ratio.of(subjects[one], subjects[other])
        for name, (one, other) in pairs.items()
        if one in subjects and other in subjects
    }


def _machine() -> JsonObject:
    from importlib import metadata

    from capxai.recipes.bench_subjects import has_zennit

    return {**machine(), "zennit": metadata.version("zennit") if has_zennit() else None}
