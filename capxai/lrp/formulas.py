"""The equations of layer-wise relevance propagation as pure functions: tensors in, relevance out.

Every function works on any leading axes, so that all words of a caption can pass at once. Notation: x input, w weight, b bias, z output of
a node; R relevance of the output in logit units; s = R / z the relevance per unit of output. Indices: j input, k output.
"""

from __future__ import annotations

import torch
from torch import Tensor

GUARD_FACTOR = 1024.0


def guard(dtype: torch.dtype) -> float:
    """Return the magnitude up to which a denominator counts as zero.

    It is the smallest normal number times 1024: far below any real activation, and large enough that a quotient of relevances cannot
    overflow.
    """
    return torch.finfo(dtype).tiny * GUARD_FACTOR


def sign(z: Tensor) -> Tensor:
    """Return -1 where z is negative and +1 elsewhere, also at zero."""
    return torch.where(z < 0, -torch.ones_like(z), torch.ones_like(z))


def stabilize(z: Tensor, eps: float) -> Tensor:
    """Return z + eps sign(z), which is never nearer to zero than eps (Bach et al. 2015, equation 58)."""
    return z + eps * sign(z)


def quotient(relevance: Tensor, denominator: Tensor) -> Tensor:
    """Return R / z, and 0 where z is zero: a node without contributions has nobody to give its relevance to.

    Args:
        relevance: (..., shape of denominator).
        denominator: Zero entries may be encoded as infinity beforehand, see `without_zeros`.
    """
    return relevance / without_zeros(denominator)


def without_zeros(denominator: Tensor) -> Tensor:
    """Replace entries that count as zero by infinity, so that dividing by them gives zero."""
    return torch.where(denominator.abs() <= guard(denominator.dtype), torch.inf, denominator)


def epsilon_quotient(relevance: Tensor, z: Tensor, eps: float) -> Tensor:
    """Return s_k = R_k / (z_k + eps sign z_k), the common factor of the epsilon rule.

    The rule is R_j = sum_k x_j w_kj s_k, with z including the bias (Bach et al. 2015, equation 58; method.md, section 2).
    """
    return quotient(relevance, stabilize(z, eps))


def kept_by_eps(relevance: Tensor, s: Tensor, z: Tensor, eps: float) -> Tensor:
    """Return the relevance that eps keeps at each output, eps sign(z_k) s_k.

    Without eps nothing is kept but what arrives at outputs of zero, which have no contributions to share it among.
    """
    kept = eps * sign(z) * s
    if eps > guard(z.dtype):
        return kept
    return torch.where(torch.isinf(without_zeros(stabilize(z, eps))), relevance, kept)


def kept_by_bias(s: Tensor, bias: Tensor) -> Tensor:
    """Return the relevance that the bias keeps at each output, b_k s_k; ``bias`` broadcasts to s."""
    return bias * s


def positive(tensor: Tensor) -> Tensor:
    """Return max(x, 0)."""
    return tensor.clamp(min=0)


def negative(tensor: Tensor) -> Tensor:
    """Return min(x, 0)."""
    return tensor.clamp(max=0)


def guided(relevance: Tensor, x: Tensor) -> Tensor:
    """Return R where both the input of the ReLU and R are positive, else 0 (Springenberg et al. 2015)."""
    return positive(relevance) * (x > 0)


def box_input(x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the three inputs of the z-box rule, to be paired with w, -w+ and -w- (Montavon et al. 2017, equation 14).

    z_jk = x_j w_jk - l_j w+_jk - h_j w-_jk, with l <= x <= h per channel.
    """
    return x, low.expand_as(x), high.expand_as(x)
