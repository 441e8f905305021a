"""From a draft to a corpus folder: what the recipes for COCO's and for Karpathy's files share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capxai.config import Config
from capxai.errors import ConfigError, CorpusError
from capxai.recipes.prepare_expected import ExpectedCounts
from capxai.recipes.record import write_record
from capxai.types import JsonObject, Reporter

if TYPE_CHECKING:
    from capxai.data.annotations import Json
    from capxai.data.corpus_writer import Tokens
    from capxai.data.divisions import Division
    from capxai.data.drafts import Draft, ObjectTable

_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class CorpusOrder:
    """What corpus is asked for.

    Attributes:
        out: The corpus folder to make.
        name: The name of the corpus.
        mode: How it is divided, for the manifest.
        minimum_count: How often a word of the vocabulary occurs in the training captions at least.
        tokens: Whose words: "capxai" or "published".
        skip_bad: Whether to leave out what cannot be used.
        check_pictures: Whether to decode all pictures.
        force: Whether to replace a corpus.
        verb: The verb of the command line, for the record.
        config: The settings, for the record.
        expected: The counts of the corpus, if it is a known one.
    """

    out: Path
    name: str
    mode: str
    minimum_count: int
    tokens: Tokens
    skip_bad: bool
    check_pictures: bool
    force: bool
    verb: str
    config: Config
    expected: ExpectedCounts | None


@dataclass(frozen=True)
class Comparison:
    """A count that was found and the one that was expected, which may be unknown."""

    split: str
    what: str
    found: int
    expected: int | None

    @property
    def differs(self) -> bool:
        """Whether another count was expected."""
        return self.expected is not None and self.expected != self.found


@dataclass(frozen=True)
class CorpusReport:
    """What was made.

    Attributes:
        out: The corpus folder.
        name: Name of the corpus.
        mode: How it is divided.
        splits: For each split the number of pictures, captions, objects, words and unknown words, where it has them.
        vocabulary: Size, minimum count and tokens of the vocabulary; None without a split "train".
        comparisons: The counts, with the expected ones where they are known.
        compared_with: The corpus whose counts were expected; "" if none is known.
        left_out: How many of each kind of unusable thing are not in the corpus.
        notices: How many of each kind of odd thing are in it, or were cut off from it.
        unassigned: Pictures that belong to no split.
    """

    out: Path
    name: str
    mode: str
    splits: dict[str, dict[str, int]]
    vocabulary: JsonObject | None
    comparisons: tuple[Comparison, ...]
    compared_with: str
    left_out: dict[str, int]
    notices: dict[str, int]
    unassigned: int

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        comparisons = [{**asdict(item), "differs": item.differs} for item in self.comparisons]
        return {**asdict(self), "out": str(self.out), "comparisons": comparisons}


def make_corpus(
    draft: Draft, divide: Callable[[Draft], Division], order: CorpusOrder, reporter: Reporter
) -> CorpusReport:
    """Divide a draft into splits, check all that is left, and write the corpus folder.

    Args:
        draft: What was read.
        divide: Says which picture belongs to which split.
        order: What is asked for.
        reporter: Where progress is shown.

    Raises:
        CorpusError: Something cannot be used; all that is wrong is in the message.
    """
    from capxai.data.corpus_writer import CorpusPlan, write_prepared
    from capxai.data.new_corpus import new_corpus

    division = _divided(draft, divide)
    unassigned = draft.drop(lambda picture: picture.id not in division)
    objects, categories = _checked(draft, division, order, reporter)
    details: JsonObject = {"split": order.mode, "unassigned_pictures": unassigned}
    plan = CorpusPlan(order.name, division, objects, categories, order.minimum_count, order.tokens, details)
    with new_corpus(order.out, order.force) as folder:
        manifest = write_prepared(draft, plan, folder, reporter)
        write_record(folder, order.verb, order.config, sources=draft.sources)
    return _report(manifest, order, unassigned)


def refuse_early(order: CorpusOrder) -> None:
    """See before any file is read that the corpus can be written and the settings make sense.

    Raises:
        ConfigError: A setting is out of range.
        CorpusError: ``out`` is occupied.
    """
    import os

    from capxai.data.new_corpus import refuse_occupied

    if order.minimum_count < 1:
        raise ConfigError(
            f"The minimum count of a word is {order.minimum_count}. Expected 1 or more; 1 keeps every word. Change "
            "--minimum-count."
        )
    refuse_occupied(Path(os.path.abspath(order.out)), order.force)


def _divided(draft: Draft, divide: Callable[[Draft], Division]) -> Division:
    """Divide; if that is impossible, say so together with everything else that is wrong."""
    try:
        division = divide(draft)
    except CorpusError as error:
        draft.findings.torn(str(error))
        return {}
    for name in sorted(set(division.values())):
        if not _SPLIT_NAME.fullmatch(name):
            draft.findings.torn(
                f"A split is called {name!r}. Expected letters, digits, dots, dashes and underscores. Choose another name."
            )
    return division


def _checked(
    draft: Draft, division: Division, order: CorpusOrder, reporter: Reporter
) -> tuple[dict[str, list[ObjectTable]], dict[int, Json]]:
    """Look at files, sizes, captions and objects; return the objects of each split, and the categories.

    Raises:
        CorpusError: Something cannot be used and is not to be left out, or nothing is left.
    """
    from capxai.data import draft_objects, picture_files

    draft_objects.compare_sizes(draft)
    picture_files.drop_missing(draft)
    picture_files.look_into(draft, order.check_pictures, reporter)
    picture_files.drop_without_captions(draft)
    covered = draft_objects.check_coverage(draft, division)
    categories = draft_objects.merged_categories(draft)
    objects = {
        split: draft_objects.objects_of(draft, [number for number in draft.pictures if division[number] == split])
        for split in covered
    }
    draft_objects.note_outside(draft)
    if not draft.pictures:
        draft.findings.torn("No usable picture is left for any split.")
    draft.findings.raise_if_unusable(order.skip_bad)
    return objects, categories


def _report(manifest: JsonObject, order: CorpusOrder, unassigned: int) -> CorpusReport:
    names = {"captions_count": "captions"}
    splits = {
        split: {names.get(key, key): value for key, value in entry.items() if isinstance(value, int)}
        for split, entry in manifest["splits"].items()
    }
    vocabulary = manifest.get("vocabulary")
    return CorpusReport(
        out=order.out,
        name=order.name,
        mode=order.mode,
        splits=splits,
        vocabulary=vocabulary,
        comparisons=tuple(_comparisons(splits, vocabulary, order.expected)),
        compared_with=order.expected.name if order.expected else "",
        left_out=manifest["left_out"],
        notices=manifest["notices"],
        unassigned=unassigned,
    )


def _comparisons(
    splits: dict[str, dict[str, int]], vocabulary: JsonObject | None, expected: ExpectedCounts | None
) -> list[Comparison]:
    known = expected.splits if expected else {}
    found = []
    for split in [*splits, *(split for split in known if split not in splits)]:
        for what in ("pictures", "captions", "objects"):
            wanted = known.get(split, {}).get(what)
            has = splits.get(split, {}).get(what)
            # A corpus without instance files lacks nothing that was asked for.
            if has is not None or (wanted is not None and what != "objects"):
                found.append(Comparison(split, what, has or 0, wanted))
    if vocabulary:
        comparable = expected and (vocabulary["tokens"], vocabulary["minimum_count"]) == (
            "published",
            expected.minimum_count,
        )
        found.append(
            Comparison("", "vocabulary", vocabulary["size"], expected.vocabulary if expected and comparable else None)
        )
    return found
