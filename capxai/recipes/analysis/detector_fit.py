"""Calibrates detectors of hallucinated words on measured words, one for each choice of groups of numbers.

Axes: n words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capxai.errors import CorpusError
from capxai.evaluate.calibration import best_threshold
from capxai.evaluate.logistic import Chosen, fit_chosen, picture_folds, sigmoid
from capxai.recipes.analysis.detector_features import CATEGORY, GROUPS, LANGUAGE
from capxai.recipes.analysis.detector_file import Detector, known_categories
from capxai.recipes.analysis.detector_prototypes import Prototypes, calibration_scores
from capxai.recipes.analysis.detector_words import DetectorWords, design

FEWEST = 5
"""Words of a class without which nothing is calibrated."""
EVIDENCE = tuple(name for name in GROUPS if name != LANGUAGE)
"""All groups that ask for evidence in the picture. What a model expects beside an object, and which category a word names, tell much about
a split in which companions are parted by design, and mislead on another."""
EVERYTHING = (*GROUPS, CATEGORY)
TOGETHER = "together"
COMBINED: dict[str, tuple[str, ...]] = {
    "all but prototypes": tuple(name for name in EVIDENCE if name != "prototypes"),
    "with language and category": EVERYTHING,
}


@dataclass(frozen=True)
class Calibrated:
    """A detector and how it did on words that it had not seen of its own splits.

    Attributes:
        detector: Fitted to all words of the calibration splits.
        left_out: (n,) probability that each calibration word is hallucinated, by regressions that left its picture out.
        losses: Mean negative log-likelihood of left-out words by strength of the penalty.
    """

    detector: Detector
    left_out: NDArray[np.float64]
    losses: dict[float, float]


@dataclass(frozen=True)
class Calibration:
    """The words to calibrate on, prepared once for all detectors.

    Attributes:
        words: The words.
        folds: (n,) with which part each is left out.
        prototypes: Of all words.
        similar: (n, 2) scores of each word by prototypes of the other folds.
        weights_sha256: The weights of the model.
        lexicon_sha256: The lexicon.
        eps: Stabilizer of the epsilon rule.
    """

    words: DetectorWords
    folds: NDArray[np.int64]
    prototypes: Prototypes
    similar: NDArray[np.float64]
    weights_sha256: str
    lexicon_sha256: str
    eps: float

    @classmethod
    def of(cls, words: DetectorWords, seed: int, hashes: tuple[str, str], eps: float) -> Calibration:
        """Deal the pictures into folds and average the regions of true words.

        Args:
            words: The words.
            seed: Of the folds.
            hashes: Of the weights and of the lexicon.
            eps: Stabilizer of the epsilon rule.

        Raises:
            CorpusError: There are too few true or hallucinated words.
        """
        folds = picture_folds(words.pictures, seed)
        refuse_too_few(words, folds)
        similar = calibration_scores(words.regions, words.categories, words.present, folds)
        prototypes = Prototypes.fit(words.regions, words.categories, words.present)
        return cls(words, folds, prototypes, similar, *hashes, eps)

    def fit(self, groups: Sequence[str], threshold: float | None = None) -> Calibrated | None:
        """Calibrate a detector that reads some groups; None where the model has none of their numbers.

        The strength of the penalty and the threshold, unless it is given, go by words that were left out. Prototypes of the folds that a
        regression is fitted to have seen words of the fold that is left out, as examples of their own category: the figures of left-out
        words are a little too good, those of another split are not.

        Args:
            groups: Names of groups.
            threshold: Least probability at which a word is doubtful; None takes the one with the largest F1 of hallucinated words.
        """
        categories = known_categories(groups, self.words, CATEGORY)
        read = design(self.words, groups, self.similar, categories)
        if not read.names:
            return None
        chosen: Chosen = fit_chosen(read.names, read.table, self.words.present, self.folds)
        left_out = sigmoid(-chosen.left_out)
        least = best_threshold(left_out, self.words.hallucinated) if threshold is None else threshold
        detector = Detector(
            self.weights_sha256,
            self.lexicon_sha256,
            self.eps,
            tuple(groups),
            chosen.model,
            self.prototypes,
            categories,
            least,
        )
        return Calibrated(detector, left_out, chosen.losses)


def refuse_too_few(words: DetectorWords, folds: NDArray[np.int64]) -> None:
    """Refuse words of which nothing can be learned.

    Raises:
        CorpusError: A class has fewer than `FEWEST` words, or all of it is in one fold.
    """
    true, false = int(words.present.sum()), int(words.hallucinated.sum())
    spread = all(len(set(folds[side].tolist())) > 1 for side in (words.present, words.hallucinated) if side.any())
    if min(true, false) >= FEWEST and spread:
        return
    raise CorpusError(
        f"The calibration splits have {true} true and {false} hallucinated object words in {words.count} pictures. Expected at least "
        f"{FEWEST} of both, in several pictures. Name more splits with --calibrate, or look at more pictures of them "
        "(--set calibration_pictures=0 takes all)."
    )
