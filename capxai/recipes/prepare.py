"""Prepares a corpus folder: renders the built-in corpus ``scenes``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from capxai.recipes.record import write_record
from capxai.types import SILENT, JsonObject, Reporter


@dataclass(frozen=True)
class PrepareConfig:
    """Settings of ``capxai prepare scenes``.

    Attributes:
        out: The corpus folder to make.
        size: Number of training pictures; val and robust-val get a tenth of it, test and robust a fifth.
        seed: Seed of everything random; the same seed gives the same files, byte by byte.
        force: Replace a corpus that is already there.
    """

    out: Path = Path("scenes")
    size: int = 5000
    seed: int = 0
    force: bool = False


@dataclass(frozen=True)
class PrepareReport:
    """What was made.

    Attributes:
        out: The corpus folder.
        seed: Its seed.
        splits: For each split the number of pictures, captions and objects.
    """

    out: Path
    seed: int
    splits: dict[str, dict[str, int]]

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        return {**asdict(self), "out": str(self.out)}


def run(config: PrepareConfig, reporter: Reporter = SILENT) -> PrepareReport:
    """Render ``scenes`` and write it in COCO format.

    Raises:
        CorpusError: The folder exists and is not to be replaced, or the size or the seed is out of range.
    """
    from capxai.data.scenes import write_corpus

    manifest = write_corpus(config.out, config.size, config.seed, config.force, reporter)
    write_record(config.out, "prepare scenes", config)
    splits = {
        name: {"pictures": entry["pictures"], "captions": entry["captions_count"], "objects": entry["objects"]}
        for name, entry in manifest["splits"].items()
    }
    return PrepareReport(config.out, config.seed, splits)
