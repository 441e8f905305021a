"""Results of blocks of pictures on the disk, so that a stopped experiment goes on where it was, with any number of processes."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from capxai.errors import CapxaiError, ConfigError
from capxai.files import write_json_atomically
from capxai.types import JsonObject

FOLDER = "progress"
_IDENTITY = "identity.json"


class Progress:
    """The finished blocks of one experiment: a folder with a file of lines for each process, each line checked by a CRC-32.

    Args:
        out: The folder of the experiment's report.
        rank: Number of this process.
    """

    def __init__(self, out: Path, rank: int) -> None:
        self._folder = out / FOLDER
        self._path = self._folder / f"{rank}.jsonl"
        self._file: IO[bytes] | None = None

    def begin(self, identity: JsonObject, force: bool) -> None:
        """Begin, or go on with what is there; to be called by one process before the others open.

        Raises:
            ConfigError: What is there was made with other settings.
            CapxaiError: The folder cannot be written.
        """
        path = self._folder / _IDENTITY
        before = _read_identity(path)
        changed = sorted(
            name for name in (before or {}).keys() | identity.keys() if (before or {}).get(name) != identity.get(name)
        )
        if before is not None and changed and not force:
            raise ConfigError(
                f"'{self._folder}' holds the beginning of an analysis with other settings ({', '.join(changed)}). Expected the same "
                "ones, to go on with it. Give the old settings again, begin afresh with --force, or choose another --out."
            )
        if changed:
            shutil.rmtree(self._folder, ignore_errors=True)
            write_json_atomically(path, identity)

    def done(self) -> dict[int, list[JsonObject]]:
        """Return the records of every finished block by its number; lines that were cut off or damaged are passed over."""
        found: dict[int, list[JsonObject]] = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                checksum, _, text = line.partition(b" ")
                if text and checksum == _checksum(text):
                    content = json.loads(text)
                    found[content["block"]] = content["records"]
        return found

    def add(self, block: int, records: Sequence[JsonObject]) -> None:
        """Keep the records of a block; when this returns, they are on the disk.

        Raises:
            CapxaiError: They cannot be written.
        """
        text = json.dumps({"block": block, "records": list(records)}, allow_nan=False).encode()
        try:
            if self._file is None:
                # A line that was cut off stays alone: what follows begins a line of its own.
                self._file = self._path.open("ab")
                self._file.write(b"\n")
            self._file.write(_checksum(text) + b" " + text + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise CapxaiError(
                f"'{self._path}' could not be written ({error.strerror}). Expected room for the results. Free some space and run the same "
                "command again, which goes on with what is there."
            ) from error

    def close(self) -> None:
        """Close this process's file."""
        if self._file is not None:
            # What was added is on the disk. Python tries once more to write what could not be, and would hide the message about it.
            with suppress(OSError):
                self._file.close()
            self._file = None

    def remove(self) -> None:
        """Forget everything, once the report is written."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _checksum(text: bytes) -> bytes:
    return f"{zlib.crc32(text):08x}".encode()


def _read_identity(path: Path) -> JsonObject | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
