"""Notes of which blocks of an unfinished file are on the disk, written so that a kill at any moment leaves them true."""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from capxai.errors import CorpusError

_HEAD = struct.Struct("<II")
_ENTRY = struct.Struct("<III")
"""Block number, CRC-32 of the block, CRC-32 of these two: an entry that was cut off or never reached the disk does not check."""


class BlockJournal:
    """The notes of one writing process. While it is open, no other process can open it.

    Args:
        path: The file of notes; made if it is not there.

    Raises:
        CorpusError: Another process writes to it.
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise CorpusError(
                f"Another process is writing the file that '{path}' belongs to. Expected to be alone. Wait for it or stop it, or write "
                "to another file with --out."
            ) from error
        whole = os.fstat(self._descriptor).st_size // _ENTRY.size * _ENTRY.size
        os.ftruncate(self._descriptor, whole)

    def clear(self) -> None:
        """Forget all notes."""
        os.ftruncate(self._descriptor, 0)
        os.fsync(self._descriptor)

    def add(self, checksums: Mapping[int, int]) -> None:
        """Note blocks that are on the disk, with their checksums; when this returns, so are the notes."""
        if checksums:
            _write(self._descriptor, b"".join(_entry(block, checksum) for block, checksum in checksums.items()))
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Let another process write."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_journals(paths: Iterable[Path]) -> dict[int, int]:
    """Return the checksum of every block that the notes call durable; entries that do not check are passed over."""
    contents = [path.read_bytes() for path in paths]
    entries = [
        entry for text in contents for entry in _ENTRY.iter_unpack(text[: len(text) // _ENTRY.size * _ENTRY.size])
    ]
    return {block: checksum for block, checksum, check in entries if _check(block, checksum) == check}


def _check(block: int, checksum: int) -> int:
    return zlib.crc32(_HEAD.pack(block, checksum))


def _entry(block: int, checksum: int) -> bytes:
    return _ENTRY.pack(block, checksum, _check(block, checksum))


def _write(descriptor: int, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += os.write(descriptor, data[done:])
