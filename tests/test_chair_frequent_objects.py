"""Macro precision, recall and F1 of frequent object words, by hand and by loops."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from capxai.errors import ConfigError, CorpusError
from capxai.evaluate.bootstrap import draws
from capxai.evaluate.frequent_objects import (
    COCO,
    FLICKR30K,
    WordList,
    find_word_list,
    most_frequent,
    score_frequent,
)
from capxai.evaluate.lexicon import coco_lexicon
from capxai.recipes.object_scores import frequent_words

LEXICON = coco_lexicon()
WORDS = WordList("test", ("dog", "dogs", "man", "cat", "horse"))


def test_the_lists_of_the_paper() -> None:
    assert len(set(FLICKR30K.words)) == len(FLICKR30K.words) == 20
    assert len(set(COCO.words)) == len(COCO.words) == 25
    assert find_word_list("coco") is COCO
    with pytest.raises(ConfigError, match="Unknown list of frequent words 'koko'.*flickr30k, coco, corpus"):
        find_word_list("koko")


def test_figures_by_hand() -> None:
    captions = {1: "a DOG and a man", 2: "a dog", 3: "a dog, a cat", 4: "the sky"}
    references = {
        1: ("a man", "two dogs"),
        2: ("a dog with a man",),
        3: ("the dog runs", "a hot dog"),
        4: ("a man",),
    }
    report = score_frequent(captions, references, WORDS)
    # dog: said 3, there 2, both 2. dogs: there 1, never said. man: said 1, there 3, both 1. cat is in no reference, horse nowhere.
    assert report.words["dog"].precision == pytest.approx(2 / 3)
    assert report.words["dog"].recall == 1
    assert report.words["man"].recall == pytest.approx(1 / 3)
    assert report.words["dogs"].precision is None and report.words["dogs"].recall == 0
    assert report.words["cat"].recall is None and report.words["cat"].precision == 0
    assert report.words["horse"].f1 is None
    values = {name: estimate.value for name, estimate in report.overall.items()}
    assert values == {
        "macro_precision": pytest.approx((2 / 3 + 0 + 1) / 3),
        "macro_recall": pytest.approx((1 + 0 + 1 / 3) / 3),
        "macro_f1": pytest.approx((4 / 5 + 0 + 2 / 4) / 3),
    }


def test_figures_and_draws_equal_a_slow_second_computation() -> None:
    generator = random.Random(4)
    captions, references = {}, {}
    for number in range(50):
        captions[number] = " ".join(generator.choices((*WORDS.words, "grass", "a"), k=4))
        references[number] = tuple(" ".join(generator.choices((*WORDS.words, *("sky",) * 9), k=5)) for _ in range(3))
    weights = draws(50, seed=3, number=20)
    report = score_frequent(captions, references, WORDS, weights=weights)
    spread = report.resampled(weights)
    for draw, counts in enumerate([[1] * 50, *weights.tolist()]):
        shares = []
        for word in WORDS.words:
            said = [word in captions[n].split() for n in range(50)]
            there = [any(word in text.split() for text in references[n]) for n in range(50)]
            both = sum(c for c, s, t in zip(counts, said, there, strict=True) if s and t)
            spoken = sum(c for c, s in zip(counts, said, strict=True) if s)
            present = sum(c for c, t in zip(counts, there, strict=True) if t)
            assert present
            shares.append((both / spoken if spoken else 0, both / present, 2 * both / (spoken + present)))
        slow = [sum(column) / len(shares) for column in zip(*shares, strict=True)]
        if draw == 0:
            fast = [estimate.value for estimate in report.overall.values()]
        else:
            fast = [float(values[draw - 1]) for values in spread.values()]
        assert fast == pytest.approx(slow, abs=1e-12)
    low, high = np.percentile(spread["macro_f1"], (2.5, 97.5))
    assert (report.overall["macro_f1"].low, report.overall["macro_f1"].high) == pytest.approx((low, high))


def test_a_list_found_in_references() -> None:
    references = ["a hot dog and a man", "a man near a dog", "Men and a man, a Hot Dog", "the sky"]
    words = most_frequent(references, LEXICON, number=3)
    assert words.name == "corpus"
    assert words.words == ("man", "hot dog", "dog")  # 3, 2, and 1 as "men", which is later in the alphabet
    assert words.spoken("a hot dog by the man") == {"hot dog", "man"}
    assert words.spoken("a dog") == {"dog"}
    assert most_frequent(references, LEXICON).words == ("man", "hot dog", "dog", "men")
    with pytest.raises(CorpusError, match="No reference names an object"):
        most_frequent(["the sky"], LEXICON)
    with pytest.raises(ConfigError, match="there is none"):
        frequent_words("corpus", None, LEXICON)


def test_the_report_is_json() -> None:
    report = score_frequent({1: "a dog"}, {1: ("a dog",)}, WORDS)
    written = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert written["list"] == "test"
    assert written["overall"]["macro_precision"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert written["words"]["dog"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "pictures": 1, "mentioned": 1}


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(CorpusError, match="No reference has a word of the list 'test'"):
        score_frequent({1: "a dog"}, {1: ("the sky",)}, WORDS)
    with pytest.raises(CorpusError, match=r"1 have no caption \[2\] and 1 no reference \[1\], and 1 captions .*\[3\]"):
        score_frequent({1: "a dog", 3: "a cat"}, {1: (), 2: ("a dog",)}, WORDS)
    with pytest.raises(CorpusError, match="Of 0 pictures"):
        score_frequent({}, {}, WORDS)
