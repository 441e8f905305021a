"""Deletion and insertion curves: the probability of a word while what explains it is taken away, or given back, step by step.

Petsiuk, Das and Saenko (2018), "RISE", section 4.2; Samek et al. (2017) for the removal of blocks of pixels. Deletion takes the most
relevant things first: the lower the area under the curve, the more the relevance found what the word rests on. Insertion gives the most
relevant things first to a picture or a prefix that has none: the higher its area, the better. Things are blocks of pixels, or words.

Axes: W words, N pictures, P places of a curve, X things.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from capxai.evaluate.bootstrap import Estimate, Weights, intervals_over_words
from capxai.types import FloatArray, JsonObject

Values = NDArray[np.float64]
Indices = NDArray[np.int64]
Kept = NDArray[np.bool_]

DELETION, INSERTION = 0, 1
"""Where the two curves of a word stand on their axis."""


def block_relevance(relevance: FloatArray, block: int) -> Values:
    """Sum relevance (H, W) over square blocks, row by row: (X,). Blocks at the right and lower border may be cut off."""
    height, width = relevance.shape
    padded = np.pad(np.asarray(relevance, dtype=np.float64), ((0, -height % block), (0, -width % block)))
    rows, columns = padded.shape[0] // block, padded.shape[1] // block
    sums: Values = padded.reshape(rows, block, columns, block).sum(axis=(1, 3)).reshape(-1)
    return sums


def block_pixels(kept: Kept, block: int, shape: tuple[int, int]) -> Kept:
    """Spread blocks (..., X), in the order of `block_relevance`, over the pixels of a picture: (..., H, W)."""
    height, width = shape
    grid = kept.reshape(*kept.shape[:-1], -(-height // block), -(-width // block))
    return grid.repeat(block, axis=-2).repeat(block, axis=-1)[..., :height, :width]


def relevance_order(relevance: Values, ties: Indices) -> Indices:
    """Return the things (X,), most relevant first; of equal ones that with the lower number in ``ties`` (X,) goes first.

    Grad-CAM is zero on much of a picture. In the order of reading, its ties would take the sky first; a drawn order prefers nothing.
    """
    return np.lexsort((ties, -relevance))


def step_counts(things: int, steps: int) -> Indices:
    """Return how many of the things are taken at each step, from none to all; fewer steps where there are fewer things: (P,)."""
    return np.unique(np.floor(np.linspace(0, things, steps + 1) + 0.5).astype(np.int64))


def kept_at_steps(order: Indices, counts: Indices) -> Kept:
    """Return what is left at each step of deletion and there at each step of insertion, (2, P, X)."""
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    inserted = rank[None, :] < counts[:, None]
    return np.stack([~inserted, inserted])


def area(places: Values, curve: Values) -> Values:
    """Return the area under curves (..., P) over places (P,), by the trapezoid rule: (...)."""
    found: Values = ((curve[..., 1:] + curve[..., :-1]) / 2 * np.diff(places)).sum(axis=-1)
    return found


def resample(curve: Values, places: Values) -> Values:
    """Read curves (..., X + 1) over the shares 0, 1/X ... 1 at other places (P,), linear in between: (..., P)."""
    own = np.linspace(0, 1, curve.shape[-1])
    flat = [np.interp(places, own, one) for one in curve.reshape(-1, curve.shape[-1])]
    return np.stack(flat).reshape(*curve.shape[:-1], len(places))


@dataclass(frozen=True)
class WordCurves:
    """What the words of a run gave for one method.

    Attributes:
        curves: (W, 2, P) probability, deletion and insertion, at common places.
        areas: (W, 2), each over the word's own places.
    """

    curves: Values
    areas: Values


@dataclass(frozen=True)
class CurveScore:
    """Mean curves of a method over words, with intervals over pictures.

    Attributes:
        deletion: Mean probability at each place while the most relevant is taken away.
        insertion: The same while the most relevant is given first.
        deletion_area: Mean area; lower is better.
        insertion_area: Mean area; higher is better.
        deletion_to_random: The method's area minus that of the control, word by word; below 0 is better. None for the control.
        insertion_to_random: The same of insertion; above 0 is better.
    """

    deletion: tuple[Estimate, ...]
    insertion: tuple[Estimate, ...]
    deletion_area: Estimate
    insertion_area: Estimate
    deletion_to_random: Estimate | None = None
    insertion_to_random: Estimate | None = None

    @property
    def beats_random(self) -> tuple[bool, bool]:
        """Whether the whole interval of the difference lies on the good side, of deletion and of insertion."""
        deleted, inserted = self.deletion_to_random, self.insertion_to_random
        return deleted is not None and deleted.high < 0, inserted is not None and inserted.low > 0

    def to_json(self) -> JsonObject:
        """Return all figures as JSON."""
        found = asdict(self)
        return {item.name: found[item.name] for item in fields(self)}


def score_curves(
    rows: Sequence[int], found: Mapping[str, WordCurves], control: str, weights: Weights
) -> dict[str, CurveScore]:
    """Average over words, with intervals over pictures.

    Args:
        rows: (W,) the picture of each word, a column of ``weights``.
        found: By method; all methods have the same words.
        control: The method that the others are compared with, if it is among them.
        weights: (D, N) draws of pictures.

    Raises:
        ValueError: There is no word, or a method has not one pair of curves for each.
    """
    other = [name for name, one in found.items() if len(one.curves) != len(rows) or len(one.areas) != len(rows)]
    if not len(rows) or other:
        raise ValueError(
            f"Found {len(rows)} words; {', '.join(other)} have not one pair of curves each; expected at least one."
        )
    return {
        name: _score(rows, one, None if name == control else found.get(control), weights) for name, one in found.items()
    }


def _score(rows: Sequence[int], found: WordCurves, control: WordCurves | None, weights: Weights) -> CurveScore:
    deletion = intervals_over_words(rows, found.curves[:, DELETION], weights)
    insertion = intervals_over_words(rows, found.curves[:, INSERTION], weights)
    areas = intervals_over_words(rows, found.areas, weights)
    if control is None:
        return CurveScore(deletion, insertion, *areas)
    return CurveScore(
        deletion, insertion, *areas, *intervals_over_words(rows, found.areas - control.areas, weights)
    )  # fmt: skip
