"""Layers as sums of linear contributions: what the epsilon rule needs to know of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from capxai.layers.lstm import GateAffine
from capxai.layers.structure import Add, Mean, WeightedSum
from capxai.lrp.affine import Folded, affine_map


@dataclass(frozen=True)
class LinearSum:
    """z_k = sum_j contribution of signal j + bias.

    Attributes:
        signals: The inputs that receive relevance.
        arguments: Signals (as the node sees them) to the arguments of the layer's forward function.
        transpose: s (shape of z) and the signals to one tensor per signal: the transposed map applied to s.
        bias: Broadcasts to z; None where there is none.
        output: Signals to z, for layers whose folded weights differ from their own.
    """

    signals: tuple[Tensor, ...]
    arguments: Callable[[tuple[Tensor, ...]], tuple[Any, ...]]
    transpose: Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
    bias: Tensor | None = None
    output: Callable[[tuple[Tensor, ...]], Tensor] = lambda signals: signals[0]


def linear_sum(layer: nn.Module, inputs: tuple[Any, ...], folded: Folded) -> LinearSum:
    """Describe a call of a layer as a linear sum.

    Raises:
        RelevanceError: The layer is none that is linear in its signal.
    """
    if isinstance(layer, Add):
        return LinearSum(inputs, lambda signals: signals, lambda s, signals: (s, s))
    if isinstance(layer, Mean):
        return LinearSum(inputs, lambda signals: signals, _mean_transpose)
    if isinstance(layer, WeightedSum):
        weights = inputs[0].detach()
        return LinearSum(
            (inputs[1],),
            lambda signals: (weights, *signals),
            lambda s, signals: (weights.unsqueeze(-1) * s.unsqueeze(-2),),
        )
    if isinstance(layer, GateAffine):
        return _lstm_affine(*inputs)
    affine = affine_map(layer, folded)
    bias = None if affine.bias is None else affine.spread(affine.bias)
    return LinearSum(
        inputs,
        lambda signals: signals,
        lambda s, signals: (affine.transpose(s, affine.weight, signals[0]),),
        bias,
        lambda signals: affine.apply(signals[0], affine.weight) + (0 if bias is None else bias),
    )


def _mean_transpose(s: Tensor, signals: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    regions = signals[0].shape[-2]
    return ((s / regions).unsqueeze(-2).expand(*s.shape[:-1], regions, s.shape[-1]),)


def _lstm_affine(x: Tensor, hidden: Tensor, cell: nn.LSTMCell) -> LinearSum:
    weight_ih, weight_hh = cell.weight_ih.detach(), cell.weight_hh.detach()
    return LinearSum(
        (x, hidden),
        lambda signals: (*signals, cell),
        lambda s, signals: (torch.mm(s, weight_ih), torch.mm(s, weight_hh)),
        (cell.bias_ih + cell.bias_hh).detach(),
    )
