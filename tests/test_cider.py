"""CIDEr-D: equal to the field's implementation, and to a pencil on cases of a few words."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.cider.cider_scorer import CiderScorer

from capxai.errors import CorpusError
from capxai.evaluate.cider import CiderD, DocumentFrequencies
from capxai.evaluate.ngrams import UNSEEN, NGramTable

Words = list[str]


def _reference_scores(references: Sequence[Sequence[Words]], candidates: Sequence[Words]) -> np.ndarray:
    scorer = CiderScorer()
    for candidate, of_picture in zip(candidates, references, strict=True):
        scorer += (" ".join(candidate), [" ".join(words) for words in of_picture])
    return np.asarray(scorer.compute_score()[1])


def _random_corpus(pictures: int, seed: int) -> tuple[list[list[Words]], list[Words]]:
    generator = random.Random(seed)

    def sentence() -> Words:
        return [f"w{min(40, int(generator.paretovariate(0.6)))}" for _ in range(generator.randint(0, 12))]

    references = [[sentence() for _ in range(generator.randint(1, 6))] for _ in range(pictures)]
    candidates = [sentence() for _ in range(pictures)]
    candidates[::5] = [list(of_picture[0]) for of_picture in references[::5]]
    candidates[1] = []
    candidates[2] = ["never", "seen", "never", "seen", "never"]
    return references, candidates


def test_equals_pycocoevalcap() -> None:
    references, candidates = _random_corpus(300, seed=1)
    scores = CiderD(references).score(range(300), candidates)
    assert scores == pytest.approx(_reference_scores(references, candidates), abs=1e-10)
    assert scores.max() > 1
    assert scores[1] == 0
    assert scores[2] == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from("abc"), max_size=6),
            st.lists(st.lists(st.sampled_from("abcd"), max_size=6), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_equals_pycocoevalcap_whatever_the_captions(pictures: list[tuple[Words, list[Words]]]) -> None:
    candidates, references = [one for one, _ in pictures], [many for _, many in pictures]
    if not any(words for of_picture in references for words in of_picture):
        return  # pycocoevalcap takes the maximum of nothing
    scores = CiderD(references).score(range(len(pictures)), candidates)
    assert scores == pytest.approx(_reference_scores(references, candidates), abs=1e-10)


def test_any_order_any_number_and_tokens_that_are_numbers() -> None:
    references, candidates = _random_corpus(40, seed=2)
    words = sorted({word for of_picture in references for one in of_picture for word in one})
    numbers = {word: number for number, word in enumerate([*words, "never", "seen"])}
    in_words = CiderD(references)
    in_numbers = CiderD([[[numbers[word] for word in one] for one in of_picture] for of_picture in references])
    places = [7, 3, 7, 39, 0]
    chosen = [candidates[3], candidates[3], candidates[7], candidates[39], candidates[2]]
    batch = in_words.score(places, chosen)
    assert in_numbers.score(places, [[numbers[word] for word in one] for one in chosen]) == pytest.approx(batch)
    one_by_one = [in_words.score([place], [words])[0] for place, words in zip(places, chosen, strict=True)]
    assert batch == pytest.approx(one_by_one)
    assert len(in_words) == 40
    assert in_words.score([], []).shape == (0,)


def test_two_pictures_by_pencil() -> None:
    # "a" is in both pictures (weight 0); "b" and "a b" are in one of two (weight ln 2). The candidate "a b" has the same
    # vectors as its reference for n = 1 and 2, none for n = 3 and 4: cosines 1, 1, 0, 0, the same length. 10 * 2 / 4.
    scorer = CiderD([[["a", "b"]], [["a", "c"]]])
    assert scorer.score([0, 1], [["a", "b"], ["a", "b"]]) == pytest.approx([5.0, 0.0])
    # One word more: "b b" has n = 1 weight 2 ln 2, clipped to ln 2; 1/2 after the norms. Two bigrams, one of them seen: 1/sqrt 2.
    expected = 10 / 4 * (0.5 + 1 / math.sqrt(2)) * math.exp(-1 / 72)
    assert scorer.score([0], [["a", "b", "b"]]) == pytest.approx([expected])


def test_given_document_frequencies() -> None:
    references, candidates = _random_corpus(60, seed=3)
    counts: Counter[tuple[str, ...]] = Counter()
    for of_picture in references:
        grams = {tuple(one[i : i + n]) for one in of_picture for n in (1, 2, 3, 4) for i in range(len(one) - n + 1)}
        counts.update(grams)
    whole = CiderD(references).score(range(60), candidates)
    few = CiderD(references[:10], DocumentFrequencies(counts, 60))
    assert few.score(range(10), candidates[:10]) == pytest.approx(whole[:10])
    assert CiderD(references[:10]).score(range(10), candidates[:10]) != pytest.approx(whole[:10])


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"Picture number 1 .* has no reference"):
        CiderD([[["a"]], []])
    with pytest.raises(CorpusError, match="no picture"):
        CiderD([])
    with pytest.raises(CorpusError, match="counted over 0 pictures"):
        CiderD([[["a"]]], DocumentFrequencies({}, 0))
    scorer = CiderD([[["a"]]])
    with pytest.raises(ValueError, match="2 places for 1 candidates"):
        scorer.score([0, 0], [["a"]])
    with pytest.raises(ValueError, match="of 1 pictures"):
        scorer.score([-1], [["a"]])


def test_ngrams_are_counted_also_where_the_table_has_none() -> None:
    table = NGramTable([["a", "b", "a", "b"], ["c"]], 2)
    assert [table.size(order) for order in (1, 2)] == [3, 2]
    words, pairs = table.count([["a", "b", "x", "a", "b", "x"], [], ["c", "c"]])
    assert words.sentences.tolist() == [0, 0, 0, 2]
    assert words.counts.tolist() == [2, 2, 2, 2]
    assert (words.grams == UNSEEN).tolist() == [False, False, True, False]
    assert pairs.sentences.tolist() == [0, 0, 0, 2]
    assert sorted(pairs.counts[:3].tolist()) == [1, 2, 2]  # x a; a b and b x
    assert (pairs.grams == UNSEEN).sum() == 3  # b x, x a, c c
