"""The weights of LRP inference: how much each unit of context and hidden state speaks for the word at hand (method.md, section 3).

Axes: B batch, T steps, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from capxai.finetune.batches import Lottery
from capxai.models.state import HeadInputs

EPS = 0.01

Relevance = Callable[[HeadInputs, Tensor], HeadInputs]
"""``relevance(inputs, rows)``: each summand's share of the logit whose row of fc is given, (B, T, H), up to a positive factor."""


def _signed(z: Tensor, eps: float) -> Tensor:
    """Move z away from 0 by eps; 0 itself goes up."""
    return torch.where(z < 0, z - eps, z + eps)


def lrp_relevance(inputs: HeadInputs, rows: Tensor, eps: float = EPS) -> HeadInputs:
    """Carry a logit through fc and the sum to both summands, by the epsilon rule.

    With x = context + hidden and z = w x + b, the rules of method.md give R_x = x w z / (z + eps sign z) and R_context = context R_x /
    (x + eps sign x). The factor z / (z + eps sign z) is positive and the same for all units of a step: it cancels when each vector is
    divided by its own maximum, so neither z nor the bias is needed and one multiplication does all steps.
    """
    x = inputs.context + inputs.hidden
    share = rows * (x / _signed(x, eps))
    return HeadInputs(inputs.context * share, inputs.hidden * share)


def gradient_times_input(inputs: HeadInputs, rows: Tensor) -> HeadInputs:
    """Multiply each summand by the derivative of the logit, which is the row of fc."""
    return HeadInputs(inputs.context * rows, inputs.hidden * rows)


def no_relevance(inputs: HeadInputs, rows: Tensor) -> HeadInputs:
    """Return zeros: every weight becomes 1 (the control that keeps the second pass and drops the relevance)."""
    return HeadInputs(torch.zeros_like(inputs.context), torch.zeros_like(inputs.hidden))


def opposed(inputs: HeadInputs, rows: Tensor) -> HeadInputs:
    """Turn the sign of the relevance (a control)."""
    found = lrp_relevance(inputs, rows)
    return HeadInputs(-found.context, -found.hidden)


@dataclass(frozen=True)
class Shuffled:
    """The relevance of each vector in random order: the same distribution of weights, none of it where it belongs (a control).

    Attributes:
        lottery: Source of randomness for these rows.
        relevance: What is shuffled.
    """

    lottery: Lottery
    relevance: Relevance = lrp_relevance

    def __call__(self, inputs: HeadInputs, rows: Tensor) -> HeadInputs:
        """Shuffle over the units, anew for every step of every caption."""
        found = self.relevance(inputs, rows)
        return HeadInputs(self._shuffle(found.context), self._shuffle(found.hidden))

    def _shuffle(self, values: Tensor) -> Tensor:
        keys = self.lottery.uniform(*values.shape[1:]).to(values.device)
        return values.gather(-1, keys.argsort(-1))


def normalized(relevance: Tensor) -> Tensor:
    """Return omega = 1 + R / max|R| over the last axis; 1 where all of R is 0."""
    largest = relevance.abs().amax(-1, keepdim=True)
    return 1 + torch.where(largest > 0, relevance / largest.clamp_min(torch.finfo(relevance.dtype).tiny), 0)


def inference_weights(
    fc: nn.Linear, inputs: HeadInputs, words: Tensor, neutral: Tensor, relevance: Relevance = lrp_relevance
) -> HeadInputs:
    """Return omega for both summands, (B, T, H) each in [0, 2]; no gradient flows through it.

    Args:
        fc: The vocabulary projection.
        inputs: What the word head sees, (B, T, H) each.
        words: (B, T) int64, the word whose logit is explained at each step.
        neutral: (V,) bool, words whose weights are 1.
        relevance: How relevance is found.
    """
    with torch.no_grad():
        plain = HeadInputs(inputs.context.detach(), inputs.hidden.detach())
        found = relevance(plain, fc.weight[words])
        kept = neutral.to(words.device)[words].unsqueeze(-1)
        return HeadInputs(*(torch.where(kept, 1.0, normalized(part)) for part in (found.context, found.hidden)))
