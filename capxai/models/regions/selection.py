"""Which regions of a picture to keep, and the mean of the feature map inside them."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, roi_align

_SAMPLES = 14  # 7 x 7 bins of 2 x 2 samples; the mean over the bins is the mean over all samples


def select_regions(
    proposals: Tensor, scores: Tensor, refined: Tensor, count: int, *, overlap: float, minimum: float
) -> Tensor:
    """Choose the boxes of a picture by the rule of bottom-up attention.

    A proposal counts as much as its highest class score that survives non-maximum suppression within that class, and takes part
    once, with the box of that class. Proposals without such a score follow in the order of their objectness.

    Args:
        proposals: (P, 4) boxes, objectness descending.
        scores: (P, M) probabilities of the classes, without the background.
        refined: (P, M, 4) the box that each class makes of each proposal.
        count: How many to return at most.
        overlap: Intersection over union above which a box suppresses a weaker one of its class.
        minimum: Class scores up to this are ignored.

    Returns:
        (min(P, count), 4) boxes, score descending, ties by the index of the proposal.
    """
    pairs = torch.nonzero(scores > minimum)  # (Q, 2): proposal, class
    pair_scores, pair_boxes = scores[pairs[:, 0], pairs[:, 1]], refined[pairs[:, 0], pairs[:, 1]]
    kept = batched_nms(pair_boxes, pair_scores, pairs[:, 1], overlap).sort().values
    kept = kept[torch.sort(pair_scores[kept], descending=True, stable=True).indices]
    ranks = torch.arange(len(kept), device=scores.device)
    first = torch.full((len(proposals),), len(kept), device=scores.device)
    first.scatter_reduce_(0, pairs[kept, 0], ranks, "amin")  # the best rank of each proposal
    detected = first < len(kept)
    order = torch.where(detected, first, len(kept) + torch.arange(len(proposals), device=scores.device))
    chosen = torch.argsort(order)[:count]  # all keys differ
    boxes = proposals.clone()
    boxes[detected] = pair_boxes[kept[first[detected]]]
    return boxes[chosen]


def complete(boxes: Tensor, count: int, height: float, width: float) -> Tensor:
    """Append boxes of the whole picture to (P, 4) boxes until there are ``count``."""
    whole = boxes.new_tensor([0.0, 0.0, width, height])
    return torch.cat([boxes[:count], whole.expand(max(0, count - len(boxes)), 4)])


def mean_inside(features: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """Average a feature map inside boxes (RoIAlign, He et al. 2017: bilinear samples, no rounding), 7 x 7 bins of 2 x 2 samples.

    Args:
        features: (B, C, H, W).
        boxes: (B, K, 4) left, top, right, bottom in pixels of the network's input.
        stride: Pixels per cell.

    Returns:
        (B, K, C).
    """
    batch, count = boxes.shape[:2]
    numbers = torch.arange(batch, device=boxes.device).repeat_interleave(count)
    regions = torch.cat([numbers[:, None].to(boxes), boxes.reshape(-1, 4)], dim=1)  # (B*K, 5)
    # One bin of 14 x 14 samples in place of 49 bins of four: the same mean without the 49 times larger array between.
    pooled: Tensor = roi_align(features, regions, 1, 1 / stride, _SAMPLES, aligned=True)
    return pooled.reshape(batch, count, -1)
