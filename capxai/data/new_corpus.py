"""A corpus folder that appears as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from capxai.data.corpus import MANIFEST
from capxai.errors import CorpusError


def refuse_occupied(out: Path, force: bool) -> None:
    """See that a corpus can be written to ``out``.

    Raises:
        CorpusError: Something is there, and is not to be replaced or is no corpus.
    """
    if not os.path.lexists(out):
        return
    if not force:
        raise CorpusError(
            f"{out} exists already; a corpus is written to a new folder. "
            "Choose another --out, or replace it with --force."
        )
    # --force must not delete what was never a corpus.
    if not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file()):
        raise CorpusError(
            f"{out} is not a corpus folder (it has no {MANIFEST}); --force replaces corpora only. Choose another --out."
        )


@contextmanager
def new_corpus(out: Path, force: bool) -> Iterator[Path]:
    """Let the caller fill a temporary folder beside ``out`` that takes its place when the block ends.

    Yields:
        The temporary folder, empty.

    Raises:
        CorpusError: See `refuse_occupied`.
    """
    out = Path(os.path.abspath(out))
    refuse_occupied(out, force)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        _make(partial)
        yield partial
        _put_in_place(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise CorpusError(
            f"'{folder.parent}' takes no new folder ({error.strerror}). Expected a place that can be written to. Check its rights, "
            "or choose another --out."
        ) from error


def _put_in_place(partial: Path, out: Path) -> None:
    if not os.path.lexists(out):
        partial.rename(out)
        return
    former = out.with_name(f".{out.name}.{os.getpid()}.former")
    out.rename(former)
    partial.rename(out)
    shutil.rmtree(former)
