"""Times the training step beside the same arithmetic written bare, all in one run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from capxai.config import run_record
from capxai.errors import ConfigError, unknown_choice
from capxai.recipes.bench_timing import Measurement, Ratio, clocked, machine, torch_threads
from capxai.types import SILENT, JsonObject, Reporter

if TYPE_CHECKING:
    from capxai.recipes.bench_training import Workload

SCHEMA = 1
DECODERS = ("ada-lstm", "mh-fc")
OURS, BARE, IN_LOOP = "capxai", "bare", "bare, projection in the loop"
WARM_UP = 1
PUBLISHED = (
    "For a step of 8 captions the published code is stated to take 1.1 s on two threads; that figure comes from elsewhere and was not "
    "measured here."
)


@dataclass(frozen=True)
class BenchTrainConfig:
    """Settings of ``capxai bench train``.

    Attributes:
        decoders: Which decoders are trained.
        batch_sizes: Captions of a step.
        size: "full" is V = 9,586, E = H = 512, stored features of 14 x 14 x 512 float16 and 19 words; "small" tries the benchmark itself.
        threads: Threads of torch.
        repeat: Steps of each that are timed. They take turns, so that whatever else the machine does hits all alike.
    """

    decoders: tuple[str, ...] = DECODERS
    batch_sizes: tuple[int, ...] = (32, 8)
    size: Literal["full", "small"] = "full"
    threads: int = 2
    repeat: int = 9

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        problems = [unknown_choice("decoder", name, DECODERS) for name in self.decoders if name not in DECODERS]
        problems += [f"{name} is empty. Expected one or more." for name in _LISTS if not getattr(self, name)]
        numbers = [("threads", self.threads), ("repeat", self.repeat)]
        numbers += [("a batch size", number) for number in self.batch_sizes]
        problems += [f"{name} is {number}. Expected 1 or more." for name, number in numbers if number < 1]
        if problems:
            raise ConfigError("These settings of the benchmark cannot be used:\n  " + "\n  ".join(problems))


_LISTS = ("decoders", "batch_sizes")


@dataclass(frozen=True)
class StepTimes:
    """Steps of one decoder with one batch size.

    Attributes:
        subjects: What each took: a step of ``capxai train``, the same written bare, and that with the vocabulary projection in the loop.
        ours_over_bare: How they compare.
        paired: Median of the quotients of steps that followed each other, which is the figure for a busy machine.
        in_loop_over_bare: What projecting every word by itself costs.
        waiting_share: Share of the time of our steps spent waiting for stored features, in [0, 1].
        tokens_per_second: Of ours, by the median step.
        loss_difference: Greatest relative difference between our loss and the bare one, without dropout, before training.
    """

    subjects: dict[str, Measurement]
    ours_over_bare: Ratio
    paired: float
    in_loop_over_bare: Ratio
    waiting_share: float
    tokens_per_second: float
    loss_difference: float


@dataclass(frozen=True)
class BenchTrainReport:
    """What was measured.

    Attributes:
        description: Sizes, in words.
        steps: By decoder and batch size.
        notes: What should be known with them.
        provenance: Settings and versions.
    """

    description: str
    steps: dict[str, StepTimes]
    notes: tuple[str, ...]
    provenance: JsonObject

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        return {
            "schema": SCHEMA,
            "model": self.description,
            "steps": {name: asdict(found) for name, found in self.steps.items()},
            "notes": list(self.notes),
            "provenance": self.provenance,
        }


def run(config: BenchTrainConfig, reporter: Reporter = SILENT) -> BenchTrainReport:
    """Time training steps on the CPU: through the training loop from stored features, and bare from features in memory.

    The features lie in a temporary file, which is written to the disk and dropped from the cache of the operating system, where it can be.

    Raises:
        CapxaiError: The temporary file cannot be written.
    """
    from capxai.recipes.bench_training import SIZES, Workload, stored_features

    size = SIZES[config.size]
    found: dict[str, StepTimes] = {}
    with torch_threads(config.threads), stored_features(size, _pictures(config)) as path:
        for decoder in config.decoders:
            for batch_size in config.batch_sizes:
                name = f"{decoder}, B {batch_size}"
                found[name] = _time_steps(Workload(size, decoder, batch_size, path), name, config.repeat, reporter)
    return BenchTrainReport(
        description=(
            f"{size.regions} x {size.channels} float16 features, E = H = {size.units}, V = {size.vocabulary}, "
            f"{size.words} words with <end>, random weights, Adam, gradients clipped by value, {config.threads} threads"
        ),
        steps=found,
        notes=(PUBLISHED,) if config.size == "full" and 8 in config.batch_sizes else (),
        provenance=run_record(config, verb="bench train", device="cpu", **machine()),
    )


def _pictures(config: BenchTrainConfig) -> int:
    """Return how many pictures are needed so that no two steps see the same."""
    return (config.repeat + WARM_UP) * max(config.batch_sizes)


def _time_steps(work: Workload, name: str, repeat: int, reporter: Reporter) -> StepTimes:
    difference = work.loss_difference()
    times: dict[str, list[tuple[float, float]]] = {OURS: [], BARE: [], IN_LOOP: []}
    with work.ours() as ours, reporter.track(f"Timing steps of {name}", repeat + WARM_UP) as advance:
        subjects = {OURS: ours.step, BARE: work.bare(), IN_LOOP: work.bare(projection_in_loop=True)}
        waited = 0.0
        for turn in range(repeat + WARM_UP):
            if turn == WARM_UP:
                waited = ours.waited
            for subject, step in subjects.items():
                seconds = clocked(step)
                if turn >= WARM_UP:
                    times[subject].append(seconds)
            advance(1)
        waited = ours.waited - waited
    return _summary(times, waited, work.tokens, difference)


def _summary(times: dict[str, list[tuple[float, float]]], waited: float, tokens: int, difference: float) -> StepTimes:
    measured = {name: Measurement.of(found) for name, found in times.items()}
    return StepTimes(
        subjects=measured,
        ours_over_bare=Ratio.of(measured[OURS], measured[BARE]),
        paired=_paired(times[OURS], times[BARE]),
        in_loop_over_bare=Ratio.of(measured[IN_LOOP], measured[BARE]),
        waiting_share=waited / sum(wall for wall, _ in times[OURS]),
        tokens_per_second=tokens / measured[OURS].seconds,
        loss_difference=difference,
    )


def _paired(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> float:
    return statistics.median(mine[0] / theirs[0] for mine, theirs in zip(one, other, strict=True))
