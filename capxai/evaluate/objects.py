"""Are the objects that captions name in the pictures? Precision and recall by category, and CHAIR (method.md, section 4).

Axes: N pictures, Q categories, D bootstrap draws.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from capxai.errors import CorpusError
from capxai.evaluate.bootstrap import DRAWS, PERCENTILES, Estimate, Weights, draws, estimate, weighted_sums
from capxai.evaluate.chair_pairs import Pair, frequent_pairs
from capxai.evaluate.lexicon import Lexicon, Mention
from capxai.evaluate.presence import Presence, PresenceScore, Table, share
from capxai.types import JsonObject

__all__ = [
    "BOOTSTRAP_DRAWS",
    "INTERVAL",
    "CategoryScore",
    "Estimate",
    "ObjectReport",
    "PictureObjects",
    "PictureTruth",
    "Truth",
    "ground_truth",
    "judge",
    "score_objects",
]

BOOTSTRAP_DRAWS = DRAWS
INTERVAL = PERCENTILES

Truth = Literal["instances", "references", "both"]
"""What a picture's objects are taken from."""


@dataclass(frozen=True)
class PictureTruth:
    """What is in a picture.

    Attributes:
        image_id: Its id.
        objects: Categories of its instances united with those that its references mention, or one of the two.
    """

    image_id: int
    objects: frozenset[str]


@dataclass(frozen=True)
class PictureObjects:
    """What a caption says is in a picture.

    Attributes:
        image_id: The picture.
        caption: The caption.
        mentions: Every mention, repeated ones too, in the order of the caption.
        objects: What is there.
    """

    image_id: int
    caption: str
    mentions: tuple[Mention, ...]
    objects: frozenset[str]

    @property
    def false_mentions(self) -> tuple[Mention, ...]:
        """The mentions of what is not there."""
        return tuple(mention for mention in self.mentions if mention.category not in self.objects)

    @property
    def mentioned(self) -> tuple[str, ...]:
        """The category of every mention."""
        return tuple(mention.category for mention in self.mentions)

    @property
    def hallucinated(self) -> tuple[str, ...]:
        """The categories of the false mentions."""
        return tuple(mention.category for mention in self.false_mentions)

    @property
    def missed(self) -> tuple[str, ...]:
        """Categories that are there and are not mentioned, sorted."""
        return tuple(sorted(self.objects.difference(self.mentioned)))

    def to_json(self) -> JsonObject:
        """Return the picture as a JSON object; README.md lists its keys."""
        false = self.false_mentions
        return {
            "image_id": self.image_id,
            "caption": self.caption,
            "objects": sorted(self.objects),
            "words": [mention.text for mention in self.mentions],
            "positions": [mention.position for mention in self.mentions],
            "spans": [[mention.start, mention.end] for mention in self.mentions],
            "mentioned": list(self.mentioned),
            "hallucinated": list(self.hallucinated),
            "hallucinated_words": [mention.text for mention in false],
            "hallucinated_positions": [mention.position for mention in false],
            "hallucinated_spans": [[mention.start, mention.end] for mention in false],
            "missed": list(self.missed),
        }


@dataclass(frozen=True)
class CategoryScore(PresenceScore):
    """How well one category is named.

    Attributes:
        mentions: Mentions, repeated ones too.
        hallucinations: Mentions of it where it is not there.
    """

    mentions: int
    hallucinations: int


@dataclass(frozen=True)
class ObjectReport:
    """The figures of a set of captions.

    Attributes:
        overall: ``chair_i``, ``chair_s``, ``precision``, ``recall``, ``f1`` (macro means over the categories that are there),
            ``objects_per_caption`` (mentions a caption); shares in [0, 1].
        counts: ``pictures``, ``mentions``, ``hallucinations``, ``hallucinated_captions``, ``captions_without_objects``. Without any mention
            ``chair_i`` is 0 and says nothing.
        categories: Each category that is there or is mentioned.
        confusions: Pairs (X, Y): the caption hallucinates X, and Y is there and left out.
        cooccurrences: Pairs (X, Z): the caption hallucinates X, and names Z, which is there.
        images: Each picture.
    """

    overall: dict[str, Estimate]
    counts: dict[str, int]
    categories: dict[str, CategoryScore]
    confusions: tuple[Pair, ...]
    cooccurrences: tuple[Pair, ...]
    images: tuple[PictureObjects, ...]
    _counted: _Counts = field(repr=False, compare=False)

    def values(self) -> dict[str, float]:
        """Return the overall figures without their intervals."""
        return {name: estimate.value for name, estimate in self.overall.items()}

    def resampled(self, weights: Weights) -> dict[str, Table]:
        """Return each overall figure (D,) of the pictures as they count in each draw (D, N), for paired comparisons.

        ``chair_i`` is NaN in a draw without mentions.
        """
        return self._counted.figures(weights)

    def to_json(self) -> JsonObject:
        """Return the report as a JSON object."""
        return {
            "overall": {name: estimate.to_json() for name, estimate in self.overall.items()},
            "counts": self.counts,
            "categories": {name: asdict(score) for name, score in self.categories.items()},
            "confusions": [pair.to_json() for pair in self.confusions],
            "cooccurrences": [pair.to_json() for pair in self.cooccurrences],
            "images": [picture.to_json() for picture in self.images],
        }


