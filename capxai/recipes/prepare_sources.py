"""Finds the caption files, instance files and picture folders that are meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capxai.errors import ConfigError
from capxai.types import Reporter

if TYPE_CHECKING:
    from capxai.data.coco_files import CaptionFile

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)", re.DOTALL)
_CAPTIONS = re.compile(r"captions_(.+)\.json")
_YEAR = re.compile(r"(2014|2017)$")


@dataclass(frozen=True)
class Sources:
    """The files to read: caption files with their picture folders, and instance files."""

    captions: tuple[CaptionFile, ...]
    instances: tuple[Path, ...]


def split_of(name: str) -> str:
    """Return the split that the name of a file stands for: "train" for "train2017"."""
    return _YEAR.sub("", name) or name


def parse_named(texts: Sequence[str]) -> list[tuple[str, Path]]:
    """Read "NAME=PATH" or "PATH" each; the name of a bare path is ""."""
    matches = ((_NAMED.fullmatch(text), text) for text in texts)
    return [
        (match[1], Path(match[2]).expanduser()) if match else ("", Path(text).expanduser()) for match, text in matches
    ]


def find_sources(root: Path | None, given: Mapping[str, Sequence[str]], prefer: str, reporter: Reporter) -> Sources:
    """Collect what was given by name, and look below ``root`` for the rest.

    Args:
        root: A folder as COCO's archives unpack: annotations/captions_*.json, annotations/instances_*.json and a folder of
            pictures of the same name; or None.
        given: For "captions", "instances" and "images" the texts NAME=PATH that were typed. Captions that were given
            replace those below ``root``, and so do instances.
        prefer: The year to take where ``root`` has the files of 2014 and 2017.
        reporter: Where the choice is shown.

    Raises:
        ConfigError: There are no captions, or no pictures to captions; all problems are in one message.
    """
    captions, instances = parse_named(given["captions"]), parse_named(given["instances"])
    folders = parse_named(given["images"])
    if root is not None and not captions:
        captions = _below(root, "captions", prefer, reporter)
        if not instances:
            names = {name for name, _ in captions}
            instances = [item for item in _below(root, "instances", prefer, reporter) if item[0] in names]
    named = [(name or _name_of(path), path) for name, path in captions]
    problems = [] if named else [_no_captions(root)]
    known = {name for name, _ in named}
    stray = [f"'{name}={path}'" for name, path in (*instances, *folders) if name and name not in known]
    if stray:
        problems.append(
            f"{', '.join(stray)} go with no captions. Expected one of the names {', '.join(sorted(known))}."
        )
    files = _with_folders(named, folders, root, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return Sources(tuple(files), tuple(dict.fromkeys(path for _, path in instances)))


def _with_folders(
    captions: Sequence[tuple[str, Path]], folders: Sequence[tuple[str, Path]], root: Path | None, problems: list[str]
) -> list[CaptionFile]:
    """Find the pictures that belong to each caption file."""
    from capxai.data.coco_files import CaptionFile

    files = []
    by_name = dict(folders)
    for name, path in captions:
        beside = [] if root is None else [root / name, root / "images" / name, root / "images"]
        looked = [by_name[key] for key in (name, "") if key in by_name][:1] or beside
        found = next((folder for folder in looked if folder.is_dir()), None)
        if found is None:
            places = ", ".join(f"'{folder}'" for folder in looked) or "nowhere"
            problems.append(
                f"The pictures of '{name}' were not found (looked for the folders: {places}). Expected a folder of pictures. Name "
                f"it with --images {name}=DIR."
            )
            continue
        files.append(CaptionFile(name, path, found))
    return files


def _below(root: Path, kind: str, prefer: str, reporter: Reporter) -> list[tuple[str, Path]]:
    """List the files KIND_NAME.json below a folder, of one year where there are two."""
    pattern = re.compile(rf"{kind}_(.+)\.json")
    for folder in (root / "annotations", root):
        found = [(match[1], path) for path in _listed(folder) if (match := pattern.fullmatch(path.name))]
        if not found:
            continue
        years = {match[1] for name, _ in found if (match := _YEAR.search(name))}
        if len(years) > 1:
            if kind == "captions":
                reporter.note(f"'{folder}' has files of {' and '.join(sorted(years))}; those of {prefer} are used.")
            found = [(name, path) for name, path in found if name.endswith(prefer)]
        return found
    return []


def _listed(folder: Path) -> Iterable[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else ()


def _name_of(path: Path) -> str:
    match = _CAPTIONS.fullmatch(path.name)
    return match[1] if match else path.stem


def _no_captions(root: Path | None) -> str:
    if root is None:
        return (
            "Nothing says where the captions are. Expected a folder as COCO unpacks or files. Give --root DIR, or --captions "
            "train=FILE and --images train=DIR."
        )
    found = "has no" if root.is_dir() else "is no folder; expected"
    return (
        f"'{root}' {found} captions_*.json, in it or in its folder 'annotations'. Expected a folder as COCO's archives unpack. "
        "Name another --root, or the files with --captions train=FILE."
    )
