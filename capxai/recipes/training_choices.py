"""What training does where it was not told: small and quick for the built-in corpus, the paper's settings for every other one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

SCENES = "scenes"


@dataclass(frozen=True)
class Choices:
    """Settings of `capxai.recipes.train.TrainConfig` that are chosen by the corpus; see there."""

    hidden_size: int
    embedding_size: int
    decoder_epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    sampling_rise: float
    monitor: str


BUILT_IN = Choices(128, 128, 8, 64, 3e-3, "cosine", 0.0, "macro_f1")
"""A few minutes on two cores."""
PAPER = Choices(512, 512, 30, 32, 5e-4, "plateau", 0.01, "cider")
"""method.md, sections 1 and 3; the rise of scheduled sampling is that of ImageCaptioning.pytorch, 0.05 in five epochs."""
REGION_SIZE = 1024
"""H and E for features of regions (method.md, section 1)."""


def choose(corpus: str, regions: bool, given: Mapping[str, Any]) -> Choices:
    """Fill in what is not given.

    Args:
        corpus: Name of the corpus.
        regions: Whether the features are those of boxes.
        given: Settings by name.
    """
    choices = BUILT_IN if corpus == SCENES else PAPER
    if regions:
        choices = replace(choices, hidden_size=REGION_SIZE, embedding_size=REGION_SIZE)
    return replace(choices, **given)
