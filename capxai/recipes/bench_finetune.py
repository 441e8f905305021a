"""Times steps of fine-tuning objectives beside those of cross-entropy, in one run, and prints what they cost by counting."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from capxai.config import run_record
from capxai.errors import ConfigError, unknown_choice
from capxai.recipes.bench_timing import Measurement, Ratio, clocked, machine, torch_threads
from capxai.recipes.bench_train import DECODERS
from capxai.types import SILENT, JsonObject, Reporter

if TYPE_CHECKING:
    from capxai.recipes.bench_finetuning import FinetuneWorkload

SCHEMA = 1
CONTROL = "ce"
OBJECTIVES = (CONTROL, "lrp", "lrp-counterfactual")
LRP_TARGET = 1.5
"""What a step of ``lrp`` may cost at most, in steps of the control."""
WARM_UP = 1


@dataclass(frozen=True)
class BenchFinetuneConfig:
    """Settings of ``capxai bench finetune``.

    Attributes:
        decoders: Which decoders are fine-tuned.
        objectives: Which objectives are timed; the control "ce" always is.
        batch_size: Captions of a step.
        size: "full" is V = 9,586, E = H = 512, stored features of 14 x 14 x 512 float16 and 19 words; "small" tries the benchmark itself.
        threads: Threads of torch.
        repeat: Steps of each that are timed. They take turns, so that whatever else the machine does hits all alike.
    """

    decoders: tuple[str, ...] = DECODERS
    objectives: tuple[str, ...] = OBJECTIVES
    batch_size: int = 32
    size: Literal["full", "small"] = "full"
    threads: int = 2
    repeat: int = 9

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        problems = [unknown_choice("decoder", name, DECODERS) for name in self.decoders if name not in DECODERS]
        problems += [unknown_choice("objective", one, OBJECTIVES) for one in self.objectives if one not in OBJECTIVES]
        problems += [] if self.decoders else ["decoders is empty. Expected one or more."]
        numbers = {"threads": self.threads, "repeat": self.repeat, "batch_size": self.batch_size}
        problems += [f"{name} is {number}. Expected 1 or more." for name, number in numbers.items() if number < 1]
        if problems:
            raise ConfigError("These settings of the benchmark cannot be used:\n  " + "\n  ".join(problems))

    @property
    def timed(self) -> tuple[str, ...]:
        """The objectives, the control first."""
        return (CONTROL, *(name for name in self.objectives if name != CONTROL))


@dataclass(frozen=True)
class Cost:
    """What a step of an objective costs.

    Attributes:
        over_control: By measurement, in steps of the control.
        paired: Median of the quotients of steps that followed each other, which is the figure for a busy machine.
        floor: By counting the multiply-adds of matrix products.
        target: What it may cost at most; None where nothing is demanded.
    """

    over_control: Ratio
    paired: float
    floor: float
    target: float | None

    @property
    def reached(self) -> bool | None:
        """Whether the steps that followed each other stay within the target."""
        return None if self.target is None else self.paired <= self.target


@dataclass(frozen=True)
class DecoderCosts:
    """Steps of one decoder.

    Attributes:
        subjects: What a step of each objective took.
        costs: How they compare with the control.
        billions: Multiply-adds of a step of each objective by part, forward and backward, in billions.
    """

    subjects: dict[str, Measurement]
    costs: dict[str, Cost]
    billions: dict[str, dict[str, float]]


@dataclass(frozen=True)
class BenchFinetuneReport:
    """What was measured.

    Attributes:
        description: Sizes, in words.
        decoders: By decoder.
        provenance: Settings and versions.
    """

    description: str
    decoders: dict[str, DecoderCosts]
    provenance: JsonObject

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        found = {name: asdict(one) for name, one in self.decoders.items()}
        for name, one in self.decoders.items():
            for objective, cost in one.costs.items():
                found[name]["costs"][objective]["reached"] = cost.reached
        return {"schema": SCHEMA, "model": self.description, "decoders": found, "provenance": self.provenance}


def run(config: BenchFinetuneConfig, reporter: Reporter = SILENT) -> BenchFinetuneReport:
    """Time steps on the CPU, through the loop that trains, from features stored in a temporary file.

    Raises:
        CapxaiError: The temporary file cannot be written.
    """
    from capxai.recipes.bench_finetuning import FinetuneWorkload
    from capxai.recipes.bench_training import SIZES, stored_features

    size = SIZES[config.size]
    found: dict[str, DecoderCosts] = {}
    with (
        torch_threads(config.threads),
        stored_features(size, (config.repeat + WARM_UP) * config.batch_size) as path,
    ):
        for decoder in config.decoders:
            found[decoder] = _time_steps(FinetuneWorkload(size, decoder, config.batch_size, path), config, reporter)
    return BenchFinetuneReport(
        description=(
            f"B {config.batch_size}, {size.words} words with <end>, V = {size.vocabulary}, E = H = {size.units}, {size.regions} x "
            f"{size.channels} float16 features, random weights, every caption names an object, {config.threads} threads"
        ),
        decoders=found,
        provenance=run_record(config, verb="bench finetune", device="cpu", **machine()),
    )


def _time_steps(work: FinetuneWorkload, config: BenchFinetuneConfig, reporter: Reporter) -> DecoderCosts:
    from contextlib import ExitStack

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in config.timed}
    turns = config.repeat + WARM_UP
    with ExitStack() as stack:
        steps = {name: stack.enter_context(work.steps(name)) for name in config.timed}
        advance = stack.enter_context(reporter.track(f"Timing steps of {work.decoder}", turns))
        for turn in range(turns):
            for name, subject in steps.items():
                seconds = clocked(subject.step)
                if turn >= WARM_UP:
                    times[name].append(seconds)
            advance(1)
    return _summary(times, work)


def _summary(times: dict[str, list[tuple[float, float]]], work: FinetuneWorkload) -> DecoderCosts:
    from capxai.recipes.finetune_operations import floor, step_parts

    measured = {name: Measurement.of(found) for name, found in times.items()}
    costs = {
        name: Cost(
            over_control=Ratio.of(measured[name], measured[CONTROL]),
            paired=statistics.median(
                mine[0] / theirs[0] for mine, theirs in zip(times[name], times[CONTROL], strict=True)
            ),
            floor=floor(name, work.decoder, work.size, work.batch_size),
            target=LRP_TARGET if name == "lrp" else None,
        )
        for name in times
        if name != CONTROL
    }
    counted = {name: step_parts(name, work.decoder, work.size, work.batch_size) for name in times}
    billions = {name: {part: one.total / 1e9 for part, one in parts.items()} for name, parts in counted.items()}
    return DecoderCosts(measured, costs, billions)
