"""Where captions name objects, and whether these are in the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from capxai.evaluate.lexicon import Lexicon
from capxai.recipes.analysis.stream import Look


@dataclass(frozen=True)
class Mentioned:
    """An object word of a caption.

    Attributes:
        row: The picture's place in its batch.
        place: Place of the first word of the name in the caption, from 0: with it the model decides for the object ("traffic" of "traffic
            light").
        last: Place of the last word, with which the name is whole.
        text: The words.
        category: The category that they name.
        present: Whether the picture has one: a true positive; otherwise the word is hallucinated.
    """

    row: int
    place: int
    last: int
    text: str
    category: str
    present: bool


def mentions_of(look: Look, lexicon: Lexicon, objects: Mapping[int, frozenset[str]]) -> list[Mentioned]:
    """Return every mention of every caption of a batch, caption by caption; repeated mentions count each.

    Args:
        look: The pictures and their captions.
        lexicon: Names of objects.
        objects: By image id, the categories that are there.
    """
    vocabulary, lengths = look.readings.model.vocabulary.words, look.readings.lengths.tolist()
    found = []
    for row, (picture, tokens) in enumerate(zip(look.pictures, look.readings.tokens.tolist(), strict=True)):
        spoken = [vocabulary[token] for token in tokens[: lengths[row]]]
        there = objects[picture.id]
        for mention in lexicon.mentions(" ".join(spoken)):
            last = mention.position + mention.length - 1
            if last < len(spoken):
                text = " ".join(spoken[mention.position : last + 1])
                found.append(Mentioned(row, mention.position, last, text, mention.category, mention.category in there))
    return found
