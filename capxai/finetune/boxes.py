"""The true boxes of objects as a way to find regions: the upper bound for what relevance can find.

Axes: B pictures of a share, N pictures, O objects, K regions, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from capxai.finetune.regions import ChosenWords, origin_of
from capxai.models.captioner import Captioner


@dataclass(frozen=True)
class ObjectBoxes:
    """The boxes of the objects of N pictures, one picture after the other: O in all, in shares of width and height.

    Attributes:
        first: (N + 1,) int64; the boxes of picture n are first[n] to first[n + 1].
        boxes: (O, 4) float32: left, top, right, bottom, each in [0, 1].
        categories: (O,) int64, numbered as those of the words.
    """

    first: Tensor
    boxes: Tensor
    categories: Tensor

    def of(self, pictures: Tensor, categories: Tensor) -> tuple[Tensor, Tensor]:
        """Return the boxes of a category in each picture, (B, O', 4), and which of them there are, (B, O')."""
        begin, end = self.first[pictures], self.first[pictures + 1]
        places = begin[:, None] + torch.arange(max(1, int((end - begin).max())))
        there = places < end[:, None]
        places = places.clamp(max=max(0, len(self.boxes) - 1))
        return self.boxes[places], there & (self.categories[places] == categories[:, None])


RegionsOf = Callable[[Tensor], Tensor]
"""``regions_of(pictures (B,)) -> (B, K, 4)``: left, top, right, bottom of every region, in shares of width and height."""


@dataclass(frozen=True)
class ByBoxes:
    """The true boxes of the object that is named, instead of relevance: what a perfect explanation could reach.

    Attributes:
        objects: The objects of the training pictures.
        regions_of: Returns where the regions of pictures are, (B, K, 4) in shares of width and height.
        least: A region of which less is covered does not count, unless no other one is covered more.
    """

    objects: ObjectBoxes
    regions_of: RegionsOf
    least: float = 0.0

    def __call__(self, model: Captioner, features: Tensor, chosen: ChosenWords) -> Tensor:
        """Return the share of every region that lies in a box of the object, the largest of its boxes, (B, K)."""
        origin = origin_of(chosen)
        boxes, there = self.objects.of(origin.pictures, origin.categories)
        covered = covered_share(self.regions_of(origin.pictures)[:, :, None], boxes[:, None])  # (B, K, O')
        covered = (covered * there[:, None]).amax(2)
        counts = covered >= covered.amax(1, keepdim=True).clamp_max(self.least)
        return (covered * counts).to(features.device)


def covered_share(regions: Tensor, boxes: Tensor) -> Tensor:
    """Return the share of the area of regions (..., 4) that boxes (..., 4) cover; 0 for a region without area."""
    low, high = torch.maximum(regions[..., :2], boxes[..., :2]), torch.minimum(regions[..., 2:], boxes[..., 2:])
    common = (high - low).clamp_min(0).prod(-1)
    area = (regions[..., 2:] - regions[..., :2]).clamp_min(0).prod(-1)
    return torch.where(area > 0, common / area.clamp_min(torch.finfo(area.dtype).tiny), 0)


def grid_regions(rows: int, columns: int) -> Tensor:
    """Return the cells of a grid over the whole picture, row by row: (K, 4), in shares of width and height."""
    top, left = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    corners = [left / columns, top / rows, (left + 1) / columns, (top + 1) / rows]
    return torch.stack(corners, -1).flatten(0, 1)
