"""Areas under ROC curves: small ones on paper, and a recomputation over all pairs of words in every draw."""

from __future__ import annotations

import time

import numpy as np
import pytest

from capxai.evaluate.bootstrap import draws
from capxai.evaluate.detection import (
    Labels,
    auc_within,
    bootstrap_auc,
    bootstrap_roc,
    drawn_auc,
    roc_auc,
    roc_curve,
)


def test_an_area_on_paper() -> None:
    # True 3, 2, 2; hallucinated 2, 1: of six pairs (3,2) (3,1) (2,1) (2,1) are won, (2,2) (2,2) are ties: 5 / 6.
    assert roc_auc([3, 2, 2, 2, 1], [True, True, True, False, False]) == pytest.approx(5 / 6)
    assert roc_auc([-3, -2, -2, -2, -1], [True, True, True, False, False]) == pytest.approx(1 / 6)  # never turned
    assert roc_auc([4, 4, 4], [True, False, False]) == 0.5


@pytest.mark.parametrize("positive", [[True, True], [False, False], []])
def test_no_area_without_both_classes(positive: list[bool]) -> None:
    scores = [1.0] * len(positive)
    labels = Labels.of(positive, [0] * len(positive), ["car"] * len(positive))
    weights = draws(1, 0, 10)
    assert roc_auc(scores, positive) is None and roc_curve(scores, positive) is None
    assert (
        bootstrap_auc(scores, labels, weights) is None and bootstrap_auc(scores, labels, weights, within=True) is None
    )
    assert bootstrap_roc(scores, labels, weights) is None and labels.pairs_within == 0


def test_within_words_only_pairs_of_a_category_count() -> None:
    # car: true 5, 6 and hallucinated 5.5: 1 of 2 pairs. dog: true 1, hallucinated 0, 0.5: 2 of 2. cat is never hallucinated.
    scores, positive = [5, 6, 5.5, 1, 0, 0.5, -9], [True, True, False, True, False, False, True]
    words = ["car", "car", "car", "dog", "dog", "dog", "cat"]
    assert auc_within(scores, positive, words) == pytest.approx((1 + 2) / (2 + 2))
    assert Labels.of(positive, [0] * 7, words).pairs_within == 4
    assert roc_auc(scores, positive) == pytest.approx((2 + 3 + 2 + 0) / 12)


def test_knowing_the_word_alone_is_worth_nothing_within_words() -> None:
    words = ["car"] * 10 + ["dog"] * 10
    positive = [True] * 9 + [False] + [False] * 9 + [True]
    by_word = [1.0 if word == "car" else 0.0 for word in words]
    assert roc_auc(by_word, positive) == pytest.approx((81 + 0.5 * 18) / 100)
    assert auc_within(by_word, positive, words) == 0.5


def test_a_curve_on_paper() -> None:
    # Thresholds 4 (true), 3 (true and hallucinated, a tie), 1 (hallucinated): (0, 1/2), (1/2, 1), (1, 1).
    curve = roc_curve([4, 3, 3, 1], [True, True, False, False], (0, 0.25, 0.5, 0.75, 1))
    assert curve is not None
    assert curve.tolist() == pytest.approx([0.5, 0.75, 1, 1, 1])


def _words(seed: int, count: int = 60, pictures: int = 20) -> tuple[np.ndarray, Labels, list[str]]:
    generator = np.random.default_rng(seed)
    positive = generator.random(count) < 0.7
    words = [str(word) for word in generator.choice(["car", "dog", "cat"], count)]
    scores = np.round(generator.normal(positive * 0.8), 1)  # rounded: there are ties
    return scores, Labels.of(positive.tolist(), generator.integers(0, pictures, count).tolist(), words), words


