"""Divides the pictures of a draft into splits.

The COCO 2017 split of the method has 110,000 / 5,000 / 5,000 pictures: train and val are from train2017, test is val2017.
Which ones was never published as a list; the released script sorts the ids of train2017, takes the first 110,000 for
training and, by mistake, all of the other 8,287 for validation. `paper` follows the script where it can: the same 110,000 (so
that a vocabulary and a checkpoint of the authors fit), then the next 5,000 ids for validation. Nothing is drawn, so there is
no seed. The 3,287 that are left over belong to no split, unless the caller wants them in one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capxai.data.annotations import is_id
from capxai.data.drafts import Draft
from capxai.data.findings import Findings
from capxai.data.json_tables import SourceText, is_broken, read_source, walk
from capxai.errors import CorpusError

Division = dict[int, str]
"""The split of every picture that is in one, by its id."""

_SUFFIX = "_id"


@dataclass(frozen=True)
class PaperCounts:
    """How many pictures of the training file go to train and to val."""

    train: int = 110_000
    val: int = 5_000


COCO_2017 = PaperCounts()


def by_origin(draft: Draft, names: Mapping[str, str]) -> Division:
    """Put each picture into the split that stands for its origin; an origin without a name belongs to none."""
    return {number: names[item.origin] for number, item in draft.pictures.items() if item.origin in names}


def paper(draft: Draft, train: str, test: str, counts: PaperCounts, rest: str | None) -> Division:
    """Divide COCO 2017 as the method does (see the module).

    Args:
        draft: What was read.
        train: Origin of the pictures for train and val ("train2017").
        test: Origin of the pictures for test ("val2017").
        counts: How many go to train and to val.
        rest: The split for what is left of the training file, or None for no split.

    Raises:
        CorpusError: There are too few pictures.
    """
    ids = sorted(number for number, item in draft.pictures.items() if item.origin == train)
    tested = [number for number, item in draft.pictures.items() if item.origin == test]
    wanted = counts.train + counts.val
    if len(ids) < wanted or not tested:
        raise CorpusError(
            f"The split 'paper' takes {counts.train:,} + {counts.val:,} pictures from '{train}' and all of '{test}'; found are "
            f"{len(ids):,} and {len(tested):,}. Expected the whole of COCO 2017. Choose --split official (each file a split) or "
            "--split halved (the val file cut into val and test)."
        )
    division = dict.fromkeys(ids[: counts.train], "train") | dict.fromkeys(ids[counts.train : wanted], "val")
    if rest is not None:
        division |= dict.fromkeys(ids[wanted:], rest)
    return division | dict.fromkeys(tested, "test")


def halved(draft: Draft, names: Mapping[str, str]) -> Division:
    """Cut the split "val" into val and test: its pictures in the order of their ids, in turn. For data with two files."""
    division = by_origin(draft, names)
    shared = sorted(number for number, split in division.items() if split == "val")
    return division | {number: ("val", "test")[place % 2] for place, number in enumerate(shared)}


def robust(draft: Draft, path: Path) -> Division:
    """Divide by a split file ``{"train_id": [{"img_id": 1}, ...], "val_id": [...], "test_id": [...]}``.

    Every key that ends in "_id" names a split; plain numbers in place of objects are read too. A picture that two splits
    claim belongs to none. What is wrong is noted in the findings of the draft.
    """
    try:
        source = read_source(path)
        draft.add_source(source)
        claims = _claims(source, draft.findings)
    except CorpusError as error:
        draft.findings.torn(str(error))
        return {}
    division: Division = {}
    contested: set[int] = set()
    for split, ids in claims.items():
        contested.update(number for number in ids if number in division)
        division.update(dict.fromkeys(ids, split))
    _note_many(draft.findings, "image ids that two splits of the split file claim", sorted(contested))
    division = {number: split for number, split in division.items() if number not in contested}
    unknown = [number for number in division if number not in draft.pictures]
    _note_many(draft.findings, "image ids of the split file for which there is no usable picture", unknown)
    return {number: split for number, split in division.items() if number in draft.pictures}


def _claims(source: SourceText, findings: Findings) -> dict[str, dict[int, None]]:
    """Collect the ids of each split, in their order."""
    claims: dict[str, dict[int, None]] = {}
    for entry in walk(source, ()):
        if not entry.key.endswith(_SUFFIX) or not isinstance(entry.value, list) or is_broken(entry.key):
            continue
        split = entry.key.removesuffix(_SUFFIX)
        ids = claims[split] = {}
        repeated = 0
        for item in entry.value:
            number: Any = item.get("img_id") if isinstance(item, dict) else item
            if not is_id(number):
                findings.bad("entries of the split file without a whole 'img_id'", f"{number!r} in {entry.key}")
                continue
            repeated += number in ids
            ids[number] = None
        if repeated:
            findings.odd("image ids that stand more than once in a list of the split file", entry.key, repeated)
    if not claims:
        raise CorpusError(
            f"'{source.path}' has no lists train_id, val_id and test_id. Expected a split file "
            '{"train_id": [{"img_id": 1}, ...], ...}. Check that it is the right file.'
        )
    return claims


def _note_many(findings: Findings, kind: str, ids: Sequence[int]) -> None:
    for number in ids:
        findings.bad(kind, number)


def order(splits: Iterable[str]) -> list[str]:
    """Return the names of splits with train, val and test first."""
    usual = ("train", "val", "test")
    return sorted(set(splits), key=lambda name: (usual.index(name) if name in usual else len(usual), name))
