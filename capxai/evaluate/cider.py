"""CIDEr-D: how much of a caption the annotators' captions agree with, rare phrases counting most.

Vedantam, Zitnick and Parikh, "CIDEr: Consensus-based Image Description Evaluation" (CVPR 2015), the variant D of section 5:

    g_n(c)      = tf-idf vector of the n-grams of c:  count * (log N - log max(1, number of pictures whose references hold it))
    CIDEr-D_n   = 10 / R * sum_r exp(-(l_c - l_r)^2 / (2 sigma^2)) * sum min(g_n(c), g_n(r)) g_n(r) / (|g_n(c)| |g_n(r)|)
    CIDEr-D     = mean of CIDEr-D_n over n = 1 ... 4

with sigma = 6, as pycocoevalcap computes under the name of CIDEr.
Axes: N pictures, B candidates, P pairs of a candidate and one of the references of its picture, E entries.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capxai.errors import CorpusError
from capxai.evaluate.ngrams import UNSEEN, Entries, Integers, NGramTable, Sentence, find

ORDERS = 4
SIGMA = 6.0
SCALE = 10.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many pictures n-grams occur, found from other references than those compared with.

    Attributes:
        counts: For n-grams as tuples of tokens, in the references of how many pictures they occur.
        documents: Number of pictures that were looked at, 1 or more.
    """

    counts: Mapping[tuple[Hashable, ...], float]
    documents: float


@dataclass(frozen=True)
class _References:
    """The tf-idf vectors of all references, of one order.

    Attributes:
        keys: (E,) number of the reference * number of different n-grams + number of the n-gram; sorted.
        weights: (E,) tf-idf.
        norms: (R,) length of each reference's vector.
    """

    keys: Integers
    weights: Floats
    norms: Floats


@dataclass(frozen=True)
class _Pairs:
    """Candidates put beside the references of their pictures.

    Attributes:
        candidates: (P,) number of the candidate, ascending.
        references: (P,) number of the reference.
        first: (B,) first pair of each candidate.
        count: (B,) number of references of each candidate.
    """

    candidates: Integers
    references: Integers
    first: Integers
    count: Integers


