"""Times an extraction beside a bare loop of decoding and going forward, and the feature store being read and written, all in one run."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from capxai.config import run_record
from capxai.errors import ConfigError
from capxai.recipes.bench_timing import Measurement, clocked, machine, torch_threads
from capxai.types import SILENT, JsonObject, Reporter

if TYPE_CHECKING:
    from capxai.recipes.bench_feature_subjects import Extraction, Size, Storage

SCHEMA = 1
OURS, BARE = "extraction", "bare decode + forward"
READ, READ_TOGETHER, DELIVERED = "read", "read, {} workers", "read and delivered, {} workers"
WRITE = "write"
LEAST_THROUGHPUT, MOST_MILLISECONDS = 0.9, 0.1
"""What is promised: throughput over that of the bare loop, and milliseconds of a random read of a region item from several workers."""

Times = list[tuple[float, float]]
_LEAST = {"threads": 1, "workers": 0, "readers": 1, "batch_size": 1, "repeat": 1}


@dataclass(frozen=True)
class BenchFeaturesConfig:
    """Settings of ``capxai bench features``.

    Attributes:
        size: "full" extracts 64 pictures of 640 x 480 with VGG16 at 224 px, and reads and writes 36 x 2048 float16 regions with boxes;
            "small" tries the benchmark itself.
        threads: Threads of torch.
        workers: Processes that decode pictures.
        readers: Processes that read the store at the same time.
        batch_size: Pictures at a time.
        repeat: How often each is timed. They take turns, so that whatever else the machine does hits all alike.
        folder: Where the files lie while they are measured; None takes the system's folder for temporary files.
    """

    size: Literal["full", "small"] = "full"
    threads: int = 2
    workers: int = 1
    readers: int = 4
    batch_size: int = 16
    repeat: int = 5
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        problems = [
            f"{name} is {getattr(self, name)}. Expected {least} or more."
            for name, least in _LEAST.items()
            if getattr(self, name) < least
        ]
        if problems:
            raise ConfigError("These settings of the benchmark cannot be used:\n  " + "\n  ".join(problems))


@dataclass(frozen=True)
class Subject:
    """What one subject took.

    Attributes:
        measurement: Seconds of a whole turn.
        items: Pictures or rows of a turn.
        item_bytes: Stored bytes of each; 0 where nothing is stored.
    """

    measurement: Measurement
    items: int
    item_bytes: int

    def to_json(self) -> JsonObject:
        """Return milliseconds of one item, by the median, fastest and slowest turn, and the rates of the median."""
        found, scale = self.measurement, 1000 / self.items
        per_second = self.items / found.seconds
        return {
            "milliseconds": found.seconds * scale,
            "fastest": found.fastest * scale,
            "slowest": found.slowest * scale,
            "cpu_milliseconds": found.cpu_seconds * scale,
            "items_per_second": per_second,
            "mib_per_second": per_second * self.item_bytes / 2**20 if self.item_bytes else None,
        }


@dataclass(frozen=True)
class BenchFeaturesReport:
    """What was measured.

    Attributes:
        description: What was extracted and stored, in words.
        subjects: By name.
        throughput_over_bare: Of the extraction, median over the turns, each beside the bare loop of the same turn.
        throughput_over_bare_fastest: By the fastest turns, which other processes disturb least.
        throughput_over_bare_cpu: By the time of all threads, without the workers.
        milliseconds_from_readers: Median milliseconds that the slowest reader takes for an item, with all readers at work.
        provenance: Settings, versions and the processor.
    """

    description: str
    subjects: dict[str, Subject]
    throughput_over_bare: float
    throughput_over_bare_fastest: float
    throughput_over_bare_cpu: float
    milliseconds_from_readers: float
    provenance: JsonObject

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        return {
            "schema": SCHEMA,
            "measured": self.description,
            "subjects": {name: found.to_json() for name, found in self.subjects.items()},
            "compared": {
                "throughput over bare loop": _compared(self.throughput_over_bare, least=LEAST_THROUGHPUT),
                "the same by fastest": _compared(self.throughput_over_bare_fastest, least=LEAST_THROUGHPUT),
                "the same by CPU time": _compared(self.throughput_over_bare_cpu, least=LEAST_THROUGHPUT),
                "milliseconds of a read in each worker": _compared(
                    self.milliseconds_from_readers, most=MOST_MILLISECONDS
                ),
            },
            "provenance": self.provenance,
        }


def run(config: BenchFeaturesConfig, reporter: Reporter = SILENT) -> BenchFeaturesReport:
    """Time an extraction, a bare loop over the same pictures, and a store of regions.

    Everything runs on the CPU; the store is as warm in memory as it is after having been written.

    Raises:
        CapxaiError: The files cannot be written.
    """
    from capxai.recipes.bench_feature_subjects import SIZES, Extraction, Storage

    size = SIZES[config.size]
    with (
        torch_threads(config.threads),
        tempfile.TemporaryDirectory(prefix="capxai-bench-", dir=config.folder) as folder,
    ):
        extraction = Extraction(size, Path(folder), config.workers, config.batch_size)
        storage = Storage(size, Path(folder))
        times = _times(_turns(config, extraction, storage), config.repeat, reporter)
    subjects = _subjects(times, config, size, storage.item_bytes)
    ours, bare = subjects[OURS].measurement, subjects[BARE].measurement
    together = subjects[READ_TOGETHER.format(config.readers)].measurement
    regions, channels = size.row_shape
    return BenchFeaturesReport(
        description=(
            f"{size.encoder} at {size.image_size} px, {size.pictures} pictures of {size.picture_size[0]} x {size.picture_size[1]}, "
            f"{config.workers} decoding; store of {size.rows} x {regions} x {channels} float16"
        ),
        subjects=subjects,
        throughput_over_bare=statistics.median(
            alone[0] / stored[0] for stored, alone in zip(times[OURS], times[BARE], strict=True)
        ),
        throughput_over_bare_fastest=bare.fastest / ours.fastest,
        throughput_over_bare_cpu=bare.cpu_seconds / ours.cpu_seconds,
        milliseconds_from_readers=1000 * together.seconds / size.reads,
        provenance=run_record(config, verb="bench features", device="cpu", **machine()),
    )


def _turns(
    config: BenchFeaturesConfig, extraction: Extraction, storage: Storage
) -> dict[str, Callable[[], tuple[float, float]]]:
    """Return what is timed; each returns its (wall, CPU) seconds."""
    return {
        OURS: lambda: clocked(extraction.ours),
        BARE: lambda: clocked(extraction.bare),
        READ: lambda: storage.read(0),
        READ_TOGETHER.format(config.readers): lambda: storage.read(config.readers),
        DELIVERED.format(config.readers): lambda: storage.deliver(config.readers),
        WRITE: lambda: clocked(storage.write),
    }


def _times(turns: dict[str, Callable[[], tuple[float, float]]], repeat: int, reporter: Reporter) -> dict[str, Times]:
    """Time all in turns, after one turn that warms up."""
    times: dict[str, Times] = {name: [] for name in turns}
    with reporter.track("Timing", (repeat + 1) * len(turns)) as advance:
        for number in range(repeat + 1):
            for name, turn in turns.items():
                found = turn()
                if number:
                    times[name].append(found)
                advance(1)
    return times


def _subjects(times: dict[str, Times], config: BenchFeaturesConfig, size: Size, item_bytes: int) -> dict[str, Subject]:
    together = READ_TOGETHER.format(config.readers)
    items = {OURS: size.pictures, BARE: size.pictures, WRITE: size.rows, together: size.reads * config.readers}
    return {
        name: Subject(Measurement.of(found), items.get(name, size.reads), 0 if name in (OURS, BARE) else item_bytes)
        for name, found in times.items()
    }


def _compared(value: float, **promised: float) -> JsonObject:
    """Return a figure beside what it is held against."""
    return {"measured": value, "promised": next(iter(f"{word} {bound}" for word, bound in promised.items()))}


def summary(report: BenchFeaturesReport) -> JsonObject:
    """Return what a terminal shows: the report without versions and settings."""
    content = report.to_json()
    return {name: content[name] for name in ("measured", "subjects", "compared")}
