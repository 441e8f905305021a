"""How the C library hands out memory to this process: large pieces that were freed are used again instead of given back.

A network on a CPU allocates and frees the same large tensors at every step. glibc fetches each piece above a threshold (128 KiB, at most
32 MiB where it adapts) from the system anew, which fills it with zeros page by page: a third of the time of a beam search by ada-lstm.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""
_NEVER = 2**31 - 1
_LARGEST_PIECE = 32 * 2**20
"""The most that glibc takes as its threshold on 64 bits; larger pieces come from the system as before."""
_CHOSEN_BY_USER = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Let the C library keep freed memory for the next tensor, unless the user has chosen otherwise by environment variables.

    Peak memory stays what it is; what was freed is given back when the process ends.

    Args:
        environment: Variables of the process.

    Returns:
        Whether it was done: on other systems than Linux with glibc it is not.
    """
    if not sys.platform.startswith("linux") or any(name.startswith(_CHOSEN_BY_USER) for name in environment):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_PIECE) and mallopt(_TRIM_THRESHOLD, _NEVER))
