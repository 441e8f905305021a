"""The vocabulary: tokens, ids, building, messages."""

from __future__ import annotations

import json
import random

import pytest

from capxai.data.vocabulary import Vocabulary, tokenize
from capxai.errors import VocabularyError

WORDS = ("<pad>", "<start>", "<end>", "<unk>", "a", "car", "near", "table", "fork")


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary(WORDS)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man's T-shirt, on the table.", ["a", "man's", "t-shirt", "on", "the", "table"]),
        ("A man’s hat", ["a", "man's", "hat"]),
        ("  two\tdogs\n(one brown) - 3 cats!", ["two", "dogs", "one", "brown", "3", "cats"]),
        ("'quoted' snake_case", ["quoted", "snake", "case"]),
        ("Cafe\u0301 caf\u00e9", ["caf\u00e9", "caf\u00e9"]),
        ("... !", []),
        ("", []),
    ],
)
def test_tokenize(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


def test_specials_are_ids(vocabulary: Vocabulary) -> None:
    assert (vocabulary.pad, vocabulary.start, vocabulary.end, vocabulary.unknown) == (0, 1, 2, 3)
    assert len(vocabulary) == 9
    assert vocabulary.words == WORDS
    assert "car" in vocabulary and "dog" not in vocabulary
    assert vocabulary.id_of("car") == 5 and vocabulary.id_of("dog") is None


def test_specials_may_stand_anywhere() -> None:
    vocabulary = Vocabulary(["<pad>", "a", "car", "<unk>", "<start>", "<end>"])
    assert (vocabulary.pad, vocabulary.start, vocabulary.end, vocabulary.unknown) == (0, 4, 5, 3)
    assert vocabulary.decode([4, 1, 2, 5, 1]) == "a car"


def test_encode_and_decode(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode("A car, near a TABLE!")
    assert ids == [4, 5, 6, 4, 7]
    assert vocabulary.decode([vocabulary.start, *ids, vocabulary.end, 8, 8]) == "a car near a table"
    assert vocabulary.decode([0, 3, 5, 0]) == "car"


def test_foreign_word_is_named_with_close_ones(vocabulary: Vocabulary) -> None:
    with pytest.raises(VocabularyError) as caught:
        vocabulary.encode("a cart near a zebra")
    message = str(caught.value)
    assert "'cart', 'zebra' are not in the vocabulary" in message
    assert "Instead of 'cart', did you mean 'car'?" in message
    assert "the 5 that this model knows (a, car, near, table, fork)" in message
    assert "<unk>" not in message


def test_special_words_cannot_be_typed() -> None:
    vocabulary = Vocabulary(["pad", "start", "end", "unknown", "a"], "pad", "start", "end", "unknown")
    with pytest.raises(VocabularyError, match="The word 'end' is not in the vocabulary"):
        vocabulary.encode("a end")
    assert vocabulary.encode_or_unknown("a end") == [4, 3]


def test_encode_or_unknown(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode_or_unknown("a zebra near a car") == [4, 3, 6, 4, 5]
    assert vocabulary.encode_or_unknown("?") == []


@pytest.mark.parametrize("text", ["", "  ", "?!"])
def test_caption_without_words_is_refused(vocabulary: Vocabulary, text: str) -> None:
    with pytest.raises(VocabularyError, match="has no words"):
        vocabulary.encode(text)


@pytest.mark.parametrize("number", [-1, 9])
def test_decode_refuses_unknown_ids(vocabulary: Vocabulary, number: int) -> None:
    with pytest.raises(VocabularyError, match=f"Word id {number} does not exist. Expected 0 to 8"):
        vocabulary.decode([4, number])


def test_build_orders_by_count_then_alphabet() -> None:
    captions = ["a dog and a cat", "a cat and a dog", "a bird"]
    # a 5, and cat dog 2 each, bird 1
    expected = ("<pad>", "<start>", "<end>", "<unk>", "a", "and", "cat", "dog")
    assert Vocabulary.build(captions, 2).words == expected
    assert Vocabulary.build(iter(captions), 1).words == (*expected, "bird")
    random.Random(3).shuffle(captions)
    assert Vocabulary.build(captions, 2).words == expected


def test_build_refuses_nothing() -> None:
    with pytest.raises(VocabularyError, match="None of the 2 different words in the captions occurs 3 times"):
        Vocabulary.build(["a dog"], 3)
    with pytest.raises(VocabularyError, match="minimum count of a word is 0"):
        Vocabulary.build(["a dog"], 0)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["<pad>", "<start>", "<end>", "a"], "the special words <unk> are missing"),
        ([*WORDS, "car", "fork"], r"2 words are there more than once \(car, fork\)"),
        ([*WORDS, ""], "an entry that is empty"),
    ],
)
def test_unusable_words_are_refused(words: list[str], found: str) -> None:
    with pytest.raises(VocabularyError, match=found):
        Vocabulary(words)


def test_two_specials_cannot_be_one_word() -> None:
    with pytest.raises(VocabularyError, match="are the same"):
        Vocabulary(WORDS, end="<pad>")


def test_json_round_trip(vocabulary: Vocabulary) -> None:
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert again == vocabulary
    assert again != Vocabulary([*WORDS, "more"])


@pytest.mark.parametrize("change", [{"words": None}, {"words": [1, 2]}, {"end": None}])
def test_torn_json_is_refused(vocabulary: Vocabulary, change: dict[str, object]) -> None:
    with pytest.raises(VocabularyError, match="stored vocabulary is torn"):
        Vocabulary.from_json({**vocabulary.to_json(), **change})
