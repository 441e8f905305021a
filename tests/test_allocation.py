"""Freed memory is used again: counted by the pages that the system has to hand out."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from capxai.recipes.allocation import keep_freed_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told how to allocate")

PROGRAM = """
import resource, sys
from capxai.recipes.allocation import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory({})
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    pieces = [bytearray(4 * 2**20) for _ in range(5)]  # 1,024 pages of 4 KiB each
    del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(mode: str) -> int:
    environment = {"MALLOC_MMAP_THRESHOLD_": "131072"} if mode == "plain" else {}
    command = [sys.executable, "-c", PROGRAM, mode]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


def test_freed_pieces_are_used_again() -> None:
    once = 5 * 1024
    assert pages("plain") > 30 * once
    assert pages("kept") < 3 * once


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_what_the_user_chose_stays(name: str) -> None:
    assert not keep_freed_memory({name: "anything"})
