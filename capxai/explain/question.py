"""The question about one word of a caption: why it, and why not another."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from capxai.data.vocabulary import Vocabulary
from capxai.errors import RelevanceError, VocabularyError
from capxai.explain.attribution import Reading, Words
from capxai.explain.methods import METHODS

NO_CONTRAST = ("attention", "random")
"""Methods that do not start from a logit, so that there is no logit to set another against."""


@dataclass(frozen=True)
class Question:
    """Asks about one word of a caption.

    Attributes:
        why: Vocabulary id of the word.
        against: Id of the word that it is set against, or None.
    """

    why: int
    against: int | None = None

    def words(self, reading: Reading) -> Words:
        """Find the word in a caption, where it stands first.

        Raises:
            VocabularyError: The caption does not say it; the message names what it says.
        """
        tokens = reading.tokens.tolist()
        known = reading.model.vocabulary.words
        if self.why not in tokens:
            spoken = [known[token] for token in tokens]
            raise VocabularyError(
                f"The caption '{' '.join(spoken)}' does not say '{known[self.why]}'. Expected one of its words "
                f"({', '.join(dict.fromkeys(spoken))}) after --why. Ask about one of them, or give a caption that says it with --caption."
            )

        def one(number: int) -> torch.Tensor:
            return torch.tensor([number], device=reading.tokens.device)

        place = tokens.index(self.why)
        return Words(one(0), one(place), one(self.why), None if self.against is None else one(self.against))


def asked(vocabulary: Vocabulary, method: str, why: str | None, against: str | None) -> Question | None:
    """Return the question about one word; None where all words are to be explained.

    Args:
        vocabulary: The words that the model knows.
        method: Name of the method.
        why: A word, or None.
        against: A word that could have been said instead, or None.

    Raises:
        VocabularyError: A word is none, several, or unknown; both are the same; or there is only ``against``.
        RelevanceError: The method does not tell one word from another.
    """
    if why is None:
        if against is None:
            return None
        raise VocabularyError(
            f"'{against}' was given after --not without a word to set it against. Expected a word of the caption after --why. "
            f"Add it: --why WORD --not {against}"
        )
    asked_for = _single(vocabulary, why, "--why")
    if against is None:
        return Question(asked_for)
    refuse_contrast(method)
    other = _single(vocabulary, against, "--not")
    if other == asked_for:
        word = vocabulary.words[other]
        raise VocabularyError(
            f"'{word}' was given twice, after --why and after --not. Expected two words, for a word differs from itself by nothing. "
            "Name another word after --not."
        )
    return Question(asked_for, other)


def refuse_contrast(method: str) -> None:
    """Refuse to set a word against another with a method that knows no logits.

    Raises:
        RelevanceError: It is such a method.
    """
    if method in NO_CONTRAST:
        others = ", ".join(name for name in METHODS if name not in NO_CONTRAST)
        raise RelevanceError(
            f"The method '{method}' does not start from a logit, so it says the same about every word of a step. Expected a method that "
            f"can tell a word from another to ask 'why this and not that'. Choose one of: {others}."
        )


def _single(vocabulary: Vocabulary, text: str, option: str) -> int:
    """Return the id of one word."""
    found = vocabulary.encode(text)
    if len(found) != 1:
        raise VocabularyError(
            f"'{text}' after {option} has {len(found)} words. Expected one, as the model says one word at a step. Ask about one of them."
        )
    return found[0]
