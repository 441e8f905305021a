"""Take away what a method calls important and see what the model loses (method.md, section 4): choices, controls and figures.

Axes: H, W pixels, M words, N pictures, D bootstrap draws. Relevance is signed: the most relevant is the largest, not the largest in size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capxai.evaluate.bootstrap import Difference, Estimate, Values, Weights, difference, estimate, ratios
from capxai.types import JsonObject

FIRST_WORD = 6
"""The first word that is ablated, counted from 1: "t >= 6", so that at least five words stand between ``<start>`` and it."""
DELETED = 3
CONTROL_DRAWS = 20
PATCH = 8
"""Side of a patch, in pixels of the model's input."""
PATCHES = 20


def generator_of(seed: int, image_id: int, *place: int) -> np.random.Generator:
    """Return the source of random choices for a picture, or for a word of its caption: the same in every batch and process."""
    return np.random.default_rng((seed, image_id % 2**64, *place))  # ids may be negative


def most_relevant_words(relevance: ArrayLike, count: int) -> tuple[int, ...]:
    """Choose which preceding words to delete.

    Args:
        relevance: (P + 1,) of the inputs of the step that says the word: ``<start>``, then its P preceding words. Signed.
        count: How many to delete.

    Returns:
        Places in the input, ascending, each in [1, P]: ``<start>`` is never deleted, the last word can be. Of equals the earlier one is
        chosen.

    Raises:
        ValueError: There are fewer words than are to be deleted, or a relevance is not finite.
    """
    signed = np.asarray(relevance, dtype=np.float64)[1:]
    _refuse_unusable(signed, count)
    return tuple(sorted((np.argsort(-signed, kind="stable")[:count] + 1).tolist()))


def random_words(
    preceding: int, count: int, draws: int, generator: np.random.Generator
) -> tuple[list[tuple[int, ...]], bool]:
    """Choose random deletions of the same words that `most_relevant_words` chooses from.

    Where there are no more than ``draws`` different ones, all of them are returned, and their mean is the expectation itself. Otherwise
    different ones are drawn, each as likely as any other.

    Args:
        preceding: P, the words between ``<start>`` and the explained one.
        count: How many to delete.
        draws: How many deletions to return at most.
        generator: Draws them.

    Returns:
        Deletions as places in the input, ascending, each in [1, P], and whether they are all that there are.

    Raises:
        ValueError: There are fewer words than are to be deleted, or no draw was asked for.

    Differs from the published code: its control can never delete the last word, which matters most to a language model.
    """
    if not 1 <= count <= preceding or draws < 1:
        raise ValueError(f"Found {count} of {preceding} words to delete, {draws} times; expected at least one of each.")
    if math.comb(preceding, count) <= draws:
        return list(combinations(range(1, preceding + 1), count)), True
    found: dict[tuple[int, ...], None] = {}
    while len(found) < draws:
        drawn = generator.choice(preceding, count, replace=False) + 1
        found[tuple(sorted(drawn.tolist()))] = None
    return list(found), False


def patch_grid(height: int, width: int, side: int) -> NDArray[np.intp]:
    """Number the patches of a picture row by row: (H, W), the number of each pixel's patch, from 0.

    Where ``side`` does not divide the picture, the last patches of a row and of a column are what is left: smaller, and patches all the
    same.
    """
    columns = -(-width // side)
    numbers: NDArray[np.intp] = (np.arange(height) // side)[:, None] * columns + (np.arange(width) // side)[None]
    return numbers


def most_relevant_patches(
    relevance: ArrayLike, grid: NDArray[np.intp], count: int, ties: NDArray[np.intp]
) -> tuple[int, ...]:
    """Choose the patches with the largest sum of relevance.

    Args:
        relevance: (H, W), signed.
        grid: (H, W) from `patch_grid`.
        count: How many patches.
        ties: A permutation of the numbers of the patches: of equal sums the patch with the smaller entry goes first. Maps can be zero in
            large parts (Grad-CAM's ReLU), and the upper left corner is no better choice than any other.

    Returns:
        Their numbers, ascending.

    Raises:
        ValueError: There are fewer patches, or a relevance is not finite.
    """
    values = np.asarray(relevance, dtype=np.float64)
    sums: Values = np.bincount(grid.ravel(), weights=values.ravel(), minlength=len(ties)).astype(np.float64)
    _refuse_unusable(sums, count)
    return tuple(sorted(np.lexsort((ties, -sums))[:count].tolist()))


def _refuse_unusable(values: Values, count: int) -> None:
    if not 1 <= count <= len(values):
        raise ValueError(f"Found {len(values)} to choose from; expected at least the {count} that are to be chosen.")
    if not np.isfinite(values).all():
        raise ValueError("Found relevance that is not finite; expected numbers.")


@dataclass(frozen=True)
class Loss:
    """What the model loses by what a method chose: a mean over words.

    Attributes:
        mean: With its interval over pictures.
        above: The same minus that of the control, word by word; None for the control itself.
    """

    mean: Estimate
    above: Difference | None

    @property
    def beats_control(self) -> bool:
        """Whether the interval of the gain over the control lies above 0."""
        return self.above is not None and self.above.low > 0

    def to_json(self) -> JsonObject:
        """Return both as a JSON object."""
        return {**self.mean.to_json(), "above_control": None if self.above is None else self.above.to_json()}


def compare(
    pictures: Sequence[int], losses: Mapping[str, Sequence[float]], control: str, weights: Weights
) -> dict[str, Loss]:
    """Average losses over words, and draw pictures to see how certain the averages and their differences to the control are.

    A word of a picture that is drawn twice counts twice; a draw in which no picture has a word is left out.

    Args:
        pictures: (M,) of each word the number of its picture in [0, N).
        losses: By method, (M,) what each word lost.
        control: The method with which the others are compared word by word.
        weights: (D, N) draws of pictures.

    Returns:
        By method; empty where there is no word.
    """
    if not len(pictures):
        return {}
    places, number = np.asarray(pictures), weights.shape[1]
    counts: Values = np.bincount(places, minlength=number).astype(np.float64)  # (N,)
    found = {}
    for name, values in losses.items():
        sums: Values = np.bincount(places, np.asarray(values), number).astype(np.float64)
        found[name] = (float(sums.sum() / counts.sum()), ratios(sums, counts, weights))
    return {
        name: Loss(estimate(*one), None if name == control else difference(one, found[control]))
        for name, one in found.items()
    }
