"""Which words name which category, and where a caption mentions one. A table of surface forms: nothing is made singular when it is used."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from capxai.data.vocabulary import tokenize
from capxai.errors import ConfigError
from capxai.evaluate import lexicon_words as table
from capxai.evaluate.lexicon_plurals import plural, surface_forms
from capxai.evaluate.lexicon_words import COCO_NAMES

__all__ = ["COCO_NAMES", "NO_OBJECT", "Lexicon", "Mention", "Rules", "coco_lexicon", "plural"]

NO_OBJECT = ""
"""The "category" of a phrase that names no object although a word of it would, as "bus stop" is no bus."""

_ONE_FORM = "!"
_MOST_BETWEEN = 4
_POSSESSIVE = ("'s",)
# As `capxai.data.vocabulary.tokenize`, which lowers the case first: the places of words are the same.
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_TYPOGRAPHIC = str.maketrans({"’": "'", "‘": "'", "‐": "-", "‑": "-"})

Words = tuple[str, ...]


class Mention(NamedTuple):
    """A place of a caption that names an object.

    Attributes:
        position: Index of its first word, from 0, in the words that `capxai.data.vocabulary.tokenize` finds.
        category: The category that it names.
        length: Number of its words.
        text: The words as they stand in the caption.
        start: Offset of its first character in the caption (of composed characters, NFC).
        end: Offset after its last character.
    """

    position: int
    category: str
    length: int
    text: str = ""
    start: int = 0
    end: int = 0


@dataclass(frozen=True)
class Rules:
    """What a table of phrases cannot say.

    Attributes:
        qualifiers: Words that are no mention before a name of one of these categories, as "baby" before an elephant.
        between: Adjectives that may stand between the two.
        colors: Forms that are a color unless they end a noun phrase.
        dropped_beside: Forms that do not count in a caption that has one of these words, as "seat" beside "toilet".
    """

    qualifiers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    between: frozenset[str] = frozenset()
    colors: frozenset[str] = frozenset()
    dropped_beside: Mapping[str, frozenset[str]] = field(default_factory=dict)


class Lexicon:
    """A table from surface forms, singular and plural, to categories.

    Attributes:
        categories: The categories that can be mentioned, in the order of the table.
        sha256: Hash by which a report names the lexicon: of the file that it was read from, or of the table and its rules.
        notes: What a reader of the file should know.
    """

    def __init__(self, names: Mapping[str, Iterable[str]], rules: Rules | None = None) -> None:
        """Make the table.

        Args:
            names: Of each category, its names in the singular, to which the plurals are added; a name that ends in "!" stays as it is.
            rules: What no table can say; None for nothing.

        Raises:
            ConfigError: A form belongs to two categories.
        """
        forms: dict[Words, str] = {}
        for category, members in names.items():
            for name in members:
                _add(forms, name, category)
        self._take(forms, tuple(category for category in names if category != NO_OBJECT), rules or Rules())

    @classmethod
    def of_forms(
        cls, forms: Mapping[Words, str], categories: Sequence[str], rules: Rules, sha256: str, notes: Sequence[str] = ()
    ) -> Lexicon:
        """Take over a table that is complete, by the words of each form in lower case; `NO_OBJECT` hides a form."""
        lexicon = cls({})
        lexicon._take(forms, tuple(categories), rules)
        lexicon.sha256, lexicon.notes = sha256, tuple(notes)
        return lexicon

    def _take(self, forms: Mapping[Words, str], categories: tuple[str, ...], rules: Rules) -> None:
        self.categories = categories
        self.notes: tuple[str, ...] = ()
        self._forms, self._rules = dict(forms), rules
        lengths: dict[str, set[int]] = {}
        for words in forms:
            lengths.setdefault(words[0], set()).add(len(words))
        self._lengths = {word: tuple(sorted(found, reverse=True)) for word, found in lengths.items()}
        self.sha256 = self._hash()

    def _hash(self) -> str:
        rules = {
            "qualifiers": {word: sorted(found) for word, found in self._rules.qualifiers.items()},
            "between": sorted(self._rules.between),
            "colors": sorted(self._rules.colors),
            "dropped_beside": {word: sorted(found) for word, found in self._rules.dropped_beside.items()},
        }
        forms = sorted((" ".join(words), category) for words, category in self._forms.items())
        return hashlib.sha256(json.dumps([self.categories, forms, rules], sort_keys=True).encode()).hexdigest()

    def __len__(self) -> int:
        """Count the surface forms."""
        return len(self._forms)

    def category(self, name: str) -> str | None:
        """Return the category that a name stands for by itself, as the name of a category of an instance file; None if there is none."""
        return self._forms.get(tuple(tokenize(name))) or (name if name in self.categories else None)

    def beginnings(self) -> dict[str, tuple[str, ...]]:
        """Return the first words of all names, each with the categories whose names begin with it, sorted."""
        found: dict[str, set[str]] = {}
        for words, category in self._forms.items():
            if category:
                found.setdefault(words[0], set()).add(category)
        return {word: tuple(sorted(categories)) for word, categories in sorted(found.items())}

    def mentions(self, caption: str) -> list[Mention]:
        """Find the objects that a caption names, from left to right, the longest form first; a word counts once.

        "a hot dog near traffic lights" mentions a hot dog (no dog) and a traffic light. A possessive counts as its word ("the man's hat").
        """
        text = unicodedata.normalize("NFC", caption)
        places = list(_WORD.finditer(text.translate(_TYPOGRAPHIC)))
        words = [place.group().lower() for place in places]
        found: list[Mention] = []
        position = 0
        while position < len(words):
            length, category = self._match(words, position)
            if category:
                start, end = places[position].start(), places[position + length - 1].end()
                found.append(Mention(position, category, length, text[start:end], start, end))
            position += length
        return self._without_dropped(found, words) if self._rules.dropped_beside else found

    def _match(self, words: list[str], position: int) -> tuple[int, str]:
        """Return how many words to take together and their category; `NO_OBJECT` where they name nothing."""
        length, category = self._longest(words, position)
        if length == 1:
            word = words[position]
            if word in self._rules.qualifiers and (taken := self._qualifies(words, position)):
                return taken, NO_OBJECT
            if category and word in self._rules.colors and _is_color(words, position):
                return 1, NO_OBJECT
        return length, category

    def _longest(self, words: list[str], position: int) -> tuple[int, str]:
        """Return the length of the longest form at a position and its category; (1, NO_OBJECT) where there is none."""
        word = words[position]
        lengths = self._lengths.get(word, ())
        for length in lengths:
            if position + length <= len(words):
                category = self._form(words[position : position + length])
                if category is not None:
                    return length, category
        # "man's": the first word of a form of one word may be a possessive, of a longer form only the last one.
        category = self._forms.get((word[:-2],)) if word.endswith(_POSSESSIVE) else None
        return 1, category or NO_OBJECT

    def _form(self, words: list[str]) -> str | None:
        exact = self._forms.get(tuple(words))
        if exact is None and words[-1].endswith(_POSSESSIVE):
            return self._forms.get((*words[:-1], words[-1][:-2]))
        return exact

    def _qualifies(self, words: list[str], position: int) -> int:
        """Return how many words from a qualifier on only describe the animal or vehicle that follows them; 0 if none follows.

        "adult and baby elephants": "and" may stand before another qualifier.
        """
        qualifiers, categories = self._rules.qualifiers, self._rules.qualifiers[words[position]]
        for place in range(position + 1, min(position + 2 + _MOST_BETWEEN, len(words))):
            if self._longest(words, place)[1] in categories:
                return place - position
            joins = words[place] == "and" and place + 1 < len(words) and words[place + 1] in qualifiers
            if not (joins or words[place] in qualifiers or words[place] in self._rules.between):
                return 0
        return 0

    def _without_dropped(self, found: list[Mention], words: list[str]) -> list[Mention]:
        dropped = self._rules.dropped_beside
        return [
            mention
            for mention in found
            if mention.length > 1 or dropped.get(words[mention.position], frozenset()).isdisjoint(words)
        ]


def _add(forms: dict[Words, str], name: str, category: str) -> None:
    for form in (name[:-1],) if name.endswith(_ONE_FORM) else surface_forms(name):
        words = tuple(tokenize(form))
        if not words:
            raise ConfigError(
                f"The lexicon gives '{name}' to '{category}'. Expected a name of letters. Write it out or leave it away."
            )
        known = forms.setdefault(words, category)
        if known != category:
            raise ConfigError(
                f"The lexicon gives '{form}' to '{known}' and to '{category}'. Expected one category for each form. "
                "Take it from one of them."
            )


def _is_color(words: list[str], position: int) -> bool:
    """Tell whether a word that is a fruit or a color is a color: it stands before a noun, or after "in", or with another color."""
    before = words[position - 1] if position else ""
    after = words[position + 1 : position + 3]
    if before in table.BEFORE_A_COLOR or (after and after[0] not in table.AFTER_A_NOUN):
        return True
    beside = after[:1] in (["and"], ["or"]) and after[1:] and after[1] in table.COLORS
    return bool(beside) or (before in ("and", "or") and position > 1 and words[position - 2] in table.COLORS)


@cache
def coco_lexicon() -> Lexicon:
    """Return the lexicon of the 80 COCO categories (`capxai.evaluate.lexicon_words`)."""
    names = {name: (name, *_listed(table.SYNONYMS[name])) for name in COCO_NAMES}
    rules = Rules(table.QUALIFIERS, table.BETWEEN, frozenset({"orange"}))
    return Lexicon({**names, NO_OBJECT: _listed(table.NO_OBJECT_PHRASES)}, rules)


def _listed(names: str) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in names.split(",") if name.strip())
