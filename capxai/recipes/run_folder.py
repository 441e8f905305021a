"""The folder of a run that can be resumed: where it is, whether it is finished, and whether a resumed run is the same run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from capxai.config import Config, to_json
from capxai.errors import ConfigError, ModelError
from capxai.files import write_json_atomically
from capxai.models.folder import DESCRIPTION_FILE
from capxai.models.repair import repair_model
from capxai.recipes.record import RECORD_FILE
from capxai.train.checkpoint import CHECKPOINT_FILE
from capxai.types import JsonObject

RUNS = Path("runs")


class Wanted(Protocol):
    """The settings that say where a run is."""

    @property
    def out(self) -> Path | None:
        """The folder, or None."""

    @property
    def resume(self) -> bool:
        """Whether to go on with what is there."""

    @property
    def force(self) -> bool:
        """Whether to replace what is there."""


@dataclass(frozen=True)
class RunFolders:
    """The runs of one verb.

    Attributes:
        verb: Its name.
        root: Where its runs are if nobody says otherwise.
    """

    verb: str
    root: Path = RUNS

    def record(self, folder: Path) -> JsonObject | None:
        """Return what a run has noted about itself; None where there is no run of this verb.

        Raises:
            ModelError: The note is damaged.
        """
        try:
            record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ModelError(
                f"'{folder / RECORD_FILE}' cannot be read ({error}). Expected what a run writes on its begin. Begin a new run in another "
                "folder."
            ) from error
        return record if isinstance(record, dict) and record.get("verb") == self.verb else None

    def is_unfinished(self, folder: Path) -> bool:
        """Tell whether there is a run in the folder that was begun and not finished."""
        record = self.record(folder)
        return record is not None and not record.get("finished", True)

    def saved_settings(self, folder: Path) -> dict[str, Any]:
        """Return the settings that a run was begun with, as JSON; empty where there is no run."""
        record = self.record(folder)
        return dict(record["config"]) if record and isinstance(record.get("config"), dict) else {}

    def newest_unfinished(self) -> Path:
        """Return the unfinished run that was active last.

        Raises:
            ModelError: There is none.
        """
        folders = [path.parent for path in self.root.glob(f"*/{RECORD_FILE}") if self.is_unfinished(path.parent)]
        if not folders:
            raise ModelError(
                f"There is no unfinished run under '{self.root}'. Expected one of 'capxai {self.verb}' to resume. Name its folder with "
                f"--out, or begin one with 'capxai {self.verb}'."
            )
        return max(folders, key=lambda folder: (_last_active(folder), folder.name))

    def choose(self, wanted: Wanted, stem: str) -> Path:
        """Choose the folder of a run, and refuse to overwrite anything before time is spent.

        Args:
            wanted: The settings.
            stem: Begin of the name of a new folder.

        Raises:
            ModelError: There is a model or an unfinished run already, or none to resume.
        """
        if wanted.resume:
            folder = self.newest_unfinished() if wanted.out is None else wanted.out
            if self.record(folder) is None:
                raise ModelError(
                    f"There is no run in '{folder}' to resume (no {RECORD_FILE} of 'capxai {self.verb}'). Expected the folder of a run. "
                    "Check --out, or leave --resume out to begin a run there."
                )
            return folder
        if wanted.out is None:
            return self._next_free(stem)
        if not wanted.force:
            self._refuse_taken(wanted.out)
        return wanted.out

    def _refuse_taken(self, folder: Path) -> None:
        if self.is_unfinished(folder):
            raise ModelError(
                f"'{folder}' holds a run that is not finished, and it was kept. Go on with it by '{self.resume_command(folder)}', choose "
                "another --out, or replace it with --force."
            )
        if (folder / DESCRIPTION_FILE).exists():
            raise ModelError(
                f"'{folder}' already holds a model, and it was kept. Choose another --out, or replace it with --force."
            )

    def _next_free(self, stem: str) -> Path:
        number = 1
        while (self.root / f"{stem}-{number}").exists():
            number += 1
        return self.root / f"{stem}-{number}"

    def resume_command(self, folder: Path) -> str:
        """Return what to type to go on."""
        return f"capxai {self.verb} --resume --out {shlex.quote(str(folder))}"

    def finish(self, folder: Path, report: JsonObject) -> None:
        """Note that a run is finished, and what came of it."""
        record = self.record(folder)
        assert record is not None
        write_json_atomically(folder / RECORD_FILE, {**record, "finished": True, "report": report})


def refuse_differences(config: Config, saved: JsonObject, free: Collection[str], allowed: str) -> None:
    """Refuse to go on with other settings than the run was begun with.

    Args:
        config: The settings now.
        saved: Those of the run, as JSON.
        free: Settings that may differ.
        allowed: The same in words.

    A setting that the run did not know yet, because an earlier version began it, was what its default does now.

    Raises:
        ConfigError: Some differ; all are named.
    """
    now = to_json(config)
    untouched = {item.name for item in fields(config) if getattr(config, item.name) == item.default}
    before = {name: value for name, value in now.items() if name in untouched} | saved
    problems = [
        f"{name} is {now.get(name)!r}, and was {before.get(name)!r}"
        for name in sorted(now.keys() | saved.keys())
        if name not in free and now.get(name) != before.get(name)
    ]
    if problems:
        raise ConfigError(
            f"The run was begun with other settings: {'; '.join(problems)}. Expected the same; only these may change: {allowed}. Leave the "
            "settings out on --resume, or begin a new run."
        )


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written in the folder of a run."""
    for half in folder.glob(".*.part*"):
        half.unlink(missing_ok=True)
    repair_model(folder)


def _last_active(folder: Path) -> int:
    files = [folder / name for name in (CHECKPOINT_FILE, RECORD_FILE)]
    return max(path.stat().st_mtime_ns for path in files if path.exists())
