"""English function words: LRP inference leaves them as they are, because they say nothing of the picture."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from capxai.data.vocabulary import Vocabulary, tokenize
from capxai.errors import ConfigError

_BY_KIND = (
    "a an the this that these those",
    "i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers herself",
    "it its itself they them their theirs themselves who whom whose which what",
    "am is are was were be been being has have had having do does did doing will would shall should can could may might must",
    "and or but nor so if because as until while than then though although",
    "of at by for with about against between into through during before after above below to from up down in out on off over under",
    "near onto upon next beside along around across behind inside outside",
    "again further once here there when where why how all any both each few more most other some such no not only own same too very",
    "just now also ever s t don",
)
STOP_WORDS: frozenset[str] = frozenset(word for kind in _BY_KIND for word in kind.split())
"""Determiners, pronouns, auxiliaries, conjunctions, prepositions, adverbs of place and degree. No numerals, no content words."""


def neutral_words(vocabulary: Vocabulary, words: frozenset[str] = STOP_WORDS) -> Tensor:
    """Return (V,) bool: true for specials and for the given words, in lower or upper case."""
    specials = vocabulary.specials
    return torch.tensor(
        [place in specials or word.lower() in words for place, word in enumerate(vocabulary.words)], dtype=torch.bool
    )


def read_stop_words(path: Path) -> frozenset[str]:
    """Read a list of words, separated by spaces or line ends; a line that begins with # is a remark.

    Raises:
        ConfigError: The file cannot be read, or has no words.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"The stop words '{path}' cannot be read ({reason}). Expected a text file with one word a line. Check the path, or leave it "
            "out to take the built-in list."
        ) from error
    words = frozenset(word for line in lines if not line.lstrip().startswith("#") for word in tokenize(line))
    if not words:
        raise ConfigError(
            f"'{path}' has no words. Expected one word a line. To re-weight every word, use --set all_words=true instead."
        )
    return words
