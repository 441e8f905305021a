"""Times pictures in the stream of ``capxai analyze hallucination`` beside their explanations alone, and watches its memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from capxai.errors import CapxaiError, ConfigError
from capxai.recipes.bench_timing import Measurement, Ratio, clocked, machine
from capxai.types import SILENT, JsonObject, Reporter

if TYPE_CHECKING:
    from capxai.recipes.bench_hallucination_subjects import Stream

SCHEMA = 1
TARGET = 1.2
"""What the stream may cost at most, in explanations of the same pictures and words."""
SETTLED = 50
"""Pictures after which memory is expected to stay as it is; of fewer than twice as many pictures, half."""
Times = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class BenchHallucinationConfig:
    """Settings of ``capxai bench hallucination``.

    Attributes:
        pictures: Pictures that every subject sees.
        method: The method of explanation.
        size: "full" is VGG16 at 224 px, ada-lstm with E = H = 512 and V = 9,586; "small" tries the benchmark itself.
        threads: Threads of torch.
        turn: Pictures of a turn: one subject takes them all, then the next takes the same.
        memory: Watch the memory of the whole verb over all pictures, in a process of its own.
    """

    pictures: int = 12
    method: str = "lrp"
    size: Literal["full", "small"] = "full"
    threads: int = 2
    turn: int = 4
    memory: bool = True

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        least = {"pictures": 2, "threads": 1, "turn": 1}
        problems = [
            f"{name} is {getattr(self, name)}. Expected {bound} or more."
            for name, bound in least.items()
            if getattr(self, name) < bound
        ]
        if problems:
            raise ConfigError("These settings of the benchmark cannot be used:\n  " + "\n  ".join(problems))


@dataclass(frozen=True)
class Cost:
    """How many times as long the stream takes as explanations alone.

    Attributes:
        over: By medians, fastest turns and processor time.
        paired: Median of the quotients of turns that followed each other, which is the figure for a busy machine.
        paired_cpu: The same of the time of all threads, which counts nobody else's work: the figure for an overloaded one.
    """

    over: Ratio
    paired: float
    paired_cpu: float

    def to_json(self) -> JsonObject:
        """Return the cost as JSON."""
        return {**asdict(self.over), "paired": self.paired, "paired_cpu": self.paired_cpu}


@dataclass(frozen=True)
class BenchHallucinationReport:
    """What was measured; all times are seconds a picture.

    Attributes:
        description: Sizes of the model, in words.
        pictures: Pictures.
        words: Words of each caption.
        object_words: Those that name objects.
        subjects: By name.
        costs: ``all_words_over_explain`` and so on.
        memory: Resident memory of the verb, GiB, once it has settled and at its end; None where it was not watched.
        provenance: Settings and versions.
    """

    description: str
    pictures: int
    words: int
    object_words: int
    subjects: dict[str, Measurement]
    costs: dict[str, Cost]
    memory: JsonObject | None
    provenance: JsonObject

    @property
    def target(self) -> float:
        """What the stream may cost at most, in explanations."""
        return TARGET

    @property
    def reached(self) -> bool:
        """Whether all words of the same captions stay within the target."""
        return self.costs["all_words_over_explain"].paired <= self.target

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        return {
            "schema": SCHEMA,
            "model": self.description,
            "pictures": self.pictures,
            "words": self.words,
            "object_words": self.object_words,
            "target": self.target,
            "reached": self.reached,
            "subjects": {name: asdict(found) for name, found in self.subjects.items()},
            "costs": {name: cost.to_json() for name, cost in self.costs.items()},
            "memory": self.memory,
            "provenance": self.provenance,
        }


def run(config: BenchHallucinationConfig, reporter: Reporter = SILENT) -> BenchHallucinationReport:
    """Take the same pictures through explanations and through the stream, in turns, on the CPU.

    Raises:
        RelevanceError: There is no such method.
        CapxaiError: The model did not say what it was made to say.
        DependencyError: The process whose memory is watched ends early.
    """
    from capxai.config import run_record
    from capxai.explain.methods import find_method
    from capxai.recipes.bench_hallucination_subjects import OBJECT_WORDS, stream
    from capxai.recipes.bench_memory import verb_memory
    from capxai.recipes.bench_planted import CAPTION, SIZES, planted

    find_method(config.method)
    size, memory = SIZES[config.size], None
    with planted(config.size, config.pictures) as place:
        with stream(place, config.method, config.threads) as running:
            times = _times(running, config, reporter)
            (first,) = running.run(OBJECT_WORDS, running.pictures[:1])
        if config.memory:
            reporter.note(f"Watching the memory of the verb over {config.pictures} pictures ...")
            settled = min(SETTLED, config.pictures // 2)
            memory = verb_memory(place.model, place.corpus, config.method, config.threads, settled)
    return BenchHallucinationReport(
        description=(
            f"{size.encoder} at {size.image_size} px, ada-lstm, E = H = {size.units}, V = {size.vocabulary}, random weights, "
            f"{config.threads} threads"
        ),
        pictures=config.pictures,
        words=len(CAPTION.split()),
        object_words=len(first["words"]),
        subjects={name: Measurement.of(found) for name, found in times.items()},
        costs=_costs(times),
        memory=memory,
        provenance=run_record(config, verb="bench hallucination", device="cpu", **machine()),
    )


def _times(running: Stream, config: BenchHallucinationConfig, reporter: Reporter) -> Times:
    """Return (wall, CPU) seconds a picture of every turn by subject; the order is turned round from turn to turn."""
    from capxai.recipes.bench_hallucination_subjects import SUBJECTS

    pictures = running.pictures
    turns = [pictures[start : start + config.turn] for start in range(0, len(pictures), config.turn)]
    times: Times = {name: [] for name in SUBJECTS}
    with reporter.track("Timing", len(SUBJECTS) * (len(turns) + 1)) as advance:
        for name in SUBJECTS:
            _check(running.run(name, turns[0][:2]))
            advance(1)
        for number, turn in enumerate(turns):
            for name in SUBJECTS if number % 2 == 0 else SUBJECTS[::-1]:
                wall, cpu = clocked(partial(running.run, name, turn))
                times[name].append((wall / len(turn), cpu / len(turn)))
                advance(1)
    return times


def _check(records: Sequence[JsonObject]) -> None:
    from capxai.recipes.bench_planted import CAPTION

    wrong = [record["caption"] for record in records if record["caption"] != CAPTION]
    if wrong:
        raise CapxaiError(
            f"The benchmark's model said '{wrong[0]}'. Expected '{CAPTION}', or else times are of other captions. Report this with "
            "your version of torch."
        )


def _costs(times: Times) -> dict[str, Cost]:
    from capxai.recipes import bench_hallucination_subjects as known

    pairs = {
        "all_words_over_explain": (known.ALL_WORDS, known.EXPLAIN),
        "all_words_over_explain_with_caption_given": (known.ALL_WORDS, known.GIVEN),
        "object_words_over_explain": (known.OBJECT_WORDS, known.EXPLAIN),
    }
    return {name: _cost(times[one], times[other]) for name, (one, other) in pairs.items()}


def _cost(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> Cost:
    wall, cpu = (
        statistics.median(mine[clock] / theirs[clock] for mine, theirs in zip(one, other, strict=True))
        for clock in (0, 1)
    )
    return Cost(Ratio.of(Measurement.of(one), Measurement.of(other)), wall, cpu)
