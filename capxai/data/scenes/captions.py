"""Five sentences about a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CAPTIONS_PER_PICTURE = 5
P_COLOR = 0.28
P_PLACE = 0.36
P_PLACE_FIRST = 0.15
P_SWAP = 0.12
P_OMIT = 0.1
MOST_OMITTING = 2
"""Captions of a picture that may leave out the least prominent of three objects."""

OPENINGS: tuple[str, ...] = (
    "",
    "there is",
    "we can see",
    "you can see",
    "a picture of",
    "a photo of",
    "an image of",
    "a view of",
    "here is",
    "this shows",
    "look at",
)
P_BARE = 0.8
"""Chance that one of the captions of a picture has no opening."""

JOINS: dict[int, tuple[str, ...]] = {
    1: ("{0}",),
    2: ("{0} and {1}", "{0} next to {1}", "{0} near {1}", "{0} with {1}", "{0} beside {1}"),
    3: (
        "{0} and {1} near {2}",
        "{0} with {1} and {2}",
        "{0} next to {1} and {2}",
        "{0} near {1} with {2}",
        "{0} beside {1} and {2}",
        "{0} and {1} with {2}",
    ),
}


@dataclass(frozen=True)
class Mention:
    """An object as captions may name it: its words, and its color or an empty string where none is to be said."""

    words: str
    color: str


def _phrase(generator: np.random.Generator, mention: Mention) -> str:
    with_color = bool(mention.color) and generator.random() < P_COLOR
    words = f"{mention.color} {mention.words}" if with_color else mention.words
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _openings(generator: np.random.Generator) -> list[str]:
    order = [OPENINGS[1 + int(choice)] for choice in generator.permutation(len(OPENINGS) - 1)[:CAPTIONS_PER_PICTURE]]
    if generator.random() < P_BARE:
        order[int(generator.integers(CAPTIONS_PER_PICTURE))] = OPENINGS[0]
    return order


def _sentence(generator: np.random.Generator, opening: str, mentions: Sequence[Mention], place: str) -> str:
    joins = JOINS[len(mentions)]
    body = joins[int(generator.integers(len(joins)))].format(*(_phrase(generator, mention) for mention in mentions))
    sentence = f"{opening} {body}".strip()
    if generator.random() >= P_PLACE:
        return sentence
    first = opening in ("there is", "we can see", "you can see") and generator.random() < P_PLACE_FIRST
    return f"{place} {sentence}" if first else f"{sentence} {place}"


def write_captions(generator: np.random.Generator, mentions: Sequence[Mention], place: str) -> tuple[str, ...]:
    """Write five different captions.

    Args:
        generator: Source of randomness.
        mentions: One to three objects, the most prominent first.
        place: What to say of the background, as "on the grass".

    Returns:
        Lower-case sentences without punctuation. At least three of them mention every object; each mentions at least
        two where there are two.
    """
    captions: list[str] = []
    omitting = 0
    for opening in _openings(generator):
        named = list(mentions)
        if len(named) == 3 and omitting < MOST_OMITTING and generator.random() < P_OMIT:
            named.pop()
            omitting += 1
        if len(named) > 1 and generator.random() < P_SWAP:
            named[0], named[1] = named[1], named[0]
        captions.append(_sentence(generator, opening, named, place))
    return tuple(captions)
