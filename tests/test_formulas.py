"""The equations of relevance on tiny integers, with the answer worked out beside them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from capxai.lrp import formulas


def exactly(found: Tensor, expected: list[float]) -> None:
    assert found.tolist() == expected


def test_the_sign_of_zero_is_positive() -> None:
    exactly(formulas.sign(torch.tensor([-3.0, 0.0, -0.0, 5.0])), [-1, 1, 1, 1])


def test_stabilizing_moves_away_from_zero() -> None:
    # 3 + 1, -3 - 1, 0 + 1
    exactly(formulas.stabilize(torch.tensor([3.0, -3.0, 0.0]), 1.0), [4, -4, 1])


def test_the_epsilon_quotient_is_relevance_per_unit_of_output() -> None:
    # x = (1, 2), w = (3, 1), b = -1: z = 3 + 2 - 1 = 4; eps 1: s = 10 / (4 + 1) = 2.
    # Shares: 1 * 3 * 2 = 6, 2 * 1 * 2 = 4, bias -1 * 2 = -2, eps 1 * 2 = 2; 6 + 4 - 2 + 2 = 10.
    z, bias = torch.tensor([4.0]), torch.tensor([-1.0])
    s = formulas.epsilon_quotient(torch.tensor([10.0]), z, 1.0)
    exactly(s, [2])
    exactly(torch.tensor([1.0, 2.0]) * torch.tensor([3.0, 1.0]) * s, [6, 4])
    exactly(formulas.kept_by_bias(s, bias), [-2])
    exactly(formulas.kept_by_eps(torch.tensor([10.0]), s, z, 1.0), [2])


def test_eps_keeps_with_the_sign_of_a_negative_output() -> None:
    # z = -4, eps 1: s = 10 / -5 = -2; kept: 1 * (-1) * (-2) = 2, passed on: z s = 8; together 10.
    s = formulas.epsilon_quotient(torch.tensor([10.0]), torch.tensor([-4.0]), 1.0)
    exactly(s, [-2])
    exactly(formulas.kept_by_eps(torch.tensor([10.0]), s, torch.tensor([-4.0]), 1.0), [2])


def test_without_eps_an_output_of_zero_keeps_what_arrives() -> None:
    # z = 0 has no contributions to share 7 among, so all 7 stay; z = 2 passes on 3 / 2 * 2 = 3 and keeps nothing.
    relevance, z = torch.tensor([7.0, 3.0]), torch.tensor([0.0, 2.0])
    s = formulas.epsilon_quotient(relevance, z, 0.0)
    exactly(s, [0, 1.5])
    exactly(formulas.kept_by_eps(relevance, s, z, 0.0), [7, 0])


def test_a_quotient_by_zero_is_zero() -> None:
    # 6 / 3, -4 / 2, and nothing where nothing was contributed, with either sign of zero
    relevance = torch.tensor([6.0, -4.0, 7.0, 7.0])
    exactly(formulas.quotient(relevance, torch.tensor([3.0, 2.0, 0.0, -0.0])), [2, -2, 0, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_the_very_smallest_numbers_count_as_zero(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).tiny
    small = torch.tensor([tiny, 1024 * tiny, 2048 * tiny, -2048 * tiny], dtype=dtype)
    assert torch.isinf(formulas.without_zeros(small)).tolist() == [True, True, False, False]
    assert torch.isfinite(formulas.quotient(torch.full((4,), 1000.0, dtype=dtype), small)).all()


def test_positive_and_negative_parts_add_up() -> None:
    x = torch.tensor([-2.0, 0.0, 3.0])
    exactly(formulas.positive(x), [0, 0, 3])
    exactly(formulas.negative(x), [-2, 0, 0])


def test_guided_needs_a_positive_input_and_a_positive_derivative() -> None:
    # kept only where both are above zero: the third
    relevance, x = torch.tensor([-1.0, 2.0, 3.0, 4.0]), torch.tensor([5.0, -6.0, 7.0, 0.0])
    exactly(formulas.guided(relevance, x), [0, 0, 3, 0])


def test_the_box_rule_measures_from_the_bounds() -> None:
    # x = (1, 2), w = (3, -1), l = (-1, -1), h = (4, 4):
    # first 1*3 - (-1)*3 - 4*0 = 6, second 2*(-1) - (-1)*0 - 4*(-1) = 2
    x, w = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])
    inputs = formulas.box_input(x, torch.tensor(-1.0), torch.tensor(4.0))
    weights = (w, -formulas.positive(w), -formulas.negative(w))
    exactly(sum(a * b for a, b in zip(inputs, weights, strict=True)), [6, 2])
