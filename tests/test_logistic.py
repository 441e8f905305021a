"""Logistic regression beside a slow gradient descent with loops, and calibration worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from capxai.evaluate.calibration import alarm, best_threshold, reliability
from capxai.evaluate.logistic import Logistic, fit, fit_chosen, picture_folds, sigmoid

NAMES = ("share", "margin", "constant")


def _examples(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    table = np.column_stack([generator.normal(3, 5, count), generator.normal(-1, 0.2, count), np.full(count, 7.0)])
    odds = 0.3 * (table[:, 0] - 3) - 4 * (table[:, 1] + 1)
    return table, generator.random(count) < 1 / (1 + np.exp(-odds))


def _descent(table: np.ndarray, positive: np.ndarray, l2: float) -> list[float]:
    """Go down the slope in small steps, one example after the other; returns weights and intercept."""
    rows = [[float(value) for value in row] for row in table]
    columns = list(zip(*rows, strict=True))
    means = [sum(column) / len(column) for column in columns]
    deviations = [
        math.sqrt(sum((value - mean) ** 2 for value in column) / len(column)) or 1.0
        for column, mean in zip(columns, means, strict=True)
    ]
    scaled = [[(value - m) / d for value, m, d in zip(row, means, deviations, strict=True)] for row in rows]
    at = [0.0] * (len(columns) + 1)
    for _ in range(3000):
        slope = [l2 * weight for weight in at[:-1]] + [0.0]
        for row, true in zip(scaled, positive, strict=True):
            odds = sum(weight * value for weight, value in zip(at, row, strict=False)) + at[-1]
            miss = 1 / (1 + math.exp(-odds)) - float(true)
            slope = [old + miss * value for old, value in zip(slope, [*row, 1.0], strict=True)]
        at = [weight - 0.03 * step for weight, step in zip(at, slope, strict=True)]
    return at


def test_newton_finds_what_slow_descent_finds() -> None:
    table, positive = _examples(40)
    found = fit(NAMES, table, positive, 2.0)
    expected = _descent(table, positive, 2.0)
    assert [*found.weights, found.intercept] == pytest.approx(expected, abs=1e-6)
    assert found.weights[2] == 0.0  # it never varies
    assert found.probabilities(table).mean() == pytest.approx(positive.mean(), abs=1e-9)  # the intercept is free


def test_one_number_by_hand() -> None:
    # Two true words at 1, two false ones at -1: mean 0, deviation 1, b = 0, and w solves 4 sigmoid(-w) = l2 w.
    # With w = log 3 and sigmoid(-w) = 1/4 that is l2 = 1 / log 3.
    found = fit(("x",), [[1.0], [1.0], [-1.0], [-1.0]], [True, True, False, False], 1 / math.log(3))
    assert found.weights[0] == pytest.approx(math.log(3), abs=1e-9) and found.intercept == pytest.approx(0, abs=1e-9)
    assert found.probabilities([[1.0], [0.0], [-1.0]]) == pytest.approx([0.75, 0.5, 0.25], abs=1e-9)


def test_a_number_that_is_not_there_counts_as_the_mean() -> None:
    table, positive = _examples()
    table[5, 0] = np.nan
    found = fit(NAMES, table, positive, 1.0)
    filled = table.copy()
    filled[5, 0] = np.nanmean(table[:, 0])
    assert found.mean[0] == pytest.approx(filled[5, 0])
    assert found.log_odds(table) == pytest.approx(found.log_odds(filled))


def test_classes_that_fall_apart_keep_finite_weights() -> None:
    found = fit(("x",), [[0.0], [1.0], [10.0], [11.0]], [False, False, True, True], 1e-3)
    assert all(map(math.isfinite, found.weights)) and found.probabilities([[5.5]])[0] == pytest.approx(0.5, abs=1e-6)


def test_the_strength_is_chosen_by_examples_that_were_left_out() -> None:
    table, positive = _examples(80)
    folds = picture_folds(np.arange(80) // 2, seed=3)
    found = fit_chosen(NAMES, table, positive, folds, (0.1, 10.0))
    assert found.losses[found.model.l2] == min(found.losses.values())
    for fold in range(5):
        inside = folds == fold
        alone = fit(NAMES, table[~inside], positive[~inside], found.model.l2)
        assert found.left_out[inside] == pytest.approx(alone.log_odds(table[inside]), abs=1e-12)
    expected = np.mean([math.log1p(math.exp(-o if y else o)) for o, y in zip(found.left_out, positive, strict=True)])
    assert found.losses[found.model.l2] == pytest.approx(float(expected))


def test_words_of_a_picture_are_left_out_together() -> None:
    pictures = np.repeat(np.arange(20), 3)
    folds = picture_folds(pictures, seed=1)
    assert all(len(set(folds[pictures == one])) == 1 for one in range(20))
    assert sorted(np.bincount(folds[::3])) == [4, 4, 4, 4, 4]
    assert (folds == picture_folds(pictures, seed=1)).all() and (folds != picture_folds(pictures, seed=2)).any()


def test_a_regression_comes_back_from_json() -> None:
    table, positive = _examples()
    found = fit(NAMES, table, positive, 1.0)
    stored = json.loads(json.dumps(found.to_json()))
    assert Logistic.from_json(stored) == found
    with pytest.raises(ValueError, match="do not fit"):
        Logistic.from_json({**stored, "weights": stored["weights"][:1]})
    with pytest.raises(ValueError, match="do not fit"):
        Logistic.from_json(replace(found, intercept=math.nan).to_json())


def test_what_cannot_be_fitted_is_refused() -> None:
    table, positive = _examples()
    for wrong, message in (
        ((NAMES, table[:, :2], positive, 1.0), "expected"),
        ((NAMES, table, np.ones(len(table), bool), 1.0), "both classes"),
        ((NAMES, table, positive, 0.0), "above 0"),
        ((NAMES, np.where(table > 3, np.inf, table), positive, 1.0), "infinite"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(*wrong)
    with pytest.raises(ValueError, match="expected 3"):
        fit(NAMES, table, positive, 1.0).log_odds(table[:, :2])


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid([-1e4, 0.0, 1e4]).tolist() == [0.0, 0.5, 1.0]


def test_reliability_by_hand() -> None:
    # Bins of a half: 0.2, 0.4 with one event, and 0.9, 1.0 with two. Predicted 0.3, 0.95; observed 0.5, 1.
    found = reliability([0.2, 0.4, 0.9, 1.0], [False, True, True, True], bins=2)
    assert [(one.words, one.predicted, one.observed) for one in found.bins] == [
        (2, pytest.approx(0.3), 0.5),
        (2, pytest.approx(0.95), 1.0),
    ]
    assert found.error == pytest.approx((2 * 0.2 + 2 * 0.05) / 4)
    assert found.brier == pytest.approx((0.04 + 0.36 + 0.01 + 0) / 4)
    assert found.reference == pytest.approx(0.75 * 0.25)
    empty = reliability([0.1], [False]).bins[5]
    assert empty.words == 0 and empty.predicted is None and empty.observed is None
    with pytest.raises(ValueError, match="expected as many"):
        reliability([1.2], [True])


def test_an_alarm_by_hand() -> None:
    chances, events = [0.9, 0.8, 0.4, 0.1], [True, False, True, False]
    found = alarm(chances, events, 0.5)
    assert (found.called, found.precision, found.recall, found.f1) == (2, 0.5, 0.5, 0.5)
    silent = alarm(chances, events, 0.95)
    assert (silent.called, silent.precision, silent.recall, silent.f1) == (0, None, 0.0, 0.0)
    # F1 at 0.9: 2/3; at 0.8: 1/2; at 0.4: 4/5; at 0.1: 2/3.
    assert best_threshold(chances, events) == pytest.approx(0.25)
    assert best_threshold([0.7, 0.7], [True, False]) == 0.7  # a tie is called together
    with pytest.raises(ValueError, match="no event"):
        best_threshold(chances, [False] * 4)
