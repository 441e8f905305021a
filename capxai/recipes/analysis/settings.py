"""Settings that all experiments share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from capxai.errors import CapxaiError, ConfigError
from capxai.types import JsonObject

ALL = "all"
QUICK = 200
"""Pictures where nobody says how many: minutes on a CPU."""
_OUTPUTS = ("out", "force", "device", "workers")
"""Settings that say where and how something is done, and change no figure."""


@dataclass(frozen=True)
class AnalysisConfig:
    """Settings that all verbs of ``capxai analyze`` share.

    Attributes:
        model: Model folder; None for the bundled model.
        corpus: Corpus folder; None for the built-in corpus ``scenes``.
        size: Training pictures of the built-in corpus; the other splits are parts of that.
        corpus_seed: Seed of the built-in corpus.
        split: The split whose pictures are explained.
        pictures: The first so many pictures of the split; 0 takes all.
        method: Names of the methods, or "all". Every method explains the same captions.
        lexicon: File of object names in the format of the original CHAIR; None for the built-in one of COCO.
        beam: Captions kept while searching for the model's caption.
        eps: Stabilizer of the epsilon rule of "lrp".
        batch_size: Pictures that are read and explained together; None goes by their size. Figures depend on it in the last digits.
        workers: Processes that decode pictures beside the network; 0 decodes between two batches.
        threads: Threads of torch; None keeps its own choice.
        seed: Seed of the bootstrap, and of whatever else is drawn.
        device: Name of the device.
        out: Folder for report, tables and plots; None writes nothing. A stopped run goes on where it was with the same command.
        force: Replace a report that is already there.
    """

    model: Path | None = None
    corpus: Path | None = None
    size: int = 5000
    corpus_seed: int = 0
    split: str = "test"
    pictures: int = QUICK
    method: tuple[str, ...] = (ALL,)
    lexicon: Path | None = None
    beam: int = 3
    eps: float = 0.01
    batch_size: int | None = None
    workers: int = 0
    threads: int | None = None
    seed: int = 0
    device: str = "auto"
    out: Path | None = None
    force: bool = False

    VERB: ClassVar[str] = ""
    """The verb, "analyze correctness" for instance."""
    REPORT: ClassVar[str] = ""
    """The file whose presence means that a folder is taken."""

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        problems = self.problems()
        if problems:
            raise ConfigError("These settings of the analysis cannot be used:\n  " + "\n  ".join(problems))

    def problems(self) -> list[str]:
        """Return what cannot be used, one line each; experiments add their own."""
        least = {"pictures": 0, "size": 1, "beam": 1, "batch_size": 1, "workers": 0, "threads": 1, "seed": 0}
        found = [
            f"{name} is {getattr(self, name)}. Expected {bound} or more."
            for name, bound in least.items()
            if getattr(self, name) is not None and getattr(self, name) < bound
        ]
        return found + ([] if self.method else ["No method was named. Expected at least one."])

    def identity(self) -> JsonObject:
        """Return the settings that figures depend on, as JSON values."""
        return {
            item.name: value
            for item in fields(self)
            if item.name not in _OUTPUTS
            for value in (_plain(getattr(self, item.name)),)
        }

    def methods(self) -> tuple[str, ...]:
        """Return the names of the methods, "all" spelled out.

        Raises:
            RelevanceError: There is no such method.
        """
        from capxai.explain.methods import METHODS, find_method

        if ALL in self.method:
            return tuple(METHODS)
        for name in self.method:
            find_method(name)
        return tuple(dict.fromkeys(self.method))

    def refuse_occupied(self) -> None:
        """Refuse a taken folder before the work rather than after it.

        Raises:
            CapxaiError: It holds a report already.
        """
        if self.out is not None and not self.force and (self.out / self.REPORT).exists():
            raise CapxaiError(
                f"{self.out} already holds a report, and it was kept. Expected a folder without one. Replace it with --force, or "
                "choose another folder with --out."
            )


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
