"""How often the references of the training pictures name a category together with the words that spoke for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from capxai.data.vocabulary import tokenize
from capxai.evaluate.lexicon import Lexicon
from capxai.types import JsonObject


class Companion(NamedTuple):
    """What stands in a caption beside a category.

    Attributes:
        name: Another category, or a word that names no object.
        is_category: Whether it is a category: then any of its names counts.
    """

    name: str
    is_category: bool


@dataclass(frozen=True)
class CoOccurrence:
    """A category and a companion in references; a reference counts once, however often it names them.

    Attributes:
        both: References with both.
        companion: References with the companion.
        category: References with the category.
        references: All references.
    """

    both: int
    companion: int
    category: int
    references: int

    @property
    def given(self) -> float | None:
        """P(category | companion) = both / companion; None where no reference has the companion."""
        return self.both / self.companion if self.companion else None

    @property
    def base(self) -> float | None:
        """P(category) = category / references; None without references."""
        return self.category / self.references if self.references else None

    @property
    def lift(self) -> float | None:
        """P(category | companion) / P(category): above 1 where they attract each other; None where one of the two is not known or zero."""
        return self.given / self.base if self.given is not None and self.base else None

    def to_json(self) -> JsonObject:
        """Return counts, shares and lift."""
        return {
            "both": self.both,
            "companion": self.companion,
            "category": self.category,
            "references": self.references,
            "given": self.given,
            "base": self.base,
            "lift": self.lift,
        }


def companions(caption: str, position: int, relevance: Mapping[int, float], lexicon: Lexicon) -> dict[Companion, float]:
    """Return what stood before a word and spoke for it, the strongest first.

    Words that name an object together ("traffic light") are one companion, and so are repeated ones; their relevance adds up.

    Args:
        caption: Words with single spaces between them.
        position: Place of the explained word, from 0.
        relevance: Relevance of the word at each earlier place, in logit units.
        lexicon: Names of objects.

    Returns:
        Companions with more than zero relevance, in logit units.
    """
    words = caption.split()
    names = {
        place: Companion(mention.category, True)
        for mention in lexicon.mentions(caption)
        for place in range(mention.position, mention.position + mention.length)
    }
    found: Counter[Companion] = Counter()
    for place in range(position):
        found[names.get(place, Companion(words[place].lower(), False))] += relevance.get(place, 0.0)  # type: ignore[assignment]
    strongest = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return {companion: value for companion, value in strongest if value > 0}


def count_together(
    references: Iterable[str], pairs: Collection[tuple[str, Companion]], lexicon: Lexicon
) -> dict[tuple[str, Companion], CoOccurrence]:
    """Count categories, companions and both, in one pass over references.

    Args:
        references: Captions.
        pairs: Which categories and companions.
        lexicon: Names of objects.
    """
    categories, wanted = {category for category, _ in pairs}, {companion for _, companion in pairs}
    together: Counter[tuple[str, Companion]] = Counter()
    of_category: Counter[str] = Counter()
    of_companion: Counter[Companion] = Counter()
    total = 0
    for text in references:
        total += 1
        named = {mention.category for mention in lexicon.mentions(text)}
        there = {Companion(name, True) for name in named} | {Companion(word, False) for word in tokenize(text)}
        there &= wanted
        of_companion.update(there)
        of_category.update(named & categories)
        together.update((category, companion) for category in named & categories for companion in there)
    return {
        (category, companion): CoOccurrence(
            together[category, companion], of_companion[companion], of_category[category], total
        )
        for category, companion in pairs
    }
