"""Fold batch norms into the convolutions before them, for relevance only.

The model is not touched: the folded weights are handed to the rules, and the batch norm passes relevance on as it is. The plain forward
pass therefore stays what it was, bit for bit.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the convolution that equals conv followed by norm in evaluation mode.

    w' = w gamma / sqrt(var + eps), b' = (b - mean) gamma / sqrt(var + eps) + beta (Ioffe and Szegedy 2015), computed in float64.

    Returns:
        Weight (out, in / groups, kh, kw) and bias (out,) in the convolution's dtype.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    deviation = torch.sqrt(norm.running_var.double() + norm.eps)
    gamma = norm.weight.detach().double() if norm.affine else torch.ones_like(deviation)
    beta = norm.bias.detach().double() if norm.affine else torch.zeros_like(deviation)
    bias = conv.bias.detach().double() if conv.bias is not None else torch.zeros_like(deviation)
    scale = gamma / deviation
    weight = conv.weight.detach().double() * scale[:, None, None, None]
    shifted = (bias - norm.running_mean.double()) * scale + beta
    return weight.to(conv.weight.dtype), shifted.to(conv.weight.dtype)


def batch_norm_pairs(model: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Find every convolution whose output goes to a batch norm.

    Two conventions are known: neighbors in a `nn.Sequential` (VGG, the down-sampling path of a ResNet, the first layers of its trunk),
    and the attributes ``convN`` and ``bnN`` of one module (the blocks of a ResNet).
    """
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    for module in model.modules():
        children = dict(module.named_children())
        if isinstance(module, nn.Sequential):
            candidates: list[tuple[nn.Module, nn.Module | None]] = list(pairwise(children.values()))
        else:
            candidates = [
                (child, children.get(name.replace("conv", "bn", 1)))
                for name, child in children.items()
                if "conv" in name
            ]
        pairs += [(a, b) for a, b in candidates if isinstance(a, nn.Conv2d) and isinstance(b, nn.BatchNorm2d)]
    return pairs
