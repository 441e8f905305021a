"""The unfinished feature file: started with all its space reserved, or found again."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from capxai.data.block_journal import BlockJournal
from capxai.data.disk import flush_folder
from capxai.data.feature_format import Header, Layout, create_file, read_file
from capxai.data.feature_names import journal_path, journal_paths, part_path
from capxai.data.feature_numbers import repeated
from capxai.errors import CorpusError


def check_header(path: Path, header: Header) -> None:
    """Refuse a file that would have no pictures, or one twice.

    Raises:
        CorpusError: It would.
    """
    ids, sizes = header.image_ids, header.sizes
    if not len(ids) or len(sizes) != len(ids) or header.block < 1:
        raise CorpusError(
            f"'{path}' would have {len(ids)} pictures, {len(sizes)} sizes and blocks of {header.block}. Expected at least one picture, "
            "a size for each, and blocks of at least 1. Choose other splits or fewer shards."
        )
    if len(twice := repeated(ids)):
        raise CorpusError(
            f"Image ids are there more than once: {twice[:5].tolist()}. Expected each once. Mend the corpus."
        )


def refuse_existing(path: Path, force: bool) -> None:
    """Keep a finished file.

    Raises:
        CorpusError: There is one, and ``force`` is off.
    """
    if path.exists() and not force:
        raise CorpusError(
            f"'{path}' is already there, and it was kept. Choose another --out, or replace it with --force; "
            f"'capxai extract-features --verify {path}' checks it."
        )


def find_or_start(path: Path, header: Header, journal: BlockJournal, force: bool) -> Layout:
    """Find the unfinished file of these settings, or make it.

    Raises:
        CorpusError: There is one of other settings, and ``force`` is off.
        OSError: It cannot be made.
    """
    part = part_path(path)
    if part.exists():
        try:
            return join(path, header)
        except CorpusError:
            if not force:
                raise
        part.unlink()
    for other in journal_paths(path):
        if other != journal_path(path, 0):
            other.unlink()
    journal.clear()
    return _started(path, header)


def _started(path: Path, header: Header) -> Layout:
    """Make the unfinished file under a name of its own first, so that one that bears the right name is whole."""
    fresh = part_path(path).with_name(f"{path.name}.part.new")
    try:
        create_file(fresh, header)
        layout = read_file(fresh)[1]
        with fresh.open("rb+") as file:
            reserve = getattr(os, "posix_fallocate", None)
            if reserve is not None:
                reserve(file.fileno(), 0, fresh.stat().st_size)
            os.fsync(file.fileno())
        os.replace(fresh, part_path(path))
        flush_folder(path.parent)
    finally:
        with suppress(OSError):
            fresh.unlink()
    return layout


def join(path: Path, header: Header) -> Layout:
    """Find the unfinished file of these settings.

    Raises:
        CorpusError: It is not there, or has other settings.
    """
    part = part_path(path)
    found, layout = read_file(part)
    if difference := header.difference(found):
        raise CorpusError(
            f"'{part}' is unfinished work with other settings: now {difference}. Expected the same settings, to go on with it. Use "
            "those settings, choose another --out, or throw the unfinished file away with --force."
        )
    return layout
