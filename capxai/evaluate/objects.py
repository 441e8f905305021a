"""Are the objects that captions name in the pictures? Precision and recall by category, and CHAIR (method.md, section 4).

Axes: N pictures, Q categories, D bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from capxai.errors import CorpusError
from capxai.evaluate.lexicon import Lexicon
from capxai.types import JsonObject

BOOTSTRAP_DRAWS = 1000
INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap interval."""


@dataclass(frozen=True)
class PictureTruth:
    """What is in a picture.

    Attributes:
        image_id: Its id.
        objects: Categories of its instances united with those that its references mention.
    """

    image_id: int
    objects: frozenset[str]


@dataclass(frozen=True)
class PictureObjects:
    """What a caption says is in a picture.

    Attributes:
        image_id: The picture.
        caption: The caption.
        mentioned: The category of every mention, repeated ones too, in the order of the caption.
        hallucinated: Those of them that are not there.
        missed: Categories that are there and are not mentioned, sorted.
    """

    image_id: int
    caption: str
    mentioned: tuple[str, ...]
    hallucinated: tuple[str, ...]
    missed: tuple[str, ...]

    def to_json(self) -> JsonObject:
        """Return the fields as a JSON object."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Estimate:
    """A figure and its bootstrap interval over pictures (95 %)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CategoryScore:
    """How well one category is named: over pictures, mentioned at least once or not.

    A share without cases (nothing mentioned, nothing there) is None.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    pictures: int
    mentioned: int


@dataclass(frozen=True)
class ObjectReport:
    """The figures of a set of captions.

    Attributes:
        overall: ``chair_i``, ``chair_s``, ``precision``, ``recall``, ``f1`` (macro means over the categories that are there),
            ``objects_per_caption`` (mentions a caption); shares in [0, 1].
        categories: Each category that is there or is mentioned.
        images: Each picture.
    """

    overall: dict[str, Estimate]
    categories: dict[str, CategoryScore]
    images: tuple[PictureObjects, ...]

    def values(self) -> dict[str, float]:
        """Return the overall figures without their intervals."""
        return {name: estimate.value for name, estimate in self.overall.items()}

    def to_json(self) -> JsonObject:
        """Return the report as a JSON object."""
        return {
            "overall": {name: asdict(estimate) for name, estimate in self.overall.items()},
            "categories": {name: asdict(score) for name, score in self.categories.items()},
            "images": [picture.to_json() for picture in self.images],
        }


def ground_truth(image_id: int, instances: Iterable[str], references: Iterable[str], lexicon: Lexicon) -> PictureTruth:
    """Unite the categories of a picture's instances with those that its references mention."""
    mentioned = {mention.category for text in references for mention in lexicon.mentions(text)}
    return PictureTruth(image_id, frozenset(instances) | mentioned)


def judge(caption: str, truth: PictureTruth, lexicon: Lexicon) -> PictureObjects:
    """Compare the objects that a caption mentions with those that are there."""
    mentioned = tuple(mention.category for mention in lexicon.mentions(caption))
    hallucinated = tuple(category for category in mentioned if category not in truth.objects)
    missed = tuple(sorted(truth.objects - set(mentioned)))
    return PictureObjects(truth.image_id, caption, mentioned, hallucinated, missed)


