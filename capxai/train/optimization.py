"""The optimizer, its learning rate over time, and the refusal to go on with numbers that are none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from capxai.errors import CapxaiError

BETAS = (0.8, 0.999)
"""Adam's decay rates (method.md, section 3)."""
CLIP_VALUE = 0.1
"""Gradients are clipped to [-0.1, 0.1], entry by entry."""
WARM_UP_SHARE = 0.05


@dataclass(frozen=True)
class Epoch:
    """What an epoch of training was like.

    Attributes:
        number: From 1.
        loss: Mean training loss over the epoch, weighted by examples (words or pictures).
        learning_rate: At its end.
    """

    number: int
    loss: float
    learning_rate: float


class DivergedError(CapxaiError):
    """The loss became infinite or not a number."""


def cosine_with_warm_up(step: int, total: int) -> float:
    """Return the share of the full learning rate at a step: up in a line over the first twentieth, then down half a cosine to 0."""
    warm_up = max(1, round(WARM_UP_SHARE * total))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


class Optimization:
    """Adam with a cosine schedule over a known number of steps."""

    def __init__(self, groups: Sequence[tuple[Iterable[nn.Parameter], float]], steps: int) -> None:
        """Take the parameters over.

        Args:
            groups: Parameters and their highest learning rate.
            steps: Number of steps until the learning rate is 0.
        """
        self.adam = torch.optim.Adam(
            [{"params": list(parameters), "lr": rate} for parameters, rate in groups], betas=BETAS
        )
        self.parameters = [parameter for group in self.adam.param_groups for parameter in group["params"]]
        self.schedule = LambdaLR(self.adam, lambda step: cosine_with_warm_up(step, steps))

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step, of the first group."""
        return float(self.adam.param_groups[0]["lr"])

    def descend(self, loss: Tensor) -> float:
        """Take one step down the gradient of a scalar loss and return the loss.

        Raises:
            DivergedError: The loss is not finite; the weights stay as they were.
        """
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(
                f"The training loss became {value}. Expected a finite number. Lower the learning rate "
                f"(now {self.learning_rate:.2g}), and check the corpus with 'capxai prepare'."
            )
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_value_(self.parameters, CLIP_VALUE)
        self.adam.step()
        self.schedule.step()
        return value
