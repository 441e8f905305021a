"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from capxai.errors import CapxaiError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_LONGEST_STEM = 60  # leaves room for the random part of the temporary name, whatever the target is called


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Let the caller write a temporary file that becomes ``path`` when the block ends, and vanishes when it fails.

    The temporary file lies in the folder of ``path``, has its ending and does not exist yet; missing folders are made.
    It is flushed to the disk before it is renamed. For libraries that want a name to write to (h5py, numpy,
    safetensors).

    Yields:
        The path of the temporary file.

    Raises:
        CapxaiError: The disk is full, or the place cannot be written to. What was at ``path`` before is still there.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem[:_LONGEST_STEM]}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        with _explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush(temporary)
            os.replace(temporary, target)
            _flush_folder(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write text (as UTF-8, line ends unchanged) or bytes: the file is there as a whole, or as it was before.

    Raises:
        CapxaiError: The disk is full, or the place cannot be written to.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(data)


def write_json_atomically(path: str | Path, value: object, indent: int | None = 2) -> None:
    """Write a value as JSON: the file is there as a whole, or as it was before.

    Raises:
        CapxaiError: The disk is full, or the place cannot be written to.
        ValueError: The value holds NaN or infinity, which JSON does not have.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    # File names that are no valid UTF-8 reach Python as lone surrogates; escaped, they are valid JSON and come back.
    write_atomically(path, text.encode("utf-8", "backslashreplace"))


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """Turn what the operating system says into a message that says what to do."""
    try:
        yield
    except CapxaiError:
        raise
    except Exception as error:
        # Libraries that write by themselves (safetensors, HDF5) pass on the text of the system's error, not its number.
        if getattr(error, "errno", None) in _FULL or os.strerror(errno.ENOSPC) in str(error):
            raise CapxaiError(
                f"The disk is full: '{target}' could not be written ({_free(target.parent)} free there). Expected room "
                "for the whole file. Free some space or write to another disk; what was there before is unchanged."
            ) from error
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or str(error) or type(error).__name__
        raise CapxaiError(
            f"'{target}' could not be written ({reason}). Expected a folder in which files can be made. Check the path "
            "and its rights, or write somewhere else."
        ) from error


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 2**20:,.1f} MiB"
    except OSError:
        return "unknown space"


def _flush(path: Path) -> None:
    """Make sure that the content is on the disk before the name is (else a crash can leave an empty file)."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the new name itself durable, where the system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
