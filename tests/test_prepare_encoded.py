"""Captions as flat arrays of word ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from capxai.data.encoded import EncodedCaptions, build_vocabulary, encode_captions, encode_words
from capxai.data.vocabulary import Vocabulary, tokenize
from capxai.errors import CorpusError, VocabularyError

CAPTIONS = {7: ("A red car.", "a fork"), 3: (), 9: ("a CAR and a <start>",)}
VOCABULARY = Vocabulary(("<pad>", "<start>", "<end>", "<unk>", "a", "car", "red"))


def test_the_arrays() -> None:
    encoded = encode_captions(CAPTIONS, VOCABULARY)
    assert encoded.image_ids.tolist() == [7, 3, 9] and len(encoded) == 3
    assert encoded.first.tolist() == [0, 2, 2, 3]
    assert encoded.offsets.tolist() == [0, 3, 5, 10]
    assert encoded.tokens.tolist() == [4, 6, 5, 4, 3, 4, 5, 3, 4, 3]
    assert encoded.captions_per_picture.tolist() == [2, 0, 1] and encoded.lengths.tolist() == [3, 2, 5]
    assert encoded.caption(1).tolist() == VOCABULARY.encode_or_unknown("a fork")
    types = [array.dtype for array in (encoded.image_ids, encoded.first, encoded.offsets, encoded.tokens)]
    assert types == [np.int64, np.int64, np.int64, np.int32]


def test_a_special_in_the_text_is_unknown() -> None:
    assert encode_words({1: [["<end>", "a", "<pad>"]]}, VOCABULARY).tokens.tolist() == [3, 4, 3]


def test_no_captions() -> None:
    encoded = encode_captions({}, VOCABULARY)
    assert (len(encoded), encoded.first.tolist(), encoded.offsets.tolist(), encoded.tokens.size) == (0, [0], [0], 0)


def test_there_and_back(tmp_path: Path) -> None:
    encoded = encode_captions(CAPTIONS, VOCABULARY)
    for name in ("a.npz", "b.npz"):
        encoded.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = EncodedCaptions.load(tmp_path / "a.npz")
    for name in ("image_ids", "first", "offsets", "tokens"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(encoded, name))


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 100])
def test_torn_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(CorpusError, match=r"x\.npz' cannot be read as encoded captions"):
        EncodedCaptions.load(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": np.zeros(9, np.int32)},
        {"tokens": np.zeros(10, np.int64)},
        {"first": np.array([0, 2, 3], np.int64)},
        {"first": np.array([1, 2, 2, 3], np.int64)},
        {"offsets": np.array([0, 5, 3, 10], np.int64)},
        {"offsets": np.zeros(0, np.int64)},
        {"image_ids": np.zeros((3, 1), np.int64)},
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    encoded = encode_captions(CAPTIONS, VOCABULARY)
    arrays = {name: getattr(encoded, name) for name in ("image_ids", "first", "offsets", "tokens")}
    np.savez(tmp_path / "x.npz", **(arrays | change))
    with pytest.raises(CorpusError, match="do not fit together"):
        EncodedCaptions.load(tmp_path / "x.npz")


def test_the_vocabulary_is_that_of_the_captions() -> None:
    texts = ["a red car", "a car", "the red fork", "a b", "b"]
    assert build_vocabulary(map(tokenize, texts), 2) == Vocabulary.build(texts, 2)


@pytest.mark.parametrize("minimum", [0, 3])
def test_no_word_is_frequent_enough(minimum: int) -> None:
    with pytest.raises(VocabularyError, match=f"was to occur {minimum} times or more"):
        build_vocabulary([["a", "car"], ["<unk>"] * 9], minimum)
