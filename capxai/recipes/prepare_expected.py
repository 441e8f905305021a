"""Counts of known corpora, to compare with what was found; ``data/README.md`` has the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ExpectedCounts:
    """What a corpus has when it is whole.

    Attributes:
        name: Which corpus, as it reads after "the counts of".
        splits: For each split the pictures, and where they are known captions and objects.
        vocabulary: Size of the vocabulary with the special words, made of the published tokens; None if unknown.
        minimum_count: How often a word occurs in that vocabulary at least.
    """

    name: str
    splits: Mapping[str, Mapping[str, int]]
    vocabulary: int | None = None
    minimum_count: int = 0


def _split(pictures: int, captions: int | None = None, objects: int | None = None) -> dict[str, int]:
    counts = {"pictures": pictures, "captions": captions, "objects": objects}
    return {name: count for name, count in counts.items() if count is not None}


_COCO_VAL = _split(5_000, 25_014, 36_781)

COCO_2017 = ExpectedCounts(
    "COCO 2017 as it is published", {"train": _split(118_287, 591_753, 860_001), "val": _COCO_VAL}
)
COCO_2017_PAPER = ExpectedCounts(
    "COCO 2017 as the method divides it",
    {"train": _split(110_000), "val": _split(5_000), "test": _COCO_VAL},
    vocabulary=11_027,
    minimum_count=4,
)
COCO_ROBUST = ExpectedCounts(
    "the robust split of COCO", {"train": _split(110_234), "val": _split(3_915), "test": _split(9_138)}
)
COCO_KARPATHY = ExpectedCounts(
    "COCO in Karpathy's splits",
    {"train": _split(113_287, 566_747), "val": _split(5_000, 25_010), "test": _split(5_000, 25_010)},
)
FLICKR30K = ExpectedCounts(
    "Flickr30K in Karpathy's splits",
    {"train": _split(29_000, 145_000), "val": _split(1_014, 5_070), "test": _split(1_000, 5_000)},
    vocabulary=9_586,
    minimum_count=3,
)
FLICKR8K = ExpectedCounts(
    "Flickr8K in Karpathy's splits",
    {"train": _split(6_000, 30_000), "val": _split(1_000, 5_000), "test": _split(1_000, 5_000)},
)
KARPATHY = {"coco": COCO_KARPATHY, "flickr30k": FLICKR30K, "flickr8k": FLICKR8K}
