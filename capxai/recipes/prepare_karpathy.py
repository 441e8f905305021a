"""Prepares a corpus from Karpathy's files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from capxai.errors import ConfigError
from capxai.recipes.prepare_corpus import CorpusOrder, CorpusReport, make_corpus, refuse_early
from capxai.recipes.prepare_expected import COCO_ROBUST, KARPATHY, ExpectedCounts
from capxai.recipes.prepare_sources import parse_named
from capxai.types import SILENT, Reporter

if TYPE_CHECKING:
    from capxai.data.divisions import Division
    from capxai.data.drafts import Draft

MINIMUM_COUNTS = {"coco": 4}
"""How often a word of the vocabulary occurs at least, by data set; 3 in the others."""
_OTHER_MINIMUM = 3
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class PrepareKarpathyConfig:
    """Settings of ``capxai prepare karpathy`` and ``capxai prepare flickr30k``.

    Attributes:
        karpathy: The file dataset_*.json.
        images: The folder of the pictures; for COCO the one that has train2014 and val2014.
        instances: Instance files of the same pictures (COCO).
        robust_split: A split file with lists train_id, val_id and test_id; it takes the place of the splits of the file.
        restval: What becomes of the pictures of COCO that are neither in train nor in val nor in test.
        minimum_count: How often a word must occur in the training captions; None for the usual one of the data set.
        tokens: Whose words to count and encode: "capxai", or "published" for the words as they stand in the file.
        skip_bad: Leave out what cannot be used, and count it, in place of an error.
        check_pictures: Decode all pictures.
        out: The corpus folder to make; None for the name of the data set.
        dataset: The data set that the file must be of; None for any.
        force: Replace a corpus that is already there.
    """

    karpathy: Path | None = None
    images: Path | None = None
    instances: tuple[str, ...] = ()
    robust_split: Path | None = None
    restval: Literal["train", "leave-out"] = "train"
    minimum_count: int | None = None
    tokens: Literal["capxai", "published"] = "capxai"
    skip_bad: bool = False
    check_pictures: bool = False
    out: Path | None = None
    dataset: str | None = None
    force: bool = False


def run(config: PrepareKarpathyConfig, reporter: Reporter = SILENT) -> CorpusReport:
    """Read one of Karpathy's files and write a corpus folder with its splits.

    Raises:
        ConfigError: The file or the pictures are not told, or are not there, or are of another data set.
        CorpusError: The files have problems (all are in one message), or ``out`` is occupied.
    """
    from capxai.data.coco_files import read_instances
    from capxai.data.karpathy import read_karpathy

    path, images = _required(config)
    draft, dataset = read_karpathy(path, images)
    if config.dataset is not None and dataset and dataset != config.dataset:
        raise ConfigError(
            f"'{path}' is of the data set '{dataset}'. Expected '{config.dataset}'. Use 'capxai prepare karpathy', which takes "
            "all of them, or name another file."
        )
    order = _order(config, dataset)
    refuse_early(order)
    read_instances(draft, [path for _, path in parse_named(config.instances)])
    return make_corpus(draft, _division(config), order, reporter)


def _required(config: PrepareKarpathyConfig) -> tuple[Path, Path]:
    problems = []
    if config.karpathy is None:
        problems.append("The file of splits and captions is missing. Expected dataset_*.json. Give --karpathy FILE.")
    if config.images is None:
        problems.append("The folder of the pictures is missing. Give --images DIR.")
    elif not config.images.is_dir():
        problems.append(f"'{config.images}' is no folder. Expected the pictures. Name another --images DIR.")
    if problems or config.karpathy is None or config.images is None:
        raise ConfigError("\n".join(problems))
    return config.karpathy, config.images


def _order(config: PrepareKarpathyConfig, dataset: str) -> CorpusOrder:
    # The name comes from a file that may say anything, and becomes the name of a folder.
    name = dataset if _NAME.fullmatch(dataset) else config.dataset or "karpathy"
    usual = MINIMUM_COUNTS.get(name, _OTHER_MINIMUM)
    return CorpusOrder(
        out=config.out or Path(name),
        name=name,
        mode="robust" if config.robust_split else "karpathy",
        minimum_count=usual if config.minimum_count is None else config.minimum_count,
        tokens=config.tokens,
        skip_bad=config.skip_bad,
        check_pictures=config.check_pictures,
        force=config.force,
        verb=f"prepare {config.dataset or 'karpathy'}",
        config=config,
        expected=_expected(config, dataset),
    )


def _expected(config: PrepareKarpathyConfig, dataset: str) -> ExpectedCounts | None:
    if config.robust_split is not None:
        return COCO_ROBUST
    return KARPATHY.get(dataset)


def _division(config: PrepareKarpathyConfig) -> Callable[[Draft], Division]:
    from capxai.data import divisions

    robust = config.robust_split
    if robust is not None:
        return lambda draft: divisions.robust(draft, robust)
    names = {"train": "train", "val": "val", "test": "test"}
    if config.restval == "train":
        names["restval"] = "train"
    return lambda draft: divisions.by_origin(draft, names)
