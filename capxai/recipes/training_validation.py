"""Measures a captioner between two epochs: loss, CIDEr-D and, where the split has objects, the objects that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from capxai.data.corpus import Split
from capxai.data.vocabulary import tokenize
from capxai.errors import ConfigError
from capxai.evaluate.cider import CiderD
from capxai.evaluate.lexicon import Lexicon
from capxai.models.decoding import DecodingOptions
from capxai.recipes.object_scores import figures, score_captions
from capxai.recipes.training_data import Examples
from capxai.train.writing import Examiner
from capxai.types import Reporter

SAMPLES = 2
OBJECTS = "macro_f1"
MORE_IS_BETTER = {"loss": False, "cider": True, OBJECTS: True}


@dataclass(frozen=True)
class Figures:
    """What a validation found.

    Attributes:
        values: By name: "loss" (nats a word), "cider" (CIDEr-D, 10 at most) and those of the objects.
        samples: (reference, caption) of the first pictures.
    """

    values: dict[str, float]
    samples: tuple[tuple[str, str], ...] = ()

    def score(self, monitor: str) -> tuple[float, float]:
        """Return what epochs are compared by, more being better: the figure, and where it is equal, less loss."""
        value = self.values[monitor]
        return (value if MORE_IS_BETTER[monitor] else -value, -self.values["loss"])


@dataclass(frozen=True)
class Validation:
    """The first pictures of a split, to be looked at again and again.

    Attributes:
        examples: The split.
        most: At most so many of its pictures are looked at.
        lexicon: Names of objects.
    """

    examples: Examples
    most: int
    lexicon: Lexicon

    @cached_property
    def split(self) -> Split:
        """The pictures that are looked at."""
        return first_pictures(self.examples.split, self.most)

    @cached_property
    def _cider(self) -> CiderD:
        return read_references(self.split)

    def refuse_monitor(self, monitor: str) -> None:
        """Refuse to choose epochs by a figure that the split cannot give.

        Raises:
            ConfigError: It has no objects.
        """
        if monitor == OBJECTS and not self.split.has_objects:
            raise ConfigError(
                f"monitor is '{OBJECTS}', and the split '{self.split.name}' has no objects. Expected an instance file. Use --set "
                "monitor=cider, or add the instances."
            )

    def measure(self, examiner: Examiner, reporter: Reporter) -> Figures:
        """Look at the model."""
        count = len(self.split)
        with reporter.track("Validating", 2 * count) as advance:
            loss = examiner.loss(self.examples.references, count, advance)
            captions = examiner.captions(count, DecodingOptions(strategy="greedy"), advance)
        found = {"loss": round(loss, 4), **caption_figures(captions, self.split, self.lexicon, self._cider)}
        texts = [self.split.captions[picture.id][0] for picture in self.split.pictures[:SAMPLES]]
        return Figures(found, tuple(zip(texts, captions, strict=False)))


def caption_figures(
    captions: Sequence[str], split: Split, lexicon: Lexicon, cider: CiderD | None = None
) -> dict[str, float]:
    """Score a caption of each picture: CIDEr-D, and where the split has objects, the five figures of these.

    Args:
        captions: In the order of the pictures.
        split: The pictures with their references.
        lexicon: Names of objects.
        cider: The references of the split, where they have been read before.
    """
    scores = (cider or read_references(split)).score(range(len(captions)), [tokenize(text) for text in captions])
    found = {"cider": round(float(scores.mean()), 4)}
    if split.has_objects:
        found |= figures(score_captions(captions, split, lexicon))
    return found


def read_references(split: Split) -> CiderD:
    """Count the n-grams of the references of a split."""
    return CiderD([[tokenize(text) for text in split.captions[picture.id]] for picture in split.pictures])


def first_pictures(split: Split, most: int) -> Split:
    """Return the first pictures of a split as a split."""
    pictures = split.pictures[:most]
    return Split(
        split.name,
        pictures,
        {picture.id: split.captions[picture.id] for picture in pictures},
        {picture.id: split.objects[picture.id] for picture in pictures},
        split.categories,
        split.has_objects,
    )
