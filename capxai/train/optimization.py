"""The optimizer: Adam with clipped gradients, and the refusal to go on with numbers that are none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from capxai.errors import CapxaiError
from capxai.train.schedule import Schedule

BETAS = (0.8, 0.999)
"""Adam's decay rates (method.md, section 3)."""
CLIP_VALUE = 0.1
"""Gradients are clipped to [-0.1, 0.1], entry by entry."""
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class DivergedError(CapxaiError):
    """The loss became infinite or not a number."""


@dataclass(frozen=True)
class Numerics:
    """Where and how exactly a network is computed in training; its weights are float32 always.

    Attributes:
        device: Where.
        precision: A key of `PRECISIONS`; with float16 the loss is scaled, so that small gradients survive.
    """

    device: torch.device
    precision: str = "float32"

    def autocast(self) -> torch.autocast:
        """Return the context in which the network runs."""
        kind = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, kind, enabled=kind != torch.float32)


class Optimization:
    """Adam, its schedule, and the scale of the loss in float16."""

    def __init__(
        self, groups: Sequence[tuple[Iterable[nn.Parameter], float]], schedule: Schedule, numerics: Numerics
    ) -> None:
        """Take the parameters over.

        Args:
            groups: Parameters and their highest learning rate.
            schedule: The share of it over time.
            numerics: Where the parameters are, and the precision of the forward pass.
        """
        self.rates = [rate for _, rate in groups]
        self.schedule = schedule
        self.adam = torch.optim.Adam(
            [{"params": list(parameters), "lr": rate} for parameters, rate in groups], betas=BETAS
        )
        self.parameters = [parameter for group in self.adam.param_groups for parameter in group["params"]]
        self.scaler = torch.amp.GradScaler(numerics.device.type, enabled=numerics.precision == "float16")
        self._set_rates()

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step, of the first group."""
        return float(self.adam.param_groups[0]["lr"])

    def _set_rates(self) -> None:
        for group, rate in zip(self.adam.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.schedule.share

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss to what is there."""
        self.scaler.scale(loss).backward()

    def descend(self, value: float, factor: float = 1.0) -> None:
        """Take one step down the gradients that are there, and forget them.

        Args:
            value: The loss, to see whether it is a number.
            factor: What the gradients are multiplied by first.

        Raises:
            DivergedError: The loss is not finite; the weights stay as they were.
        """
        if not math.isfinite(value):
            raise DivergedError(
                f"The training loss became {value}. Expected a finite number. Lower the learning rate "
                f"(now {self.learning_rate:.2g}), and check the corpus with 'capxai prepare'."
            )
        self.scaler.unscale_(self.adam)
        if factor != 1.0:
            torch._foreach_mul_([found.grad for found in self.parameters if found.grad is not None], factor)
        nn.utils.clip_grad_value_(self.parameters, CLIP_VALUE)
        self.scaler.step(self.adam)
        self.scaler.update()
        self.adam.zero_grad(set_to_none=True)
        self.schedule.step()
        self._set_rates()

    def report(self, score: float) -> None:
        """Note the validation score after an epoch; more is better."""
        self.schedule.report(score)
        self._set_rates()

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs: tensors and plain values."""
        return {
            "adam": self.adam.state_dict(),
            "schedule": self.schedule.state(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.adam.load_state_dict(state["adam"])
        self.schedule.restore(state["schedule"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self._set_rates()
