"""How feature files and what lies beside them are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from capxai.errors import CorpusError

_SHARD = re.compile(r"(?P<stem>.+)\.(?P<number>\d+)-of-(?P<total>\d+)$")
_NAMED_AT_MOST = 5


def shard_path(path: Path, number: int, total: int) -> Path:
    """Return the name of part ``number`` of ``total``, counted from 1: features.h5 becomes features.2-of-8.h5."""
    return path.with_name(f"{path.stem}.{number}-of-{total}{path.suffix}")


def part_path(path: Path) -> Path:
    """Return the name of a feature file that is not finished."""
    return path.with_name(path.name + ".part")


def journal_path(path: Path, writer: int) -> Path:
    """Return where a writing process notes which blocks of an unfinished file are on the disk."""
    return path.with_name(f"{path.name}.part.{writer}")


def journal_paths(path: Path) -> list[Path]:
    """Return the notes of all processes that have written to an unfinished file."""
    found = path.parent.glob(f"{_escaped(path.name)}.part.*")
    return sorted(name for name in found if name.suffix[1:].isdigit())


def weights_path(path: Path) -> Path:
    """Return where the encoder's weights lie beside a feature file; the parts of one file share them."""
    match = _SHARD.match(path.stem)
    return path.with_name(f"{match['stem'] if match else path.stem}.encoder.safetensors")


def find_parts(path: Path) -> list[Path]:
    """Return the files that make up a feature file, in order.

    Args:
        path: A file; or one part of several, whose others are found beside it; or the name without the part (features.h5), or a
            pattern with ``*``.

    Raises:
        CorpusError: There is none, it is not finished, or parts are missing.
    """
    if "*" in path.name:
        found = sorted(path.parent.glob(path.name))
        if not found:
            raise CorpusError(f"No file fits '{path}'. Expected feature files. Check the path.")
        return in_order(found)
    if not path.exists() and not _SHARD.match(path.stem):
        shards = sorted(path.parent.glob(f"{_escaped(path.stem)}.*-of-*{path.suffix}"))
        if shards:
            return in_order(shards)
    if not path.exists():
        raise _absent(path)
    match = _SHARD.match(path.stem)
    if not match:
        return [path]
    return in_order(sorted(path.parent.glob(f"{_escaped(match['stem'])}.*-of-{match['total']}{path.suffix}")))


def in_order(paths: Sequence[Path]) -> list[Path]:
    """Sort the parts of a feature file by their numbers and see that all are there; a single whole file passes.

    Raises:
        CorpusError: Some are missing, or they do not belong together.
    """
    matches = [_SHARD.match(path.stem) for path in paths]
    if len(paths) == 1 and matches[0] is None:
        return list(paths)
    totals = {int(match["total"]) for match in matches if match}
    names = {path.parent / match["stem"] for path, match in zip(paths, matches, strict=True) if match}
    if None in matches or len(totals) != 1 or len(names) != 1:
        raise CorpusError(
            f"'{paths[0]}' and {len(paths) - 1} more files are not the parts of one feature file. Expected names like "
            "features.1-of-4.h5, all with the same beginning and number of parts. Name one of them."
        )
    total = totals.pop()
    by_number = {int(match["number"]): path for path, match in zip(paths, matches, strict=True) if match}
    missing = [shard_path(_whole(paths[0]), number, total) for number in range(1, total + 1) if number not in by_number]
    if missing:
        shown = ", ".join(map(str, missing[:_NAMED_AT_MOST])) + (" ..." if len(missing) > _NAMED_AT_MOST else "")
        raise CorpusError(
            f"{len(missing)} of {total} parts of the feature file are missing: {shown}. Expected all of them in one folder. "
            "Extract the missing ones with --shard i/n, or copy them here."
        )
    return [by_number[number] for number in range(1, total + 1)]


def _whole(path: Path) -> Path:
    match = _SHARD.match(path.stem)
    return path.with_name(f"{match['stem'] if match else path.stem}{path.suffix}")


def _absent(path: Path) -> CorpusError:
    if part_path(path).exists():
        return CorpusError(
            f"'{path}' is not finished: there is '{part_path(path).name}'. Expected a complete file. Go on with the same "
            "'capxai extract-features' command; it starts where it was interrupted."
        )
    return CorpusError(f"There is no feature file '{path}'. Make one with 'capxai extract-features --out {path}'.")


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)