@dataclass(frozen=True)
class _Counts:
    """Numbers that are summed over pictures: (N, Q) each, or (N,)."""

    hit: NDArray[np.float64]
    said: NDArray[np.float64]
    there: NDArray[np.float64]
    mentions: NDArray[np.float64]
    hallucinated: NDArray[np.float64]

    @classmethod
    def of(
        cls, pictures: Sequence[PictureObjects], truths: Sequence[PictureTruth], categories: Sequence[str]
    ) -> _Counts:
        place = {category: number for number, category in enumerate(categories)}
        said, there = np.zeros((len(pictures), len(categories))), np.zeros((len(pictures), len(categories)))
        for row, (picture, truth) in enumerate(zip(pictures, truths, strict=True)):
            said[row, [place[category] for category in set(picture.mentioned)]] = 1
            there[row, [place[category] for category in truth.objects]] = 1
        mentions = np.array([len(picture.mentioned) for picture in pictures], dtype=np.float64)
        hallucinated = np.array([len(picture.hallucinated) for picture in pictures], dtype=np.float64)
        return cls(said * there, said, there, mentions, hallucinated)

    def figures(self, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return each figure, (D,), of pictures that count ``weights`` (D, N) times."""
        hit, said, there = weights @ self.hit, weights @ self.said, weights @ self.there  # (D, Q)
        mentions, false = weights @ self.mentions, weights @ self.hallucinated  # (D,)
        present = there > 0

        def macro(values: NDArray[np.float64]) -> NDArray[np.float64]:
            mean: NDArray[np.float64] = _share((values * present).sum(1), present.sum(1))
            return mean

        return {
            "chair_i": _share(false, mentions),
            "chair_s": _share(weights @ (self.hallucinated > 0), weights.sum(1)),
            "precision": macro(_share(hit, said)),
            "recall": macro(_share(hit, there)),
            "f1": macro(_share(2 * hit, said + there)),
            "objects_per_caption": _share(mentions, weights.sum(1)),
        }


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return part / whole, 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def score_objects(
    captions: Mapping[int, str], truths: Sequence[PictureTruth], lexicon: Lexicon, seed: int = 0
) -> ObjectReport:
    """Measure a caption for each picture.

    CHAIRi = hallucinated mentions / all mentions; CHAIRs = captions with at least one / all captions (Rohrbach et al. 2018). A
    macro mean runs over the categories that are in the pictures; one that is never mentioned has precision 0.

    Args:
        captions: By image id.
        truths: The pictures.
        lexicon: Which words name what.
        seed: Seed of the bootstrap.

    Raises:
        CorpusError: There is no picture, a picture has no caption, or a caption no picture.
    """
    _refuse_mismatch(captions, truths)
    pictures = tuple(judge(captions[truth.image_id], truth, lexicon) for truth in truths)
    named = {category for picture in pictures for category in picture.mentioned}
    categories = sorted(named.union(*(truth.objects for truth in truths)))
    counts = _Counts.of(pictures, truths, categories)
    point = counts.figures(np.ones((1, len(pictures))))
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(len(pictures), np.full(len(pictures), 1 / len(pictures)), size=BOOTSTRAP_DRAWS)
    spread = counts.figures(draws.astype(np.float64))
    overall = {
        name: Estimate(float(value[0]), *(float(bound) for bound in np.percentile(spread[name], INTERVAL)))
        for name, value in point.items()
    }
    return ObjectReport(overall, _by_category(counts, categories), pictures)


def _by_category(counts: _Counts, categories: Sequence[str]) -> dict[str, CategoryScore]:
    scores = {}
    for number, category in enumerate(categories):
        hit, said, there = (float(values[:, number].sum()) for values in (counts.hit, counts.said, counts.there))
        scores[category] = CategoryScore(
            precision=hit / said if said else None,
            recall=hit / there if there else None,
            f1=2 * hit / (said + there),
            pictures=int(there),
            mentioned=int(said),
        )
    return scores


def _refuse_mismatch(captions: Mapping[int, str], truths: Sequence[PictureTruth]) -> None:
    ids = [truth.image_id for truth in truths]
    if not ids:
        raise CorpusError("There is no picture to measure captions on. Expected at least one. Choose another split.")
    missing = [image_id for image_id in ids if image_id not in captions]
    foreign = sorted(set(captions) - set(ids))
    if missing or foreign:
        raise CorpusError(
            f"{len(missing)} of {len(ids)} pictures have no caption {missing[:3]}, and {len(foreign)} captions belong to none of "
            f"them {foreign[:3]}. Expected one caption for each picture. Check that captions and pictures are of the same split."
        )
