"""Prepares a corpus from files in COCO format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from capxai.errors import ConfigError
from capxai.recipes.prepare_corpus import CorpusOrder, CorpusReport, make_corpus, refuse_early
from capxai.recipes.prepare_expected import COCO_2017, COCO_2017_PAPER, COCO_ROBUST, ExpectedCounts
from capxai.recipes.prepare_sources import Sources, find_sources, split_of
from capxai.types import SILENT, Reporter

if TYPE_CHECKING:
    from capxai.data.divisions import Division
    from capxai.data.drafts import Draft

Mode = Literal["auto", "official", "paper", "halved"]
_TRAIN, _VAL = "train2017", "val2017"


@dataclass(frozen=True)
class PrepareCocoConfig:
    """Settings of ``capxai prepare coco``.

    Attributes:
        root: A folder as COCO's archives unpack.
        captions: Caption files, as NAME=FILE; they replace those below ``root``.
        instances: Instance files, as NAME=FILE or FILE; they replace those below ``root``.
        images: Folders of pictures, as NAME=DIR, or one DIR for all.
        split: How to divide. "official": each caption file is a split. "paper": the method's division of COCO 2017. "halved":
            the val file is cut into val and test. "auto": "paper" for the whole of COCO 2017, "halved" for a train and a val
            file without test, else "official".
        robust_split: A split file with lists train_id, val_id and test_id; it takes the place of ``split``.
        rest: What happens with the pictures of train2017 that "paper" leaves over.
        minimum_count: How often a word must occur in the training captions to be in the vocabulary.
        tokens: Whose words to count and encode: "capxai", or "published" for the runs of letters, digits and underscores
            that the authors took.
        skip_bad: Leave out what cannot be used, and count it, in place of an error.
        check_pictures: Decode all pictures.
        out: The corpus folder to make.
        name: The name of the corpus.
        force: Replace a corpus that is already there.
    """

    root: Path | None = None
    captions: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    split: Mode = "auto"
    robust_split: Path | None = None
    rest: Literal["leave-out", "train", "val"] = "leave-out"
    minimum_count: int = 4
    tokens: Literal["capxai", "published"] = "capxai"
    skip_bad: bool = False
    check_pictures: bool = False
    out: Path = Path("coco")
    name: str = "coco"
    force: bool = False

    def __post_init__(self) -> None:
        """See that the settings go together.

        Raises:
            ConfigError: They do not.
        """
        if self.robust_split is not None and self.split != "auto":
            raise ConfigError(
                f"Both --robust-split and --split {self.split} say how to divide. Expected one of them. Leave out the other."
            )
        if self.rest != "leave-out" and (self.robust_split is not None or self.split not in ("auto", "paper")):
            raise ConfigError(
                f"--rest {self.rest} has a meaning for --split paper alone. Leave it out, or use that split."
            )


def run(config: PrepareCocoConfig, reporter: Reporter = SILENT) -> CorpusReport:
    """Read caption and instance files, divide their pictures and write a corpus folder.

    Raises:
        ConfigError: The files to read are not all told.
        CorpusError: The files have problems (all are in one message), or ``out`` is occupied.
    """
    from capxai.data.coco_files import read_coco

    given = {"captions": config.captions, "instances": config.instances, "images": config.images}
    sources = find_sources(config.root, given, "2014" if config.robust_split else "2017", reporter)
    refuse_early(_order(config, "", None))
    draft = read_coco(sources.captions, sources.instances, reporter)
    mode, divide, expected = _plan(config, sources, draft, reporter)
    return make_corpus(draft, divide, _order(config, mode, expected), reporter)


def _order(config: PrepareCocoConfig, mode: str, expected: ExpectedCounts | None) -> CorpusOrder:
    return CorpusOrder(
        out=config.out,
        name=config.name,
        mode=mode,
        minimum_count=config.minimum_count,
        tokens=config.tokens,
        skip_bad=config.skip_bad,
        check_pictures=config.check_pictures,
        force=config.force,
        verb="prepare coco",
        config=config,
        expected=expected,
    )


def _plan(
    config: PrepareCocoConfig, sources: Sources, draft: Draft, reporter: Reporter
) -> tuple[str, Callable[[Draft], Division], ExpectedCounts | None]:
    """Say how to divide, and which counts to expect then."""
    from capxai.data import divisions

    robust = config.robust_split
    if robust is not None:
        reporter.note(f"Split: as '{robust}' says.")
        return "robust", lambda draft: divisions.robust(draft, robust), COCO_ROBUST
    names = {file.name: split_of(file.name) for file in sources.captions}
    train, val = _published(sources, _TRAIN), _published(sources, _VAL)
    mode, reason = (config.split, "as asked for") if config.split != "auto" else _chosen(names, draft, train, val)
    reporter.note(f"Split: {mode} ({reason}).")
    if mode == "paper":
        rest = None if config.rest == "leave-out" else config.rest
        counts = divisions.COCO_2017
        return mode, lambda draft: divisions.paper(draft, train, val, counts, rest), COCO_2017_PAPER
    if mode == "halved":
        return mode, lambda draft: divisions.halved(draft, names), None
    both = set(names) == {train, val}
    return mode, lambda draft: divisions.by_origin(draft, names), COCO_2017 if both else None


def _published(sources: Sources, name: str) -> str:
    """Return what the caption file of COCO 2017 is called here: its own name, unless the user gave it another one."""
    published = f"captions_{name}.json"
    return next((file.name for file in sources.captions if file.path.name == published), name)


def _chosen(names: dict[str, str], draft: Draft, train: str, val: str) -> tuple[Mode, str]:
    """Choose how to divide from what is there, and say why."""
    from capxai.data.divisions import COCO_2017 as COUNTS

    wanted = COUNTS.train + COUNTS.val
    found = sum(picture.origin == train for picture in draft.pictures.values())
    if {train, val} <= set(names) and found >= wanted:
        return "paper", "the whole of COCO 2017 is there"
    if set(names.values()) == {"train", "val"}:
        small = f"; '{train}' has {found:,} pictures, too few for 'paper'" if train in names else ""
        return "halved", f"there are a train and a val file and no test{small}; val is cut into val and test"
    return "official", "each caption file is a split"
