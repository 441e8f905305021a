"""Macro precision, recall and F1 of frequent object words (Sun et al. 2022, who call the first one mAP).

For each word of a list, over pictures: the caption says it or not; it is in one of the picture's references or not. The figures of
the words are averaged with equal weight. Words are compared as they stand: "dog" and "dogs" are two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from capxai.data.vocabulary import tokenize
from capxai.errors import ConfigError, CorpusError, unknown_choice
from capxai.evaluate.bootstrap import Estimate, Weights, draws, estimate
from capxai.evaluate.lexicon import Lexicon
from capxai.evaluate.presence import Presence, PresenceScore, Table
from capxai.types import JsonObject

CORPUS = "corpus"
FREQUENT_WORDS = 25
"""How many words `most_frequent` takes if nothing else is said: as many as the paper's list for COCO."""


@dataclass(frozen=True)
class WordList:
    """Words to measure.

    Attributes:
        name: Where the list is from: "flickr30k" or "coco" (of the paper), or "corpus".
        words: The words, in lower case.
        lexicon: Finds the words in captions, so that "hot dog" has no "dog"; None looks for the bare words, as the paper does.
    """

    name: str
    words: tuple[str, ...]
    lexicon: Lexicon | None = field(default=None, repr=False)

    def spoken(self, text: str) -> set[str]:
        """Return which words of the list a text says."""
        said = tokenize(text) if self.lexicon is None else _names(text, self.lexicon)
        return set(said).intersection(self.words)


FLICKR30K = WordList(
    "flickr30k",
    ("man", "woman", "people", "shirt", "men", "girl", "dog", "boy", "street", "water", "child", "children", "ball", "hat", "women",
     "field", "background", "person", "building", "dogs"),
)  # fmt: skip
"""The 20 words of the paper's released code for Flickr30K (its ``flickr_frequent``)."""

COCO = WordList(
    "coco",
    ("man", "people", "woman", "street", "table", "person", "tennis", "field", "train", "plate", "cat", "room", "dog", "baseball",
     "bathroom", "sign", "bus", "building", "grass", "pizza", "food", "water", "picture", "kitchen", "clock"),
)  # fmt: skip
"""The 25 words of the paper's released code for COCO (its ``coco_frequent``); some name no object, as "tennis" and "room"."""

WORD_LISTS = {words.name: words for words in (FLICKR30K, COCO)}


def find_word_list(name: str) -> WordList:
    """Return a list of the paper by its name.

    Raises:
        ConfigError: There is no such list.
    """
    if name not in WORD_LISTS:
        raise ConfigError(unknown_choice("list of frequent words", name, [*WORD_LISTS, CORPUS]))
    return WORD_LISTS[name]


def most_frequent(references: Iterable[str], lexicon: Lexicon, number: int = FREQUENT_WORDS) -> WordList:
    """Find the words that name objects most often in (training) references; equally frequent ones by the alphabet.

    Args:
        references: Captions.
        lexicon: Which words name objects. Words of a name of several words stay together: "traffic light".
        number: How many words to take; fewer where there are not so many.

    Raises:
        CorpusError: No reference names an object.
    """
    counts = Counter(name for text in references for name in _names(text, lexicon))
    if not counts:
        raise CorpusError(
            "No reference names an object of the lexicon, so there is no frequent object word. Expected at least one. Check "
            "the references, or name one of the paper's lists."
        )
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return WordList(CORPUS, tuple(ranked[:number]), lexicon)


def _names(text: str, lexicon: Lexicon) -> list[str]:
    return [" ".join(tokenize(mention.text)) for mention in lexicon.mentions(text)]


@dataclass(frozen=True)
class FrequentReport:
    """How well frequent object words are predicted.

    Attributes:
        name: Name of the list.
        overall: ``macro_precision``, ``macro_recall``, ``macro_f1``: means over the words of the list that are in a reference; a word that
            no caption says has precision 0.
        words: Each word of the list; ``pictures`` counts those with the word in a reference, ``mentioned`` captions that say it.
    """

    name: str
    overall: dict[str, Estimate]
    words: dict[str, PresenceScore]
    _presence: Presence = field(repr=False, compare=False)

    def resampled(self, weights: Weights) -> dict[str, Table]:
        """Return each overall figure (D,) of the pictures as they count in each draw (D, N), for paired comparisons."""
        return _macro(self._presence, weights)

    def to_json(self) -> JsonObject:
        """Return the report as a JSON object."""
        return {
            "list": self.name,
            "overall": {name: estimate.to_json() for name, estimate in self.overall.items()},
            "words": {word: asdict(score) for word, score in self.words.items()},
        }


def score_frequent(
    captions: Mapping[int, str],
    references: Mapping[int, Sequence[str]],
    words: WordList,
    seed: int = 0,
    weights: Weights | None = None,
) -> FrequentReport:
    """Measure how well captions predict the words of a list.

    Args:
        captions: By image id.
        references: By image id, for the same pictures; their order is that of ``weights``.
        words: The list.
        seed: Seed of the bootstrap.
        weights: (D, N) draws that other metrics share; None draws with ``seed``, which gives the same ones.

    Raises:
        CorpusError: The pictures differ, a picture has no reference, or no word of the list is in any reference.
    """
    _refuse_mismatch(captions, references)
    said = [words.spoken(captions[number]) for number in references]
    there = [set().union(*map(words.spoken, texts)) for texts in references.values()]
    presence = Presence.of(words.words, said, there)
    if not presence.there.any():
        raise CorpusError(
            f"No reference has a word of the list '{words.name}' ({', '.join(words.words[:3])}, ...). Expected at least one. "
            f"Choose a list that belongs to the corpus: {', '.join([*WORD_LISTS, CORPUS])}."
        )
    point = _macro(presence, np.ones((1, len(said)), dtype=np.int32))
    spread = _macro(presence, draws(len(said), seed) if weights is None else weights)
    overall = {name: estimate(float(value[0]), spread[name]) for name, value in point.items()}
    return FrequentReport(words.name, overall, presence.scores(), presence)


def _macro(presence: Presence, weights: Weights) -> dict[str, Table]:
    return {f"macro_{name}": values for name, values in presence.macro(weights).items()}


def _refuse_mismatch(captions: Mapping[int, str], references: Mapping[int, Sequence[str]]) -> None:
    missing = [number for number in references if number not in captions]
    foreign = sorted(set(captions).difference(references))
    silent = [number for number, texts in references.items() if not texts]
    if not references or missing or foreign or silent:
        raise CorpusError(
            f"Of {len(references)} pictures {len(missing)} have no caption {missing[:3]} and {len(silent)} no reference {silent[:3]}, "
            f"and {len(foreign)} captions belong to none of them {foreign[:3]}. Expected a caption and a reference for each picture. Check "
            "that captions and references are of the same split."
        )
