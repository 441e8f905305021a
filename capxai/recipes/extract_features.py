"""Extracts the features of a corpus into a feature file, resumable, in shards, by one process or several."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from capxai.errors import ConfigError
from capxai.recipes.failures import Failure
from capxai.types import SILENT, JsonObject, Reporter

if TYPE_CHECKING:
    from capxai.data.feature_verify import Verification

_SHARD = re.compile(r"(\d+)/(\d+)")
_LEAST = {"size": 1, "corpus_seed": 0, "batch_size": 1, "workers": 0, "threads": 1, "image_size": 1, "seed": 0}


@dataclass(frozen=True)
class ExtractConfig:
    """Settings of ``capxai extract-features``.

    Attributes:
        corpus: Corpus folder; None takes the built-in corpus ``scenes``.
        size: Training pictures of the built-in corpus.
        corpus_seed: Seed of the built-in corpus.
        encoder: "compact", "vgg16", "resnet50", "resnet101" or "regions"; None takes the encoder of ``model``.
        encoder_weights: A file, "random", or None for the encoder's own: the bundled model's for compact, torchvision's for the others.
        model: Model folder whose encoder to use; None (with ``encoder`` None too) takes the bundled model.
        split: Splits whose pictures to take; none named means all.
        out: The feature file; with ``shard``, the part and the number of parts come into its name.
        shard: "i/n": only part i of n, counted from 1, so that n machines can share the work.
        dtype: Type of the stored numbers.
        precision: Type in which the network computes.
        image_size: Side of the pictures for the encoder, in pixels (the short side for regions); None for what is usual.
        batch_size: Pictures that go through the network together; also the unit of resuming. Another number may change the last bits.
        workers: Processes that decode pictures, for each process that computes; None goes by the number of processors.
        threads: Threads of torch; None keeps its own choice. Results are the same bit for bit only with the same number.
        device: Name of the device.
        seed: Seed of random weights.
        skip_unreadable: Leave out pictures that cannot be read. All pictures are decoded once beforehand to find them.
        force: Replace a finished feature file, or throw away an unfinished one of other settings.
    """

    corpus: Path | None = None
    size: int = 5000
    corpus_seed: int = 0
    encoder: Literal["compact", "vgg16", "resnet50", "resnet101", "regions"] | None = None
    encoder_weights: str | None = None
    model: Path | None = None
    split: tuple[str, ...] = ()
    out: Path = Path("features.h5")
    shard: str | None = None
    dtype: Literal["float16", "float32"] = "float16"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    image_size: int | None = None
    batch_size: int = 32
    workers: int | None = None
    threads: int | None = None
    device: str = "auto"
    seed: int = 0
    skip_unreadable: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        problems = [
            f"{name} is {getattr(self, name)}. Expected {least} or more."
            for name, least in _LEAST.items()
            if getattr(self, name) is not None and getattr(self, name) < least
        ]
        if self.shard is not None and self.part is None:
            problems.append(f"shard is '{self.shard}'. Expected i/n with i from 1 to n, such as 2/8.")
        if self.out.suffix not in (".h5", ".hdf5"):
            problems.append(f"out is '{self.out}'. Expected a name that ends in .h5 or .hdf5, such as features.h5.")
        if problems:
            raise ConfigError("These settings of the extraction cannot be used:\n  " + "\n  ".join(problems))

    @property
    def part(self) -> tuple[int, int] | None:
        """``shard`` as two numbers; None without one, or where it is none."""
        match = _SHARD.fullmatch(self.shard or "")
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            return None
        return int(match[1]), int(match[2])


@dataclass(frozen=True)
class ExtractReport:
    """What was extracted.

    Attributes:
        out: The feature file.
        description: What it says of itself: kind, encoder, sizes and so on.
        pictures: Pictures in it.
        resumed: How many of them were there already, from an interrupted run.
        file_bytes: Its size.
        seconds: How long it took, without loading the corpus and the encoder.
        waiting_share: Share of this time in which the network waited for pictures, in the first process.
        left_out: Pictures that cannot be read and were left out.
        weights: The file with the encoder's weights; None where none is kept.
    """

    out: Path
    description: JsonObject
    pictures: int
    resumed: int
    file_bytes: int
    seconds: float
    waiting_share: float
    left_out: tuple[Failure, ...]
    weights: Path | None

    @property
    def pictures_per_second(self) -> float:
        """Pictures that were computed now, per second."""
        return (self.pictures - self.resumed) / self.seconds if self.seconds else 0.0

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        return {
            "out": str(self.out),
            "description": self.description,
            "pictures": self.pictures,
            "resumed": self.resumed,
            "file_bytes": self.file_bytes,
            "seconds": self.seconds,
            "pictures_per_second": self.pictures_per_second,
            "waiting_share": self.waiting_share,
            "left_out": [failure.to_json() for failure in self.left_out],
            "weights": None if self.weights is None else str(self.weights),
        }


def run(config: ExtractConfig, reporter: Reporter = SILENT) -> ExtractReport:
    """Extract features.

    Under torchrun the processes share the work and write one file, the same as one process writes. Interrupted at any moment, the
    same settings go on where it stopped, and the file is the same as if nothing had happened.

    Raises:
        ConfigError: The settings contradict each other.
        CorpusError: The corpus cannot be read, the feature file exists, or an unfinished one has other settings.
        ImageError: Pictures cannot be read; all are named, and the features of the others are kept.
        ModelError: The encoder or its weights cannot be used.
        DependencyError: The device or published weights are not there.
        CapxaiError: The disk is full.
    """
    from capxai.recipes.device import choose_device
    from capxai.recipes.extraction_run import ExtractionRun
    from capxai.recipes.interruption import terminable
    from capxai.train.processes import processes

    with terminable(), processes(choose_device(config.device)) as group:
        return ExtractionRun(config, group, group.reporter(reporter)).run()


def verify(path: Path, reporter: Reporter = SILENT) -> Verification:
    """Check a finished feature file: structure, counts, every number, every block's checksum, and the weights beside it.

    Raises:
        CorpusError: The file is missing, torn or of another format, or parts of it are missing.
    """
    from capxai.data.feature_store import FeatureStore
    from capxai.data.feature_verify import verify_features

    with FeatureStore.open(path) as store:
        total = len(store)
    with reporter.track("Checking", total) as advance:
        return verify_features(path, advance)
