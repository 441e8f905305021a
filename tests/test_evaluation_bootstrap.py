"""Bootstrap intervals: drawn weights against picking pictures one by one, and what undefined figures do."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from capxai.evaluate.bootstrap import (
    Estimate,
    difference,
    draws,
    estimate,
    interval_of_mean,
    interval_of_ratio,
    means,
    ratios,
    weighted_sums,
)


def test_every_draw_has_as_many_pictures_as_there_are() -> None:
    weights = draws(7, seed=3, number=50)
    assert weights.shape == (50, 7) and weights.dtype == np.int32
    assert (weights.sum(axis=1) == 7).all() and (weights >= 0).all()
    assert (weights == draws(7, seed=3, number=50)).all()
    assert (weights != draws(7, seed=4, number=50)).any()


def test_weighted_sums_repeat_pictures() -> None:
    statistics = np.arange(10.0).reshape(5, 2)
    weights = draws(5, seed=0, number=300)  # more than one block
    slow = [sum((statistics[n] * row[n] for n in range(5)), np.zeros(2)) for row in weights]
    np.testing.assert_allclose(weighted_sums(statistics, weights), slow)
    assert weighted_sums(statistics[:, 0], weights).shape == (300,)


def test_interval_of_a_mean_follows_its_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=2000)
    found = interval_of_mean(values, draws(2000, seed=0))
    error = values.std() / np.sqrt(2000)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_ratio_is_of_sums_not_a_mean_of_ratios() -> None:
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 0, 3]], dtype=np.int32)
    # sums of parts 3, 2, 6; of wholes 4, 6, 0
    assert ratios([1, 0, 2], [3, 1, 0], weights)[:2] == pytest.approx([3 / 4, 4 / 6])
    assert np.isnan(ratios([1, 0, 2], [3, 1, 0], weights)[2])
    found = interval_of_ratio([1, 0, 2], [3, 1, 0], weights)
    assert found is not None and found.value == 0.75
    assert interval_of_ratio([0, 0, 0], [0, 0, 0], weights) is None


def test_identical_systems_do_not_differ() -> None:
    weights = draws(40, seed=0)
    values = np.random.default_rng(0).random(40)
    found = difference((float(values.mean()), means(values, weights)), (float(values.mean()), means(values, weights)))
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_paired_difference_is_narrower_than_either_interval() -> None:
    generator = np.random.default_rng(0)
    second = generator.normal(size=500)
    first = second + 0.1 + 0.05 * generator.normal(size=500)  # better on nearly every picture
    weights = draws(500, seed=0)
    found = difference((first.mean(), means(first, weights)), (second.mean(), means(second, weights)))
    alone = interval_of_mean(first, weights)
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert 0 < found.low < found.value < found.high
    assert found.high - found.low < 0.2 * (alone.high - alone.low)
    assert found.p == pytest.approx(2 / 1001)
    backwards = difference((second.mean(), means(second, weights)), (first.mean(), means(first, weights)))
    assert backwards.value == pytest.approx(-found.value) and backwards.p == found.p


def test_sign_share_of_a_difference() -> None:
    spread = np.array([-1.0, 1.0, 2.0, 3.0, np.nan])
    found = difference((1.0, spread), (0.0, np.zeros(5)))
    assert found.p == pytest.approx(2 * (1 + 1) / (4 + 1))  # one of four draws lies below


@pytest.mark.parametrize(("value", "spread"), [(float("nan"), np.zeros(3)), (1.0, np.full(3, np.nan))])
def test_undefined_figures_are_refused(value: float, spread: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="expected a number and at least one draw"):
        estimate(value, spread)


def test_bad_input_is_refused() -> None:
    weights = draws(3, seed=0, number=2)
    with pytest.raises(ValueError, match="at least one of each"):
        draws(0, seed=0)
    with pytest.raises(ValueError, match="not finite"):
        weighted_sums([1.0, float("nan"), 2.0], weights)
    with pytest.raises(ValueError, match=r"\(D, N\)"):
        weighted_sums([1.0, 2.0], weights)
    with pytest.raises(ValueError, match="the same ones"):
        difference((0.0, np.zeros(2)), (0.0, np.zeros(3)))
    assert Estimate(1.0, 0.5, 2.0).to_json() == {"value": 1.0, "low": 0.5, "high": 2.0}
