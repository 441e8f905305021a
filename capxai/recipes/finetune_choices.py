"""What fine-tuning does where it was not told: minutes on the built-in corpus, the paper's settings for every other one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from capxai.recipes.training_choices import SCENES


@dataclass(frozen=True)
class FinetuneChoices:
    """Settings of `capxai.recipes.finetune.FinetuneConfig` that are chosen by the corpus; see there.

    All objectives of words share one learning rate, and so do all self-critical ones, so that objectives can be compared.
    """

    batch_size: int
    learning_rate: float
    updates: int | None
    epochs: int | None
    schedule: Literal["constant", "cosine", "plateau"]


BUILT_IN = FinetuneChoices(32, 5e-4, 300, None, "cosine")
"""Nearly two passes over the 5,000 pictures. Models of this corpus are small and are trained for eight epochs with 3e-3; with the paper's
1e-5 they would hardly move in so short a time."""
PAPER = FinetuneChoices(32, 1e-5, None, 5, "constant")
"""method.md, section 3; the paper does not say how long it fine-tunes."""
REWARD_LEARNING_RATE = 5e-5
"""The paper's for self-critical objectives; on the built-in corpus 5e-4 serves these too."""


def choose(corpus: str, rewards: bool, given: Mapping[str, Any]) -> FinetuneChoices:
    """Fill in what is not given.

    Args:
        corpus: Name of the corpus.
        rewards: Whether the objective is self-critical.
        given: Settings by name; of updates and epochs one stands for both.
    """
    choices = BUILT_IN if corpus == SCENES else PAPER
    if rewards and choices is PAPER:
        choices = replace(choices, learning_rate=REWARD_LEARNING_RATE)
    if "updates" in given or "epochs" in given:
        choices = replace(choices, updates=None, epochs=None)
    return replace(choices, **given)
