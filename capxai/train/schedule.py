"""How the learning rate changes: by half a cosine over all steps, whenever validation stops getting better, or not at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

from capxai.errors import ConfigError, unknown_choice
from capxai.types import JsonObject

WARM_UP_SHARE = 0.05
PLATEAU_FACTOR = 0.8
"""What the learning rate is multiplied by on a plateau (method.md, section 3)."""
PLATEAU_EPOCHS = 2
"""Epochs without a better validation score that make a plateau (method.md, section 3)."""


def cosine_with_warm_up(step: int, total: int) -> float:
    """Return the share of the full learning rate at a step: up in a line over the first twentieth, then down half a cosine to 0."""
    warm_up = max(1, round(WARM_UP_SHARE * total))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


class Schedule(Protocol):
    """The share of the highest learning rate over time; its state is plain numbers."""

    @property
    def share(self) -> float:
        """The share for the next step."""

    def step(self) -> None:
        """Note that a step was taken."""

    def report(self, score: float) -> None:
        """Note the validation score after an epoch; more is better."""

    def state(self) -> JsonObject:
        """Return all that a resumed run needs."""

    def restore(self, state: JsonObject) -> None:
        """Go on from a state."""


@dataclass
class Cosine:
    """`cosine_with_warm_up` over ``total`` steps."""

    total: int
    taken: int = 0

    @property
    def share(self) -> float:
        """The share for the next step."""
        return cosine_with_warm_up(self.taken, self.total)

    def step(self) -> None:
        """Note that a step was taken."""
        self.taken += 1

    def report(self, score: float) -> None:
        """Do nothing: the cosine does not look at scores."""

    def state(self) -> JsonObject:
        """Return all that a resumed run needs."""
        return {"taken": self.taken}

    def restore(self, state: JsonObject) -> None:
        """Go on from a state."""
        self.taken = int(state["taken"])


@dataclass
class Plateau:
    """The full learning rate, times 0.8 after every two epochs without a better score."""

    share: float = 1.0
    best: float | None = None
    waited: int = 0

    def step(self) -> None:
        """Do nothing: the plateau rule looks at epochs."""

    def report(self, score: float) -> None:
        """Lower the learning rate where it is due."""
        if self.best is None or score > self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited == PLATEAU_EPOCHS:
            self.share, self.waited = self.share * PLATEAU_FACTOR, 0

    def state(self) -> JsonObject:
        """Return all that a resumed run needs."""
        return asdict(self)

    def restore(self, state: JsonObject) -> None:
        """Go on from a state."""
        self.share, self.best, self.waited = state["share"], state["best"], state["waited"]


@dataclass
class Constant:
    """The full learning rate at every step."""

    share: float = 1.0

    def step(self) -> None:
        """Do nothing."""

    def report(self, score: float) -> None:
        """Do nothing."""

    def state(self) -> JsonObject:
        """Return nothing: there is none."""
        return {}

    def restore(self, state: JsonObject) -> None:
        """Do nothing."""


def make_schedule(name: str, steps: int) -> Schedule:
    """Make a schedule for so many steps.

    Args:
        name: "cosine", "plateau" or "constant".
        steps: All together.

    Raises:
        ConfigError: There is no such schedule.
    """
    known: dict[str, Callable[[], Schedule]] = {
        "cosine": lambda: Cosine(steps),
        "plateau": Plateau,
        "constant": Constant,
    }
    if name not in known:
        raise ConfigError(unknown_choice("schedule", name, known))
    return known[name]()
