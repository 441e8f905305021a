"""Measures the captions of one run on one split, and what the figures would be on other draws of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from capxai.data.corpus import Split
from capxai.errors import CorpusError
from capxai.evaluate.bootstrap import Weights, draws
from capxai.evaluate.lexicon import Lexicon, coco_lexicon
from capxai.evaluate.objects import PictureTruth, score_objects
from capxai.recipes.caption_metrics import MetricOptions, caption_metrics
from capxai.recipes.object_scores import split_truths

FIGURES = ("chair_i", "chair_s", "precision", "recall", "f1", "cider", "bleu_4", "objects_per_caption")
"""The figures of a study, in the order of its tables: shares in [0, 1], CIDEr-D up to 10, mentions a caption."""

DRAW_SEED = 0
TOKENIZER = "python"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """The figures of a set of captions.

    Attributes:
        values: By name; object figures are missing where the split has no objects.
        draws: (D,) each, of the same draws of pictures for whoever measures this split.
    """

    values: dict[str, float]
    draws: dict[str, Floats]


@dataclass(frozen=True)
class SplitJudge:
    """Measures captions of one split.

    Attributes:
        split: The pictures.
        lexicon: Names of objects.
    """

    split: Split
    lexicon: Lexicon

    @classmethod
    def of(cls, split: Split) -> SplitJudge:
        """Judge by COCO's object words.

        Raises:
            CorpusError: A picture has no reference, or there is none.
        """
        bare = [picture.id for picture in split.pictures if not split.captions[picture.id]]
        if bare or not split.pictures:
            found = f"pictures without a reference (image ids {bare[:3]})" if bare else "no picture"
            raise CorpusError(
                f"The split '{split.name}' has {found}. Expected pictures with references. Choose another split."
            )
        return cls(split, coco_lexicon())

    @cached_property
    def _weights(self) -> Weights:
        return draws(len(self.split), DRAW_SEED)

    @cached_property
    def _truths(self) -> list[PictureTruth]:
        return split_truths(self.split, self.lexicon)

    def measure(self, captions: Mapping[int, str]) -> Measured:
        """Measure one caption for each picture."""
        scores = caption_metrics(captions, self.split.captions, ("bleu", "cider"), MetricOptions(TOKENIZER)).scores
        values = {name: scores[name].value for name in ("cider", "bleu_4")}
        spread = {name: scores[name].resampled(self._weights) for name in values}
        if self.split.has_objects:
            report = score_objects(captions, self._truths, self.lexicon, DRAW_SEED, self._weights)
            values |= report.values()
            spread |= report.resampled(self._weights)
        return Measured(
            {name: values[name] for name in FIGURES if name in values},
            {name: np.asarray(spread[name], np.float64) for name in FIGURES if name in values},
        )
