"""N-grams as numbers, so that sentences are counted and compared by array operations.

Axes: L places of tokens, all sentences in one row; E entries, one for each different n-gram of each sentence.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Sentence = Sequence[Hashable]

UNSEEN = -1
"""The number of an n-gram that the table does not hold."""


@dataclass(frozen=True)
class Entries:
    """How often sentences hold their n-grams of one order; ordered by sentence, and within it by n-gram.

    Attributes:
        sentences: (E,) number of the sentence.
        grams: (E,) number of the n-gram in the table, or `UNSEEN`; those come last in their sentence.
        counts: (E,) how often the sentence holds it, 1 or more.
    """

    sentences: Integers
    grams: Integers
    counts: Integers


class NGramTable:
    """The different n-grams, n = 1 to ``orders``, of given sentences.

    The number of (w1 ... wn) is found from the pair (number of w1 ... wn-1, number of wn), so tokens may be anything
    that can be hashed, and no n-gram is ever an object of its own.
    """

    def __init__(self, sentences: Sequence[Sentence], orders: int) -> None:
        """Collect the n-grams of the sentences."""
        self.orders = orders
        self._words: dict[Hashable, int] = {}
        for sentence in sentences:
            for word in sentence:
                self._words.setdefault(word, len(self._words))
        self._pairs: list[Integers] = []  # for n = 2, 3 ...: sorted; the place of a pair is the number of its n-gram
        tokens, owners = self._encode(sentences)
        grams, places = tokens, np.arange(len(tokens))
        for order in range(2, orders + 1):
            goes_on = _goes_on(places, owners, order)
            places = places[goes_on]
            pairs, inverse = np.unique(
                grams[goes_on] * len(self._words) + tokens[places + order - 1], return_inverse=True
            )
            self._pairs.append(pairs)
            grams = inverse.reshape(-1).astype(np.int64)

    def size(self, order: int) -> int:
        """Count the different n-grams of an order."""
        return len(self._words) if order == 1 else len(self._pairs[order - 2])

    def count(self, sentences: Sequence[Sentence]) -> list[Entries]:
        """Count the n-grams of sentences, also those that are not in the table.

        Returns:
            The entries of order 1, 2 ... ``orders``.
        """
        tokens, owners = self._encode(sentences)
        places = np.arange(len(tokens))
        grams = tokens  # numbers below `size` are the table's; others tell unseen n-grams apart
        found = [self._entries(grams, owners, 1)]
        for order in range(2, self.orders + 1):
            goes_on = _goes_on(places, owners, order)
            places = places[goes_on]
            grams = self._extend(grams[goes_on], tokens[places + order - 1], order)
            found.append(self._entries(grams, owners[places], order))
        return found

    def _encode(self, sentences: Sequence[Sentence]) -> tuple[Integers, Integers]:
        """Return the number of every token (unseen words get numbers of their own) and of the sentence it is in, both (L,)."""
        lengths = np.fromiter((len(sentence) for sentence in sentences), np.int64, len(sentences))
        flat = [word for sentence in sentences for word in sentence]
        tokens = np.fromiter((self._words.get(word, UNSEEN) for word in flat), np.int64, len(flat))
        strangers: dict[Hashable, int] = {}
        for place in np.flatnonzero(tokens == UNSEEN):
            tokens[place] = len(self._words) + strangers.setdefault(flat[place], len(strangers))
        return tokens, np.repeat(np.arange(len(sentences)), lengths)

    def _extend(self, prefixes: Integers, words: Integers, order: int) -> Integers:
        """Return the numbers of the n-grams made of an (n-1)-gram and a word each."""
        table = self._pairs[order - 2]
        numbers = np.full(len(words), UNSEEN, np.int64)
        hopeful = np.flatnonzero((prefixes < self.size(order - 1)) & (words < len(self._words)))
        wanted = prefixes[hopeful] * len(self._words) + words[hopeful]
        numbers[hopeful] = find(table, wanted)
        unseen = numbers == UNSEEN
        if unseen.any():
            pairs = prefixes[unseen] * (int(words.max()) + 1) + words[unseen]
            numbers[unseen] = len(table) + np.unique(pairs, return_inverse=True)[1].reshape(-1)
        return numbers

    def _entries(self, grams: Integers, owners: Integers, order: int) -> Entries:
        stride = int(grams.max(initial=0)) + 1
        pairs, counts = np.unique(owners * stride + grams, return_counts=True)
        sentences, own = np.divmod(pairs, stride)
        return Entries(sentences, np.where(own < self.size(order), own, UNSEEN), counts.astype(np.int64))


def find(table: Integers, wanted: Integers) -> Integers:
    """Return the place of each wanted number in a sorted table, or `UNSEEN`."""
    if not len(table):
        return np.full(len(wanted), UNSEEN, np.int64)
    places = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return np.where(table[places] == wanted, places, UNSEEN)


def _goes_on(places: Integers, owners: Integers, order: int) -> NDArray[np.bool_]:
    """Tell at which places the n-gram of this order still lies within its sentence."""
    last = np.minimum(places + order - 1, len(owners) - 1)
    inside: NDArray[np.bool_] = (places + order - 1 < len(owners)) & (owners[last] == owners[places])
    return inside