def test_the_area_of_a_curve_is_the_area() -> None:
    scores, labels, _ = _words(1)
    fine = np.linspace(0, 1, 20001)
    curve = roc_curve(scores, labels.positive, fine.tolist())
    assert curve is not None and np.all(np.diff(curve) >= 0) and curve[-1] == 1
    assert np.trapezoid(curve, fine) == pytest.approx(roc_auc(scores, labels.positive), abs=1e-3)


def _slow_area(scores: list[float], positive: list[bool], words: list[str] | None) -> float:
    """Compare every true with every hallucinated word."""
    won = pairs = 0.0
    for i, high in enumerate(scores):
        for j, low in enumerate(scores):
            if positive[i] and not positive[j] and (words is None or words[i] == words[j]):
                pairs += 1
                won += 1 if high > low else 0.5 if high == low else 0
    return won / pairs if pairs else float("nan")


@pytest.mark.parametrize("within", [False, True])
def test_every_draw_against_loops(within: bool) -> None:
    scores, labels, words = _words(2)
    weights = draws(20, 5, 40)
    found = drawn_auc(scores, labels if within else labels.pooled(), weights)
    expected = []
    for row in weights:
        chosen = [k for k in range(len(scores)) for _ in range(row[labels.pictures[k]])]
        parts = ([scores[k] for k in chosen], [bool(labels.positive[k]) for k in chosen], [words[k] for k in chosen])
        expected.append(_slow_area(parts[0], parts[1], parts[2] if within else None))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    estimate = bootstrap_auc(scores, labels, weights, within)
    assert estimate is not None
    assert estimate.value == pytest.approx(
        _slow_area(scores.tolist(), labels.positive.tolist(), words if within else None)
    )
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.percentile(expected, (2.5, 97.5))))


def test_a_draw_without_a_pair_is_left_out() -> None:
    labels = Labels.of([True, False], [0, 1], ["car", "car"])
    weights = np.array([[2, 0], [1, 1], [0, 2]], dtype=np.int32)
    np.testing.assert_array_equal(drawn_auc([2.0, 1.0], labels, weights), [np.nan, 1.0, np.nan])
    assert bootstrap_auc([2.0, 1.0], labels, weights) is not None
    assert bootstrap_auc([2.0, 1.0], labels, weights[:1]) is None


def test_bands_of_a_curve_against_drawn_words() -> None:
    scores, labels, _ = _words(3)
    weights = draws(20, 1, 30)
    bands = bootstrap_roc(scores, labels, weights, (0.1, 0.5))
    assert bands is not None
    drawn = []
    for row in weights:
        chosen = [k for k in range(len(scores)) for _ in range(row[labels.pictures[k]])]
        drawn.append(roc_curve(scores[chosen], labels.positive[chosen], (0.1, 0.5)))
    for place, band in enumerate(bands):
        low, high = np.percentile([curve[place] for curve in drawn if curve is not None], (2.5, 97.5))
        assert (band.low, band.high) == pytest.approx((low, high))


def test_what_cannot_be_ranked_is_refused() -> None:
    labels = Labels.of([True, False], [0, 1], ["car", "car"])
    with pytest.raises(ValueError, match="1 numbers that are not finite; expected none"):
        roc_auc([float("nan"), 1.0], [True, False])
    with pytest.raises(ValueError, match="expected one number for each word"):
        bootstrap_auc([1.0], labels, draws(2, 0, 5))
    with pytest.raises(ValueError, match="expected a column each"):
        bootstrap_auc([1.0, 2.0], labels, draws(1, 0, 5))
    with pytest.raises(ValueError, match="expected one for each word"):
        Labels.of([True], [0, 1], ["car"])


def test_a_thousand_draws_of_five_thousand_words_are_fast() -> None:
    scores, labels, _ = _words(4, 5000, 1500)
    weights = draws(1500, 0)
    begun = time.process_time()
    bootstrap_auc(scores, labels, weights)
    bootstrap_auc(scores, labels, weights, within=True)
    assert time.process_time() - begun < 2  # about 0.1 s
