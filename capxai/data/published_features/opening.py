"""Finding out which format a source of published features has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from capxai.data.published_features import archives, hdf5
from capxai.data.published_features.picture_files import PictureFiles
from capxai.data.published_features.source import CHANNELS, PublishedFeatures
from capxai.data.published_features.tsv import TsvFeatures
from capxai.errors import CorpusError, unknown_choice

Format = Literal["auto", "tsv", "npz", "hdf5"]
FORMATS: tuple[Format, ...] = ("auto", "tsv", "npz", "hdf5")
_PATTERNS = {
    "tsv": re.compile(r"\.tsv(\.\d+)?$"),
    "npz": re.compile(r"\.np[zy]$"),
    "hdf5": re.compile(r"\.(hdf5|h5)$"),
}
_EXPECTED = (
    "Expected a .tsv file or a folder of them (Anderson et al.), a folder of .npz or .npy files, or a folder of .hdf5 files, one for "
    "each picture"
)


def open_published(path: str | Path, form: Format = "auto", channels: int = CHANNELS) -> PublishedFeatures:
    """List the pictures of published region features.

    Args:
        path: A ``.tsv`` file, or a folder; folders inside it are looked through as well.
        form: The format; "auto" finds it by the names of the files.
        channels: C that the features must have.

    Raises:
        CorpusError: There are no such files, of more than one format, or some are damaged or hold something else.
    """
    path = Path(path)
    if form not in FORMATS:
        raise CorpusError(unknown_choice("format", form, FORMATS))
    files = _found(path)
    chosen = form if form != "auto" else _only_one(path, {name: len(found) for name, found in files.items() if found})
    if not files[chosen]:
        raise CorpusError(f"'{path}' has no {chosen} files. {_EXPECTED}. Check the path and the format.")
    source: PublishedFeatures
    if chosen == "tsv":
        source = TsvFeatures(path, files[chosen], channels)
    else:
        source = PictureFiles(path, files[chosen], archives.KIND if chosen == "npz" else hdf5.KIND, channels)
    if not source.pictures:
        raise CorpusError(f"'{path}' holds no pictures. {_EXPECTED}. Copy it again.")
    return source


def _found(path: Path) -> dict[str, list[Path]]:
    """Return the files of each format, sorted by name; a path that is a file counts only as a .tsv."""
    if path.is_file():
        if not _PATTERNS["tsv"].search(path.name):
            raise CorpusError(f"'{path}' is a single file. {_EXPECTED}. Give the folder, or a .tsv file.")
        return {"tsv": [path], "npz": [], "hdf5": []}
    if not path.is_dir():
        raise CorpusError(f"'{path}' does not exist. {_EXPECTED}. Check the path.")
    found: dict[str, list[Path]] = {name: [] for name in _PATTERNS}
    for file in sorted(path.rglob("*")):
        if _set_aside(file.relative_to(path.parent)):
            continue
        for name, pattern in _PATTERNS.items():
            if pattern.search(file.name) and file.is_file():
                found[name].append(file)
    return found


def _set_aside(file: Path) -> bool:
    """Tell whether a file lies in a folder of boxes or of mean features, which belongs to one of features."""
    return any(part.endswith((archives.BOX_FOLDER, archives.MEAN_FOLDER)) for part in file.parts[:-1])


def _only_one(path: Path, counts: dict[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    if not counts:
        raise CorpusError(f"'{path}' has no files of region features. {_EXPECTED}. Check the path.")
    named = ", ".join(f"{count} {name}" for name, count in counts.items())
    raise CorpusError(f"'{path}' has files of several formats ({named}). Expected one. Choose it with --import-format.")
