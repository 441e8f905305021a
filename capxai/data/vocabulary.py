"""The words a captioner knows, and the ids that stand for them."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from capxai.errors import VocabularyError
from capxai.types import JsonObject

PAD = "<pad>"
START = "<start>"
END = "<end>"
UNKNOWN = "<unk>"

# Letters and digits; an apostrophe or hyphen counts where it joins two of them ("man's", "t-shirt").
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_TYPOGRAPHIC = str.maketrans({"’": "'", "‘": "'", "‐": "-", "‑": "-"})
_NAMED_AT_MOST = 5


def tokenize(text: str) -> list[str]:
    """Split a caption into lower-case words without punctuation.

    An apostrophe or hyphen inside a word stays ("man's", "t-shirt"). Accented letters are composed first, so that a
    word is the same word however it was typed.
    """
    return _WORD.findall(unicodedata.normalize("NFC", text).translate(_TYPOGRAPHIC).lower())


class Vocabulary:
    """An ordered list of words; the id of a word is its place in the list.

    Attributes:
        words: The word of every id, the four specials included.
        pad: Id of the word that fills up shorter captions.
        start: Id of the word before the first one.
        end: Id of the word after the last one.
        unknown: Id that stands for every word that is not in the list.
    """

    def __init__(
        self, words: Sequence[str], pad: str = PAD, start: str = START, end: str = END, unknown: str = UNKNOWN
    ) -> None:
        """Take over the words.

        Raises:
            VocabularyError: A word is there twice or is empty, a special is missing, or two specials are the same word.
        """
        self.words = tuple(words)
        self._ids = {word: number for number, word in enumerate(self.words)}
        self._refuse_unusable((pad, start, end, unknown))
        self.pad, self.start = self._ids[pad], self._ids[start]
        self.end, self.unknown = self._ids[end], self._ids[unknown]
        self.specials = frozenset((self.pad, self.start, self.end, self.unknown))

    def _refuse_unusable(self, specials: tuple[str, str, str, str]) -> None:
        problems = []
        if any(not isinstance(word, str) or not word for word in self.words):
            problems.append("it holds an entry that is empty or no text")
        repeated = [str(word) for word, count in Counter(self.words).items() if count > 1]
        if repeated:
            problems.append(f"{len(repeated)} words are there more than once ({_first(repeated)})")
        missing = [word for word in dict.fromkeys(specials) if word not in self._ids]
        if missing:
            problems.append(f"the special words {', '.join(missing)} are missing")
        if len(set(specials)) < len(specials):
            problems.append(f"two of the special words {', '.join(specials)} are the same")
        if problems:
            raise VocabularyError(
                f"The vocabulary of {len(self.words)} words cannot be used: {'; '.join(problems)}. Expected every word "
                "once, and one word each for pad, start, end and unknown. Build it again from its captions, or use the "
                "word list as it came with the model."
            )

    @classmethod
    def build(cls, captions: Iterable[str], minimum_count: int) -> Vocabulary:
        """Collect the words that occur at least ``minimum_count`` times.

        Ids 0 to 3 are pad, start, end and unknown; then the words follow, the most frequent first and equally frequent
        ones by the alphabet, so that the order of the captions does not matter.

        Raises:
            VocabularyError: ``minimum_count`` is below 1, or no word is frequent enough.
        """
        if minimum_count < 1:
            raise VocabularyError(
                f"The minimum count of a word is {minimum_count}. Expected 1 or more. Use 1 to keep every word."
            )
        counts = Counter(word for caption in captions for word in tokenize(caption))
        frequent = [word for word in counts if counts[word] >= minimum_count]
        kept = sorted(frequent, key=lambda word: (-counts[word], word))
        if not kept:
            raise VocabularyError(
                f"None of the {len(counts)} different words in the captions occurs {minimum_count} times or more. "
                "Expected at least one. Lower the minimum count, or check that the captions were read."
            )
        return cls((PAD, START, END, UNKNOWN, *kept))

    def __len__(self) -> int:
        """Count the words, the specials included."""
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        """Tell whether the word has an id of its own."""
        return word in self._ids

    def __eq__(self, other: object) -> bool:
        """Compare the words and which of them are the specials."""
        return isinstance(other, Vocabulary) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        """Hash the words."""
        return hash(self.words)

    def __repr__(self) -> str:
        """Show the size and the first words."""
        return f"Vocabulary({len(self)} words: {_first(self.words)})"

    def id_of(self, word: str) -> int | None:
        """Look up the id of one word as it stands in the list (no tokenizing), or None."""
        return self._ids.get(word)

    def encode(self, text: str) -> list[int]:
        """Turn a caption into ids, without start and end.

        Raises:
            VocabularyError: The caption has no word, or has words that are not in the vocabulary (all are named).
        """
        tokens = tokenize(text)
        if not tokens:
            raise VocabularyError(
                f"The caption '{text}' has no words. Expected at least one word that the model knows "
                f"({_first(self._plain_words())}). Give a caption with words."
            )
        foreign = [word for word in dict.fromkeys(tokens) if not self._is_plain(word)]
        if foreign:
            raise VocabularyError(self._not_in_vocabulary(foreign))
        return [self._ids[word] for word in tokens]

    def encode_or_unknown(self, text: str) -> list[int]:
        """Turn a caption into ids, without start and end; a word that is not in the vocabulary becomes ``unknown``."""
        return [self._ids[word] if self._is_plain(word) else self.unknown for word in tokenize(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids into a caption: stop at the first ``end`` and leave out the other specials.

        Raises:
            VocabularyError: An id is not in [0, len).
        """
        words = []
        for number in ids:
            if not 0 <= number < len(self.words):
                raise VocabularyError(
                    f"Word id {int(number)} does not exist. Expected 0 to {len(self.words) - 1}, the ids of this "
                    "vocabulary. Use the vocabulary of the model that made the caption."
                )
            if number == self.end:
                break
            if number not in self.specials:
                words.append(self.words[number])
        return " ".join(words)

    def to_json(self) -> JsonObject:
        """Describe the vocabulary for a model folder."""
        return {
            "words": list(self.words),
            "pad": self.words[self.pad],
            "start": self.words[self.start],
            "end": self.words[self.end],
            "unknown": self.words[self.unknown],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Vocabulary:
        """Read what ``to_json`` wrote.

        Raises:
            VocabularyError: An entry is missing or of the wrong kind, or the words cannot be used.
        """
        words = value.get("words")
        specials = [value.get(name) for name in ("pad", "start", "end", "unknown")]
        if not isinstance(words, list) or not all(isinstance(word, str) for word in (*words, *specials)):
            raise VocabularyError(
                "The stored vocabulary is torn. Expected a list of text 'words' and the texts 'pad', 'start', 'end' "
                "and 'unknown'. Restore the model folder from where it came."
            )
        pad, start, end, unknown = (str(word) for word in specials)
        return cls(words, pad, start, end, unknown)

    def _is_plain(self, word: str) -> bool:
        return word in self._ids and self._ids[word] not in self.specials

    def _plain_words(self) -> list[str]:
        return [word for number, word in enumerate(self.words) if number not in self.specials]

    def _not_in_vocabulary(self, foreign: Sequence[str]) -> str:
        plain = self._plain_words()
        known = f"Expected words among the {len(plain)} that this model knows"
        if len(foreign) == 1:
            found = f"The word '{foreign[0]}' is not in the vocabulary."
        else:
            found = f"The words {', '.join(repr(word) for word in foreign)} are not in the vocabulary."
        hints = []
        for word in foreign:
            close = difflib.get_close_matches(word, plain, n=3)
            if close:
                hints.append(f"Instead of '{word}', did you mean {' or '.join(repr(match) for match in close)}?")
        return " ".join([found, f"{known} ({_first(plain)}).", *hints, "Replace or leave out what it does not know."])


def _first(words: Sequence[str]) -> str:
    """Name the first few words, and show that there are more."""
    return ", ".join(words[:_NAMED_AT_MOST]) + (", ..." if len(words) > _NAMED_AT_MOST else "")