class CiderD:
    """Scores candidates against the references of N pictures, which are read once.

    With the frequencies of the given references this equals ``pycocoevalcap.cider.cider.Cider``; a score is 10 at most.
    """

    def __init__(
        self, references: Sequence[Sequence[Sentence]], frequencies: DocumentFrequencies | None = None
    ) -> None:
        """Count the n-grams of the references.

        Args:
            references: For each picture its references, each a sequence of tokens. Tokens are anything that can be hashed.
            frequencies: Document frequencies from elsewhere; those of ``references`` by default.

        Raises:
            CorpusError: There is no picture, or one has no reference, or the frequencies count no picture.
        """
        _refuse_unusable(references, frequencies)
        sentences = [sentence for of_picture in references for sentence in of_picture]
        given = frequencies.counts if frequencies else {}
        self._table = NGramTable([*sentences, *given], ORDERS)
        counted = self._table.count(sentences)
        self._count = np.array([len(of_picture) for of_picture in references], np.int64)
        self._first = np.concatenate(([0], np.cumsum(self._count)))
        self._lengths = _lengths(sentences)
        pictures = np.repeat(np.arange(len(references)), self._count)
        if frequencies:
            found, documents = self._given_frequencies(frequencies.counts), frequencies.documents
        else:
            found, documents = self._own_frequencies(counted, pictures), float(len(references))
        # An n-gram seen nowhere weighs as much as one seen in a single picture; its number is -1, the last place.
        self._weights = [np.log(documents) - np.log(np.maximum(1.0, np.append(one, 1.0))) for one in found]
        self._references = [self._weigh(entries, order) for order, entries in enumerate(counted, 1)]

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self._count)

    def score(self, places: Sequence[int] | Integers, candidates: Sequence[Sentence]) -> Floats:
        """Score captions.

        Args:
            places: For each candidate the place of its picture among those given at construction. Any may be there several times.
            candidates: Tokens of each candidate. An empty one scores 0.

        Returns:
            (B,) float64 in [0, 10].

        Raises:
            ValueError: There are not as many places as candidates, or no such picture.
        """
        pictures = np.asarray(places, np.int64).reshape(-1)
        if len(pictures) != len(candidates):
            raise ValueError(f"{len(pictures)} places for {len(candidates)} candidates")
        if ((pictures < 0) | (pictures >= len(self))).any():
            raise ValueError(f"places from {pictures.min()} to {pictures.max()}, of {len(self)} pictures")
        pairs = self._pair(pictures)
        apart = _lengths(candidates)[pairs.candidates] - self._lengths[pairs.references]
        similarity = np.zeros(len(apart))
        for order, entries in enumerate(self._table.count(candidates), 1):
            similarity += self._compare(entries, pairs, order)
        similarity *= np.exp(-(apart**2) / (2 * SIGMA**2))
        summed = np.bincount(pairs.candidates, similarity, len(candidates))
        return SCALE / ORDERS * summed / pairs.count

    def _pair(self, pictures: Integers) -> _Pairs:
        count = self._count[pictures]
        candidates, inner = _spread(count)
        return _Pairs(candidates, self._first[pictures][candidates] + inner, np.cumsum(count) - count, count)

    def _compare(self, entries: Entries, pairs: _Pairs, order: int) -> Floats:
        """Return the clipped cosine of every pair's vectors of one order, (P,)."""
        weights = entries.counts * self._weights[order - 1][entries.grams]
        norms = np.sqrt(np.bincount(entries.sentences, weights**2, len(pairs.count)))
        seen = np.flatnonzero(entries.grams != UNSEEN)
        chosen, inner = _spread(pairs.count[entries.sentences[seen]])
        chosen = seen[chosen]
        pair = pairs.first[entries.sentences[chosen]] + inner
        there = self._references[order - 1]
        place = find(there.keys, pairs.references[pair] * self._table.size(order) + entries.grams[chosen])
        hit = place != UNSEEN
        theirs = there.weights[place[hit]]
        products = np.minimum(weights[chosen[hit]], theirs) * theirs
        inner_product = np.bincount(pair[hit], products, len(pairs.candidates))
        scale = norms[pairs.candidates] * there.norms[pairs.references]
        return inner_product / np.where(scale > 0, scale, 1.0)

    def _own_frequencies(self, counted: Sequence[Entries], pictures: Integers) -> list[Floats]:
        """Count for each n-gram of the table the pictures whose references hold it."""
        found = []
        for order, entries in enumerate(counted, 1):
            size = self._table.size(order)
            grams = np.unique(pictures[entries.sentences] * size + entries.grams) % size
            found.append(np.bincount(grams, minlength=size).astype(np.float64))
        return found

    def _given_frequencies(self, counts: Mapping[tuple[Hashable, ...], float]) -> list[Floats]:
        found = []
        for order in range(1, ORDERS + 1):
            own = {gram: count for gram, count in counts.items() if len(gram) == order}
            entries = self._table.count(list(own))[order - 1]  # a sentence of n words has one n-gram
            frequencies = np.zeros(self._table.size(order))
            frequencies[entries.grams] = list(own.values())
            found.append(frequencies)
        return found

    def _weigh(self, entries: Entries, order: int) -> _References:
        weights = entries.counts * self._weights[order - 1][entries.grams]
        norms = np.sqrt(np.bincount(entries.sentences, weights**2, len(self._lengths)))
        return _References(entries.sentences * self._table.size(order) + entries.grams, weights, norms)


def _lengths(sentences: Sequence[Sentence]) -> Floats:
    """Return how long sentences are, in bigrams as pycocoevalcap counts: an empty one is as long as one of a single word."""
    return np.array([max(0, len(sentence) - 1) for sentence in sentences], np.float64)


def _spread(counts: Integers) -> tuple[Integers, Integers]:
    """Return 0 ... n-1, each as often as its count says, and beside it 0 ... count-1."""
    outer = np.repeat(np.arange(len(counts)), counts)
    return outer, np.arange(len(outer)) - np.repeat(np.cumsum(counts) - counts, counts)


def _refuse_unusable(references: Sequence[Sequence[Sentence]], frequencies: DocumentFrequencies | None) -> None:
    if not references:
        raise CorpusError("CIDEr was given no picture. Expected the references of at least one. Check the image list.")
    bare = next((place for place, of_picture in enumerate(references) if not of_picture), None)
    if bare is not None:
        raise CorpusError(
            f"Picture number {bare} (counted from 0) has no reference. CIDEr expects one or more for every picture. "
            "Leave the picture out, or give its captions."
        )
    if frequencies and frequencies.documents < 1:
        raise CorpusError(
            f"The document frequencies were counted over {frequencies.documents} pictures. Expected 1 or more. Count them again."
        )
