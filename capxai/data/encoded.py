"""Captions as word ids: flat arrays that are small on disk and quick to read at any size."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capxai.data.vocabulary import END, PAD, START, UNKNOWN, Vocabulary, tokenize
from capxai.errors import CorpusError, VocabularyError
from capxai.files import replacing

_ARRAYS = ("image_ids", "first", "offsets", "tokens")


@dataclass(frozen=True)
class EncodedCaptions:
    """The captions of N pictures, M in all, without start and end.

    The captions of picture n are ``first[n]`` to ``first[n + 1]``; the words of caption m are
    ``tokens[offsets[m] : offsets[m + 1]]``.

    Attributes:
        image_ids: (N,) int64, the ids of the pictures in the order of the split.
        first: (N + 1,) int64, the first caption of each picture, and M.
        offsets: (M + 1,) int64, the first word of each caption, and the number of words.
        tokens: int32, the word ids of all captions.
    """

    image_ids: NDArray[np.int64]
    first: NDArray[np.int64]
    offsets: NDArray[np.int64]
    tokens: NDArray[np.int32]

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.image_ids)

    @property
    def captions_per_picture(self) -> NDArray[np.int64]:
        """(N,) int64."""
        return np.diff(self.first)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(M,) int64, the number of words of each caption."""
        return np.diff(self.offsets)

    def caption(self, number: int) -> NDArray[np.int32]:
        """Return the word ids of caption ``number`` of all M."""
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]

    def save(self, path: str | Path) -> None:
        """Write an npz file; the same captions give the same bytes.

        Raises:
            CapxaiError: The disk is full, or the place cannot be written to.
        """
        with replacing(path) as temporary, temporary.open("xb") as file:
            np.savez(file, **{name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, path: str | Path) -> EncodedCaptions:
        """Read what `save` wrote.

        Raises:
            CorpusError: The file is missing, torn, or its arrays do not fit together.
        """
        remedy = "Make the corpus again with 'capxai prepare'."
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in _ARRAYS}
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise CorpusError(
                f"'{path}' cannot be read as encoded captions ({error}). Expected an npz file with {', '.join(_ARRAYS)}. {remedy}"
            ) from error
        if not _fits(arrays):
            raise CorpusError(f"The arrays of '{path}' do not fit together. Expected those of one split. {remedy}")
        return cls(**arrays)


def encode_captions(captions: Mapping[int, Sequence[str]], vocabulary: Vocabulary) -> EncodedCaptions:
    """Turn the captions of every picture into word ids; a word that is not in the vocabulary becomes ``unknown``.

    Args:
        captions: Captions of each picture by its id, in the order in which they are to stand.
        vocabulary: The words.
    """
    return encode_words({number: [tokenize(text) for text in texts] for number, texts in captions.items()}, vocabulary)


def encode_words(words: Mapping[int, Sequence[Sequence[str]]], vocabulary: Vocabulary) -> EncodedCaptions:
    """Turn captions that are split into words already into word ids; see `encode_captions`."""
    known = {word: number for number, word in enumerate(vocabulary.words) if number not in vocabulary.specials}
    captions = list(chain.from_iterable(words.values()))
    lengths = np.fromiter(map(len, captions), dtype=np.int64, count=len(captions))
    counts = np.fromiter(map(len, words.values()), dtype=np.int64, count=len(words))
    unknown = vocabulary.unknown
    ids = (known.get(word, unknown) for word in chain.from_iterable(captions))
    return EncodedCaptions(
        image_ids=np.fromiter(words, dtype=np.int64, count=len(words)),
        first=_starts(counts),
        offsets=_starts(lengths),
        tokens=np.fromiter(ids, dtype=np.int32, count=int(lengths.sum())),
    )


def build_vocabulary(captions: Iterable[Sequence[str]], minimum_count: int) -> Vocabulary:
    """Collect the frequent words of captions that are split into words already, in the order of `Vocabulary.build`.

    Raises:
        VocabularyError: ``minimum_count`` is below 1, or no word is frequent enough.
    """
    counts = Counter(chain.from_iterable(captions))
    frequent = [word for word, count in counts.items() if count >= max(minimum_count, 1) and word not in _SPECIALS]
    if minimum_count < 1 or not frequent:
        raise VocabularyError(
            f"No vocabulary can be made of the {len(counts):,} different words that were found, of which each was to occur "
            f"{minimum_count} times or more. Expected a minimum of 1 or more, and a word that reaches it. Change "
            "--minimum-count."
        )
    return Vocabulary((*_SPECIALS, *sorted(frequent, key=lambda word: (-counts[word], word))))


_SPECIALS = (PAD, START, END, UNKNOWN)


def _starts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])


def _fits(arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Tell whether the arrays are of their types and each one ends where the next one begins."""
    for name, array in arrays.items():
        if array.ndim != 1 or array.dtype != (np.int32 if name == "tokens" else np.int64):
            return False
    image_ids, first, offsets, tokens = (arrays[name] for name in _ARRAYS)
    return _is_chain(first, len(image_ids), len(offsets) - 1) and _is_chain(offsets, len(offsets) - 1, len(tokens))


def _is_chain(starts: NDArray[Any], count: int, end: int) -> bool:
    """Tell whether ``count`` pieces begin at 0, one after the other, and end at ``end``."""
    return len(starts) == count + 1 and starts[0] == 0 and starts[-1] == end and bool(np.all(np.diff(starts) >= 0))
