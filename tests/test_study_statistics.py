"""What several runs say together: every number by hand, and coverage of the interval on simulated studies."""

from __future__ import annotations

import math

import numpy as np
import pytest

from capxai.evaluate.student import interval_of_mean, p_of_mean, p_of_signs
from capxai.recipes.study_statistics import bootstrap, contrast, differences, mean_of, repeated


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706205), (2, 4.302653), (3, 3.182446), (8, 2.306004), (30, 2.042272)]
)
def test_half_widths_are_those_of_printed_tables(freedom: int, expected: float) -> None:
    values = [float(number) for number in range(freedom + 1)]
    low, high = interval_of_mean(values) or (0, 0)
    assert (high - low) / 2 == pytest.approx(expected * np.std(values, ddof=1) / math.sqrt(freedom + 1), abs=1e-5)


def test_the_interval_and_the_test_of_three_values() -> None:
    low, high = interval_of_mean([1, 2, 3]) or (0, 0)
    assert (low, high) == (pytest.approx(2 - 4.302653 / math.sqrt(3)), pytest.approx(2 + 4.302653 / math.sqrt(3)))
    t = 2 * math.sqrt(3)
    assert p_of_mean([1, 2, 3]) == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert interval_of_mean([1]) is None and p_of_mean([1]) is None
    assert p_of_mean([0, 0]) == 1.0 and p_of_mean([2, 2]) == 0.0


def test_the_sign_test_counts_the_smaller_side_twice() -> None:
    assert p_of_signs(8, 1) == pytest.approx(2 * (1 + 9) / 2**9)
    assert p_of_signs(1, 1) == 1.0 and p_of_signs(0, 0) == 1.0


def test_the_mean_is_that_of_base_models_and_so_is_its_spread() -> None:
    found = mean_of({"a": {0: 1.0, 1: 3.0}, "b": {0: 5.0}})
    assert (found.value, found.units, found.runs) == (3.5, 2, 3)  # of 2 and 5, not of 1, 3 and 5
    assert found.high == pytest.approx(3.5 + 12.706205 * 1.5)  # their deviation is 3 / sqrt(2), over sqrt(2)


def test_seeds_take_the_place_of_a_single_base_model() -> None:
    found = mean_of({"a": {0: 1.0, 1: 2.0, 2: 3.0}})
    assert (found.value, found.units, found.low) == (2.0, 3, pytest.approx(2 - 4.302653 / math.sqrt(3)))
    alone = mean_of({"a": {0: 1.0}})
    assert (alone.low, alone.high) == (None, None)
    with pytest.raises(ValueError, match="without a run"):
        mean_of({"a": {}})


def test_a_contrast_by_hand() -> None:
    control = {"a": {0: 4.0, 1: 6.0, 2: 9.0}, "b": {0: 2.0}}
    found = contrast({"a": {0: 3.0, 1: 4.0}, "b": {0: 1.0}, "c": {0: 7.0}}, control)
    assert found is not None
    # Within a: -1 and -2, so -1.5; within b: -1. Seed 2 of a and all of c have nobody to be compared with.
    assert (found.difference.value, found.difference.units, found.pairs) == (-1.25, 2, 3)
    assert (found.below, found.above, found.p_sign) == (3, 0, 0.25)
    assert found.relative is not None and found.relative.value == pytest.approx((3.5 / 5 - 1 + 1 / 2 - 1) / 2)
    t = 1.25 / 0.25
    assert found.p == pytest.approx(1 - 2 / math.pi * math.atan(t))
    t = (4 / 3) / (math.sqrt(1 / 3) / math.sqrt(3))
    assert found.p_pairs == pytest.approx(1 - t / math.sqrt(t**2 + 2))


def test_a_contrast_without_common_runs_or_with_a_control_of_zero() -> None:
    assert contrast({"a": {0: 1.0}}, {"a": {1: 1.0}, "b": {0: 1.0}}) is None
    found = contrast({"a": {0: 1.0, 1: 1.0}}, {"a": {0: 0.0, 1: 2.0}})
    assert found is not None and found.relative is None


def test_a_base_model_is_compared_with_every_seed_of_the_control() -> None:
    control = {"a": {0: 1.0, 1: 3.0}, "b": {5: 4.0}}
    assert repeated({"a": {0: 2.0}, "b": {0: 1.0}, "c": {0: 9.0}}, control) == {"a": {0: 2.0, 1: 2.0}, "b": {5: 1.0}}


def test_the_interval_covers_what_it_should_when_runs_are_nested() -> None:
    generator, covered, naive = np.random.default_rng(0), 0, 0
    for _ in range(600):
        bases = generator.normal(10, 2, size=(3, 1))
        runs = bases + generator.normal(0, 1, size=(3, 3))
        found = mean_of({str(base): dict(enumerate(seeds)) for base, seeds in enumerate(runs.tolist())})
        assert found.low is not None and found.high is not None
        covered += found.low <= 10 <= found.high
        low, high = interval_of_mean(runs.flatten().tolist()) or (0, 0)
        naive += low <= 10 <= high
    assert 0.93 <= covered / 600 <= 0.97
    assert naive / 600 < 0.85  # why runs are not taken for independent


def test_the_bootstrap_of_one_run_is_that_of_its_pictures() -> None:
    drawn = np.random.default_rng(1).normal(size=500)
    assert bootstrap({"a": {0: drawn}}) == tuple(np.percentile(drawn, (2.5, 97.5)))
    undefined = np.where(np.arange(500) < 250, np.nan, drawn)
    assert bootstrap({"a": {0: undefined}}) == tuple(np.percentile(drawn[250:], (2.5, 97.5)))
    assert bootstrap({"a": {0: np.full(500, np.nan)}}) is None


def test_the_bootstrap_draws_base_models_and_their_seeds() -> None:
    constant = {"a": {0: np.zeros(4000), 1: np.full(4000, 2.0)}, "b": {0: np.full(4000, 10.0)}}
    # A quarter of the draws has a twice: then 0 comes up with probability 1/16, 1.6 % of all, and 0.5 with 4/16, 6.3 % of all.
    assert bootstrap(constant) == (0.5, 10.0)
    wide = {name: {0: np.full(4000, value)} for name, value in zip("abcdefgh", range(8), strict=True)}
    low, high = bootstrap(wide) or (0, 0)
    spread = np.std(range(8)) / math.sqrt(8)
    assert low == pytest.approx(3.5 - 1.96 * spread, abs=0.2) and high == pytest.approx(3.5 + 1.96 * spread, abs=0.2)


def test_draws_are_subtracted_for_common_runs() -> None:
    ours = {"a": {0: np.array([3.0, 4.0]), 1: np.array([0.0, 0.0])}, "b": {0: np.array([1.0, 1.0])}}
    found = differences(ours, {"a": {0: np.array([1.0, 1.0])}, "c": {0: np.array([1.0, 1.0])}})
    assert list(found) == ["a"] and found["a"][0].tolist() == [2.0, 3.0]
