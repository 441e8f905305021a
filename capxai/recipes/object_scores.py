"""Scores captions of a corpus split by the objects that they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from capxai.data.corpus import Split
from capxai.evaluate.lexicon import Lexicon
from capxai.evaluate.objects import ObjectReport, PictureTruth, ground_truth, score_objects


def split_truths(split: Split, lexicon: Lexicon) -> list[PictureTruth]:
    """Return what is in every picture of a split, in the order of its pictures."""
    return [
        ground_truth(
            picture.id, (item.category for item in split.objects[picture.id]), split.captions[picture.id], lexicon
        )
        for picture in split.pictures
    ]


def score_captions(captions: Sequence[str], split: Split, lexicon: Lexicon, seed: int = 0) -> ObjectReport:
    """Score one caption for each picture of a split, in the order of its pictures."""
    by_id: Mapping[int, str] = {picture.id: text for picture, text in zip(split.pictures, captions, strict=True)}
    return score_objects(by_id, split_truths(split, lexicon), lexicon, seed)


def figures(report: ObjectReport, digits: int = 4) -> dict[str, float]:
    """Return the five figures by which models of this project are compared; shares in [0, 1]."""
    values = report.values()
    names: Iterable[tuple[str, str]] = (
        ("macro_f1", "f1"),
        ("chair_i", "chair_i"),
        ("chair_s", "chair_s"),
        ("recall", "recall"),
        ("objects_per_caption", "objects_per_caption"),
    )
    return {name: round(values[key], digits) for name, key in names}
