"""Does the relevance of an object word lie on the object? Shares, thresholds and the pointing game (method.md, section 4).

Axes: H, W pixels, N pictures, M words, D bootstrap draws. Nothing here changes the map that it is given: the published code cuts its
heatmaps in place, and scores every box after the first on a damaged one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from capxai.errors import CorpusError
from capxai.evaluate.objects import BOOTSTRAP_DRAWS, INTERVAL, Estimate
from capxai.types import JsonObject

THRESHOLDS: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Below which part of its maximum relevance is left out."""

Pixels = NDArray[np.floating]
Area = NDArray[np.bool_]
Columns = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Placement:
    """Where the positive relevance of one word lies.

    Attributes:
        mask_share: Part of all positive relevance inside the object's mask, in [0, 1]; 0 where there is no positive relevance.
        mask_area: Part of the picture that the mask covers, in (0, 1].
        box_shares: Part inside the object's boxes of what is left at each of `THRESHOLDS`.
        box_area: Part of the picture that the boxes cover.
        points_at_mask: Whether the largest relevance lies inside the mask (Zhang et al. 2018, without their tolerance).
        points_at_box: The same for the boxes.
        positive: Whether there is any positive relevance.
    """

    mask_share: float
    mask_area: float
    box_shares: tuple[float, ...]
    box_area: float
    points_at_mask: bool
    points_at_box: bool
    positive: bool


def place(relevance: Pixels, mask: Area, boxes: Area) -> Placement:
    """Compare the map of a word with the object that the word names.

    Args:
        relevance: (H, W), signed; values below 0 count as 0.
        mask: (H, W), true on the object.
        boxes: (H, W), true inside any of the object's boxes.

    Raises:
        ValueError: The shapes differ, the mask or the boxes are empty, or a value is not finite.
    """
    if not relevance.shape == mask.shape == boxes.shape or not mask.any() or not boxes.any():
        raise ValueError(
            f"Found a map {relevance.shape}, a mask {mask.shape} of {mask.sum()} pixels and boxes {boxes.shape} of {boxes.sum()}; "
            "expected equal shapes and at least one pixel in each."
        )
    if not np.isfinite(relevance).all():
        raise ValueError("Found relevance that is not finite; expected numbers.")
    positive = np.maximum(relevance, 0).astype(np.float64)
    peak = float(positive.max())
    # A map without positive relevance points nowhere: its maximum would be the first pixel by accident.
    points = (bool(area.flat[int(positive.argmax())]) and peak > 0 for area in (mask, boxes))
    return Placement(
        mask_share=share_inside(positive, mask),
        mask_area=float(mask.mean()),
        box_shares=tuple(share_inside(np.where(positive >= t * peak, positive, 0), boxes) for t in THRESHOLDS),
        box_area=float(boxes.mean()),
        points_at_mask=next(points),
        points_at_box=next(points),
        positive=peak > 0,
    )


def share_inside(positive: Pixels, area: Area) -> float:
    """Return the sum inside an area over the sum everywhere, 0 where that is 0."""
    total = float(positive.sum())
    return float(positive[area].sum()) / total if total > 0 else 0.0


def box_area(boxes: Sequence[tuple[float, float, float, float]], height: int, width: int) -> Area:
    """Draw boxes (left, top, width, height in pixels) as (height, width) bool: every pixel that a box touches."""
    area = np.zeros((height, width), dtype=np.bool_)
    for left, top, across, down in boxes:
        rows = slice(max(0, int(np.floor(top))), max(0, int(np.ceil(top + down))))
        columns = slice(max(0, int(np.floor(left))), max(0, int(np.ceil(left + across))))
        area[rows, columns] = True
    return area


def resize_nearest(area: Area, height: int, width: int) -> Area:
    """Take, for the center of every pixel of the new size, the old pixel in which it lies."""
    rows = ((np.arange(height) + 0.5) * area.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * area.shape[1] / width).astype(np.intp)
    resized: Area = area[np.ix_(rows, columns)]
    return resized


