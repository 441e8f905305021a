"""Which runs a study has, where each is kept, and what tells one from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capxai.errors import CapxaiError, ConfigError, ModelError
from capxai.recipes.study import AT, CONTROL, StudyConfig
from capxai.types import JsonObject

try:
    import fcntl
except ImportError:  # a system without these locks: one process at a time
    fcntl = None  # type: ignore[assignment]

PLAIN = "plain"
PLAIN_SEED = 0
FIGURES_FILE = "figures.json"
FAILURE_FILE = "failure.json"
DRAWS_FILE = "draws.npz"
SCHEMA = 1


@dataclass(frozen=True)
class Base:
    """A base model.

    Attributes:
        name: Its name in the study.
        folder: Its folder; None for the bundled model.
        weights: SHA-256 of its weights.
        features: The feature file that its runs read.
    """

    name: str
    folder: Path | None
    weights: str
    features: Path


@dataclass(frozen=True)
class Run:
    """One fine-tuning, or the base model as it is.

    Attributes:
        base: What it begins with.
        row: Its row in the table: an objective, "ce@objective" or "plain".
        seed: Seed of the fine-tuning; 0 for the base model itself.
        folder: Where its captions and figures are kept.
        settings: All that determines its figures, as JSON values.
    """

    base: Base
    row: str
    seed: int
    folder: Path
    settings: JsonObject

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.row}, {self.base.name}" + ("" if self.row == PLAIN else f", seed {self.seed}")

    @property
    def objective(self) -> str:
        """The objective that is made small."""
        return self.row.partition(AT)[0]

    def finished(self) -> JsonObject | None:
        """Return what was kept of the finished run; None where there is none.

        Raises:
            ConfigError: There is one with other settings.
            CapxaiError: The file is damaged.
        """
        kept = read_kept(self.folder / FIGURES_FILE)
        if kept is None:
            return None
        changed = _changed(kept["settings"], self.settings)
        if changed:
            raise ConfigError(
                f"The run '{self.name}' of the study was made with other settings: {'; '.join(changed)}. Expected the same. Give the old "
                f"settings again, choose another --out, or begin its runs afresh with --force."
            )
        return kept


def settings_hash(settings: JsonObject) -> str:
    """Return the SHA-256 of settings, in whatever order they stand."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _changed(one: JsonObject, other: JsonObject) -> list[str]:
    names = sorted(one.keys() | other.keys())
    return [
        f"{name} was {one.get(name)!r} and is {other.get(name)!r}" for name in names if one.get(name) != other.get(name)
    ]


def read_kept(path: Path) -> JsonObject | None:
    """Return a JSON object that the study has written; None where there is no file.

    Raises:
        CapxaiError: It cannot be read.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CapxaiError(
            f"'{path}' cannot be read ({error}). Expected what the study wrote. Delete the file; its run is then done again."
        ) from error
    if not isinstance(found, dict):
        raise CapxaiError(f"'{path}' holds no JSON object. Expected what the study wrote. Delete the file.")
    return found


def name_bases(folders: Sequence[Path | None]) -> list[str]:
    """Name base models after their folders; equal names are numbered.

    Raises:
        ModelError: A folder is not there.
    """
    missing = [str(folder) for folder in folders if folder is not None and not folder.is_dir()]
    if missing:
        raise ModelError(f"There is no folder {', '.join(missing)}. Expected folders of base models. Check --model.")
    plain = ["bundled" if folder is None else folder.resolve().name for folder in folders]
    return [name if plain.count(name) == 1 else f"{name}-{place}" for place, name in enumerate(plain, 1)]


def plan_runs(config: StudyConfig, bases: Sequence[Base], identity: JsonObject, ratios: dict[str, float]) -> list[Run]:
    """List all runs: seed by seed, so that a study that is stopped early has every objective.

    Args:
        config: The settings of the study.
        bases: The base models.
        identity: What all runs share and figures depend on: the corpus, the splits, the beam.
        ratios: Cost of a step of an objective in steps of the control, for `StudyConfig.compute_controls`.
    """
    plain = [_run(config, base, PLAIN, PLAIN_SEED, identity) for base in bases] if config.plain else []
    updates = dict.fromkeys(config.compared, config.updates)
    costs = {name: max(1.0, ratios[name]) for name in config.compute_controls}
    updates |= {f"{CONTROL}{AT}{name}": round(config.updates * cost) for name, cost in costs.items()}
    tuned = [
        _run(config, base, row, seed, {**identity, **_tuning(config, row, count)})
        for seed in config.seeds
        for base in bases
        for row, count in updates.items()
    ]
    return plain + tuned


def _tuning(config: StudyConfig, row: str, updates: int) -> JsonObject:
    objective = row.partition(AT)[0]
    rate = config.rate_of(objective)
    return {"updates": updates, "learning_rate": rate, "settings": list(config.settings_of(objective))}


def _run(config: StudyConfig, base: Base, row: str, seed: int, settings: JsonObject) -> Run:
    folder = config.out / "runs" / base.name / row
    folder = folder if row == PLAIN else folder / f"seed-{seed}"
    own = {**settings, "base": base.weights, "objective": row.partition(AT)[0], "seed": seed}
    return Run(base, row, seed, folder, own)


@contextmanager
def claimed(path: Path, wait: bool = False) -> Iterator[bool]:
    """Claim a piece of work for this process: False where another process has it. A killed process lets go by itself.

    Args:
        path: A file that stands for the work; it is made and left there.
        wait: Wait until it is free.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if fcntl is None:
            yield True
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
