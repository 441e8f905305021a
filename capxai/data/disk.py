"""Writing at places in large files, and what to say when the disk cannot take it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from capxai.errors import CapxaiError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_at(descriptor: int, data: bytes | memoryview, start: int) -> None:
    """Write all of ``data`` at a place in an open file.

    Raises:
        OSError: The disk is full or fails.
    """
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, start)
        view, start = view[count:], start + count


def flush_folder(folder: Path) -> None:
    """Make new names in a folder durable, where the system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the operating system says into a message that says what to do.

    Raises:
        CapxaiError: Instead of any OSError.
    """
    try:
        yield
    except OSError as error:
        text = os.strerror(error.errno) if error.errno else str(error)
        if error.errno not in _FULL and os.strerror(errno.ENOSPC) not in str(error):
            raise CapxaiError(
                f"'{path}' could not be written ({text}). Expected a folder in which files can be made. Check the path and its rights, or "
                "write somewhere else."
            ) from error
        free = "unknown space"
        with suppress(OSError):
            free = f"{shutil.disk_usage(path.parent).free / 2**20:,.1f} MiB"
        raise CapxaiError(
            f"The disk is full: '{path}' could not be written ({text}; {free} free there). Expected room for the whole file. Free some "
            "space and run the same command again, which goes on from what is already there, or write to another disk."
        ) from error