def ground_truth(
    image_id: int, instances: Iterable[str], references: Iterable[str], lexicon: Lexicon, truth: Truth = "both"
) -> PictureTruth:
    """Unite the categories of a picture's instances with those that its references mention, or take one of the two.

    Categories of instances that the lexicon cannot mention are left out: no caption could ever name them.
    """
    there: set[str] = set()
    if truth != "references":
        there |= {category for name in set(instances) if (category := lexicon.category(name))}
    if truth != "instances":
        there |= {mention.category for text in references for mention in lexicon.mentions(text)}
    return PictureTruth(image_id, frozenset(there))


def judge(caption: str, truth: PictureTruth, lexicon: Lexicon) -> PictureObjects:
    """Compare the objects that a caption mentions with those that are there."""
    return PictureObjects(truth.image_id, caption, tuple(lexicon.mentions(caption)), truth.objects)


@dataclass(frozen=True)
class _Counts:
    """Numbers that are summed over pictures: by category (N, Q), and of mentions (N,)."""

    presence: Presence
    mentions: Table
    hallucinated: Table

    @classmethod
    def of(cls, pictures: Sequence[PictureObjects]) -> _Counts:
        named = {category for picture in pictures for category in picture.mentioned}
        categories = sorted(named.union(*(picture.objects for picture in pictures)))
        presence = Presence.of(
            categories, [set(picture.mentioned) for picture in pictures], [picture.objects for picture in pictures]
        )
        mentions = np.array([len(picture.mentions) for picture in pictures], dtype=np.float64)
        hallucinated = np.array([len(picture.false_mentions) for picture in pictures], dtype=np.float64)
        return cls(presence, mentions, hallucinated)

    def figures(self, weights: Weights) -> dict[str, Table]:
        """Return each figure (D,) of pictures that count ``weights`` (D, N) times."""
        columns = np.stack([self.hallucinated, self.mentions, self.hallucinated > 0], axis=1)
        false, mentions, captions = weighted_sums(columns, weights).T  # (D,) each
        pictures = weights.sum(axis=1)
        undefined = np.full(len(mentions), np.nan)
        return {
            "chair_i": np.divide(false, mentions, out=undefined, where=mentions > 0),
            "chair_s": share(captions, pictures),
            **self.presence.macro(weights),
            "objects_per_caption": share(mentions, pictures),
        }

    def totals(self) -> dict[str, int]:
        return {
            "pictures": len(self.mentions),
            "mentions": int(self.mentions.sum()),
            "hallucinations": int(self.hallucinated.sum()),
            "hallucinated_captions": int((self.hallucinated > 0).sum()),
            "captions_without_objects": int((self.mentions == 0).sum()),
        }


def score_objects(
    captions: Mapping[int, str],
    truths: Sequence[PictureTruth],
    lexicon: Lexicon,
    seed: int = 0,
    weights: Weights | None = None,
) -> ObjectReport:
    """Measure a caption for each picture.

    CHAIRi = hallucinated mentions / all mentions; CHAIRs = captions with at least one / all captions (Rohrbach et al. 2018). A
    macro mean runs over the categories that are in the pictures; one that is never mentioned has precision 0.

    Args:
        captions: By image id.
        truths: The pictures.
        lexicon: Which words name what.
        seed: Seed of the bootstrap.
        weights: (D, N) draws that other metrics share; None draws with ``seed``, which gives the same ones.

    Raises:
        CorpusError: There is no picture, a picture has no caption or is there twice, or a caption has no picture.
    """
    _refuse_mismatch(captions, truths)
    pictures = tuple(judge(captions[truth.image_id], truth, lexicon) for truth in truths)
    counts = _Counts.of(pictures)
    point = counts.figures(np.ones((1, len(pictures)), dtype=np.int32))
    spread = counts.figures(draws(len(pictures), seed) if weights is None else weights)
    overall = {name: _estimate(float(value[0]), spread[name]) for name, value in point.items()}
    presence = counts.presence
    hallucinated = presence.said * (1 - presence.there)
    return ObjectReport(
        overall,
        counts.totals(),
        _by_category(presence, pictures),
        confusions=frequent_pairs(presence.names, hallucinated, presence.there * (1 - presence.said)),
        cooccurrences=frequent_pairs(presence.names, hallucinated, presence.hit),
        images=pictures,
        _counted=counts,
    )


def _estimate(value: float, spread: Table) -> Estimate:
    """Put a figure and its draws together; 0 for a share of no mentions."""
    return estimate(value, spread) if np.isfinite(value) else Estimate(0.0, 0.0, 0.0)


def _by_category(presence: Presence, pictures: Sequence[PictureObjects]) -> dict[str, CategoryScore]:
    mentions = Counter(category for picture in pictures for category in picture.mentioned)
    false = Counter(category for picture in pictures for category in picture.hallucinated)
    return {
        name: CategoryScore(**asdict(score), mentions=mentions[name], hallucinations=false[name])
        for name, score in presence.scores().items()
    }


def _refuse_mismatch(captions: Mapping[int, str], truths: Sequence[PictureTruth]) -> None:
    ids = [truth.image_id for truth in truths]
    if not ids:
        raise CorpusError("There is no picture to measure captions on. Expected at least one. Choose another split.")
    repeated = [number for number, count in Counter(ids).items() if count > 1]
    if repeated:
        raise CorpusError(
            f"{len(repeated)} pictures are there twice {repeated[:3]}. Expected each once. Remove the others."
        )
    missing = [image_id for image_id in ids if image_id not in captions]
    foreign = sorted(set(captions) - set(ids))
    if missing or foreign:
        raise CorpusError(
            f"{len(missing)} of {len(ids)} pictures have no caption {missing[:3]}, and {len(foreign)} captions belong to none of "
            f"them {foreign[:3]}. Expected one caption for each picture. Check that captions and pictures are of the same split."
        )