@dataclass(frozen=True)
class MethodScore:
    """How well a method finds objects: means over words, with bootstrap intervals over pictures (95 %).

    Attributes:
        figures: ``mask_share``, ``mask_area``, ``ratio_of_means`` (the first over the second), ``mean_of_ratios``, ``points_at_mask``,
            ``correctness`` (share inside the boxes, mean over `THRESHOLDS`), ``box_area``, ``points_at_box``.
        thresholds: Share inside the boxes at each of `THRESHOLDS`.
        above: By the name of another method, by how much ``mask_share`` is higher than that method's on the same words.
        boxes_above: The same for ``correctness``.
        without_positive: Words whose map has no positive relevance; they count with a share of 0 and do not point.
    """

    figures: dict[str, Estimate]
    thresholds: tuple[Estimate, ...]
    above: dict[str, Estimate]
    boxes_above: dict[str, Estimate]
    without_positive: int

    def to_json(self) -> JsonObject:
        """Return the score as a JSON object."""
        return {
            **{name: asdict(estimate) for name, estimate in self.figures.items()},
            "thresholds": {f"{t:g}": asdict(found) for t, found in zip(THRESHOLDS, self.thresholds, strict=True)},
            "mask_share_above": {name: asdict(estimate) for name, estimate in self.above.items()},
            "correctness_above": {name: asdict(estimate) for name, estimate in self.boxes_above.items()},
            "without_positive": self.without_positive,
        }


def score_methods(
    pictures: Sequence[int], placements: Mapping[str, Sequence[Placement]], controls: Sequence[str] = (), seed: int = 0
) -> dict[str, MethodScore]:
    """Average over words, and draw pictures to see how certain the averages are. All methods share the draws.

    Args:
        pictures: (M,) the picture of each word; words of one picture are drawn together, as they are not independent.
        placements: By method, one for each word in the same order.
        controls: Methods with which every other one is compared word by word; those that are missing are passed over.
        seed: Seed of the draws.

    Raises:
        CorpusError: There is no word.
        ValueError: A method has not one placement for each word.
    """
    if not pictures:
        raise CorpusError(
            "No caption names an object that is in its picture, so there is nothing to measure. Expected object words with "
            "instances. Use more pictures, a corpus with instances, or a better model."
        )
    wrong = [name for name, found in placements.items() if len(found) != len(pictures)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} have not one placement for each of {len(pictures)} words.")
    numbers, rows = np.unique(np.asarray(pictures), return_inverse=True)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=BOOTSTRAP_DRAWS)
    by_picture = np.vstack([np.ones(len(numbers)), drawn])  # the first row is the sample as it is
    weights = by_picture[:, rows].astype(np.float64)  # (1 + D, M)
    columns = {name: _columns(found) for name, found in placements.items()}
    return {name: _score(name, columns, placements[name], controls, weights) for name in placements}


def _columns(placements: Sequence[Placement]) -> Columns:
    share = np.array([found.mask_share for found in placements])
    area = np.array([found.mask_area for found in placements])
    boxes = np.array([found.box_shares for found in placements])  # (M, thresholds)
    return {
        "mask_share": share,
        "mask_area": area,
        "mean_of_ratios": share / area,
        "points_at_mask": np.array([found.points_at_mask for found in placements], dtype=np.float64),
        "correctness": boxes.mean(1),
        "box_area": np.array([found.box_area for found in placements]),
        "points_at_box": np.array([found.points_at_box for found in placements], dtype=np.float64),
        **{_at(t): boxes[:, number] for number, t in enumerate(THRESHOLDS)},
    }


def _at(threshold: float) -> str:
    return f"at {threshold:g}"


def _score(
    name: str,
    columns: Mapping[str, Columns],
    placements: Sequence[Placement],
    controls: Sequence[str],
    weights: NDArray[np.float64],
) -> MethodScore:
    total = weights.sum(1)
    means = {key: weights @ values / total for key, values in columns[name].items()}  # (1 + D,) each
    means["ratio_of_means"] = means["mask_share"] / means["mask_area"]
    figures = {key: _estimate(values) for key, values in means.items()}
    others = [control for control in controls if control in columns and control != name]

    def gain(figure: str) -> dict[str, Estimate]:
        own = columns[name][figure]
        return {other: _estimate(weights @ (own - columns[other][figure]) / total) for other in others}

    return MethodScore(
        figures={key: estimate for key, estimate in figures.items() if not key.startswith("at ")},
        thresholds=tuple(figures[_at(t)] for t in THRESHOLDS),
        above=gain("mask_share"),
        boxes_above=gain("correctness"),
        without_positive=sum(not found.positive for found in placements),
    )


def _estimate(values: NDArray[np.float64]) -> Estimate:
    """Return the first value with the interval of the others."""
    low, high = (float(bound) for bound in np.percentile(values[1:], INTERVAL))
    return Estimate(float(values[0]), low, high)
