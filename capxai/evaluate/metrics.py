"""BLEU, ROUGE-L and CIDEr of captions, and what every caption metric returns.

Captions come tokenized and joined by single spaces, the form that pycocoevalcap takes. BLEU and ROUGE-L are counted by its code,
CIDEr by `capxai.evaluate.cider`, which gives the same numbers faster.
Axes: N pictures, D draws, S statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capxai.evaluate.bootstrap import Weights, means, weighted_sums
from capxai.evaluate.cider import CiderD

BLEU_ORDERS = 4
_TINY, _SMALL = 1e-15, 1e-9  # as pycocoevalcap adds them to parts and wholes, so that nothing is divided by zero

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MetricScores:
    """A metric of a set of captions.

    Attributes:
        value: The metric of the whole set.
        per_picture: (N,) the metric of each caption.
        statistics: (N, S) what is summed over captions to compute the whole, or None where the whole is the mean of ``per_picture``.
        figure: Computes the metric from summed statistics, (D, S) -> (D,); None with ``statistics``.
    """

    value: float
    per_picture: Floats
    statistics: Floats | None = None
    figure: Callable[[Floats], Floats] | None = None

    def resampled(self, weights: Weights) -> Floats:
        """Compute the metric of the whole set for each draw of pictures.

        Args:
            weights: (D, N) how often each picture counts.

        Returns:
            (D,) float64.
        """
        if self.statistics is None or self.figure is None:
            return means(self.per_picture, weights)
        return self.figure(weighted_sums(self.statistics, weights))


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, MetricScores]:
    """Compute BLEU-1 to BLEU-4 (Papineni et al. 2002; the closest reference length, the shorter of two).

    Returns:
        "bleu_1" to "bleu_4", each in [0, 1]. The statistics are the matched n-grams (4), all n-grams (4), the length of the caption
        and that of its reference.
    """
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    rows = []
    for candidate, given in zip(candidates, references, strict=True):
        counted = cook_test(candidate, cook_refs(given), eff="closest")
        rows.append([*counted["correct"], *counted["guess"], counted["testlen"], counted["reflen"]])
    statistics = np.array(rows, np.float64)
    found = {}
    for order in range(1, BLEU_ORDERS + 1):
        figure = _Bleu(order)
        whole = float(figure(statistics.sum(axis=0, keepdims=True))[0])
        found[f"bleu_{order}"] = MetricScores(whole, figure(statistics), statistics, figure)
    return found


@dataclass(frozen=True)
class _Bleu:
    """BLEU up to an order, from statistics (D, 10)."""

    order: int

    def __call__(self, statistics: Floats) -> Floats:
        """Return the brevity penalty times the geometric mean of the precisions, (D,)."""
        matched, counted = statistics[:, : self.order], statistics[:, BLEU_ORDERS : BLEU_ORDERS + self.order]
        precision = np.prod((matched + _TINY) / (counted + _SMALL), axis=1) ** (1 / self.order)
        ratio = (statistics[:, 8] + _TINY) / (statistics[:, 9] + _SMALL)
        penalized: Floats = precision * np.exp(np.minimum(0.0, 1 - 1 / ratio))
        return penalized


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> MetricScores:
    """Compute ROUGE-L (Lin 2004): longest common subsequences; beta 1.2, the best precision and recall of any reference.

    Returns:
        The mean, and the score of each caption, in [0, 1].
    """
    from pycocoevalcap.rouge.rouge import Rouge

    scorer = Rouge()
    scores = [scorer.calc_score([one], list(given)) for one, given in zip(candidates, references, strict=True)]
    return _mean(np.array(scores, np.float64))


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> MetricScores:
    """Compute CIDEr (CIDEr-D, see `capxai.evaluate.cider`), with the document frequencies of these references.

    Returns:
        The mean, and the score of each caption, in [0, 10]. Draws keep the document frequencies of all pictures.
    """
    scorer = CiderD([[one.split() for one in given] for given in references])
    return _mean(scorer.score(range(len(candidates)), [one.split() for one in candidates]))


def _mean(scores: Floats) -> MetricScores:
    return MetricScores(float(np.mean(scores)), scores)
