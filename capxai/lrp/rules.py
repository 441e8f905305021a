"""Relevance rules as small frozen values. Each says how one kind of layer passes relevance from its output to its inputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from capxai.errors import RelevanceError
from capxai.layers.structure import Gate, MergeHeads
from capxai.lrp import formulas
from capxai.lrp.affine import AffineMap, Folded, affine_map
from capxai.lrp.pooling import pool_windows
from capxai.lrp.propagation import Kept, Node, Propagate
from capxai.lrp.sums import linear_sum

Forward = Callable[..., Tensor]
NOTHING = Kept()


@dataclass(frozen=True)
class Call:
    """One call of a layer: what it was given and what it needs.

    Attributes:
        layer: The module.
        forward: Its plain forward function.
        inputs: The arguments of the call.
        folded: Weights to use instead of the layer's own, see `capxai.lrp.canonize`.
    """

    layer: nn.Module
    forward: Forward
    inputs: tuple[Any, ...]
    folded: Folded


class Rule:
    """Base of all rules."""

    @abstractmethod
    def bind(self, call: Call) -> tuple[tuple[Tensor, ...], Node]:
        """Separate the inputs that receive relevance from the rest, which is constant to the rule.

        Returns:
            The signals, and the node that maps them to the plain output and the way back.

        Raises:
            RelevanceError: The rule cannot be used for this layer.
        """


def _unary(call: Call, back: Callable[[Tensor, Tensor], Tensor]) -> tuple[tuple[Tensor, ...], Node]:
    def node(x: Tensor) -> tuple[Tensor, Propagate]:
        return call.forward(x), lambda relevance: ((back(relevance, x),), NOTHING)

    return (call.inputs[0],), node


@dataclass(frozen=True)
class PassThrough(Rule):
    """Identity, for tanh and ReLU on the signal path and for batch norms that are folded away."""

    def bind(self, call: Call) -> tuple[tuple[Tensor, ...], Node]:
        """See `Rule.bind`."""
        return _unary(call, lambda relevance, x: relevance)


@dataclass(frozen=True)
class GuidedReLU(Rule):
    """Guided backpropagation at a ReLU (Springenberg et al. 2015)."""

    def bind(self, call: Call) -> tuple[tuple[Tensor, ...], Node]:
        """See `Rule.bind`."""
        return _unary(call, formulas.guided)


@dataclass(frozen=True)
class SignalTakesAll(Rule):
    """A product with a gate gives all relevance to the signal and none to the gate (Arras et al. 2017, section 3.1)."""

    def bind(self, call: Call) -> tuple[tuple[Tensor, ...], Node]:
        """See `Rule.bind`."""
        if not isinstance(call.layer, Gate):
            raise RelevanceError(f"SignalTakesAll is a rule for gates, but was given to a {type(call.layer).__name__}.")
        gate, signal = call.inputs[0].detach(), call.inputs[1]

        def node(x: Tensor) -> tuple[Tensor, Propagate]:
            return call.forward(gate, x), lambda relevance: ((relevance,), NOTHING)

        return (signal,), node


@dataclass(frozen=True)
class SelectHead(Rule):
    """Keep the relevance of one attention head; that of the others is accounted for, not passed on.

    Attributes:
        head: Index of the head, from 0.
    """

    head: int

    def bind(self, call: Call) -> tuple[tuple[Tensor, ...], Node]:
        """See `Rule.bind`."""
        if not isinstance(call.layer, MergeHeads):
            raise RelevanceError(
                f"SelectHead is a rule for merged heads, but was given to a {type(call.layer).__name__}."
            )

        def node(heads: Tensor) -> tuple[Tensor, Propagate]:
            chosen = torch.zeros_like(heads[0, :, :1])  # (N, 1)
            chosen[self.head] = 1

            def propagate(relevance: Tensor) -> tuple[tuple[Tensor, ...], Kept]:
                sliced = relevance.reshape(heads.shape)
                return (sliced * chosen,), Kept(other_heads=sliced * (1 - chosen))

            return call.forward(heads), propagate

        return (call.inputs[0],), node


@dataclass(frozen=True)
class Epsilon(Rule):
    """R_j = sum_k x_j w_kj / (z_k + eps sign z_k) R_k with z including the bias (Bach et al. 2015, equation 58).

    For every layer that is a sum of linear contributions: dense and convolutional layers, `Add`, `Mean`, `WeightedSum` with its weights
    constant, and the affine map of an LSTM cell.

    Attributes:
        eps: The stabilizer, in the unit of the layer's output.
    """

    eps: float = 0.01

    def bind(self, call: Call) -> tuple[tuple[Tensor, ...], Node]:
        """See `Rule.bind`."""
        total = linear_sum(call.layer, call.inputs, call.folded)

        def node(*signals: Tensor) -> tuple[Tensor, Propagate]:
            output = call.forward(*total.arguments(signals))
            z = (total.output(signals) if call.layer in call.folded else output).detach()

            def propagate(relevance: Tensor) -> tuple[tuple[Tensor, ...], Kept]:
                s = formulas.epsilon_quotient(relevance, z, self.eps)
                parts = tuple(x * c for x, c in zip(signals, total.transpose(s, signals), strict=True))
                bias = None if total.bias is None else formulas.kept_by_bias(s, total.bias)
                return parts, Kept(bias, formulas.kept_by_eps(relevance, s, z, self.eps))

            return output, propagate

        return total.signals, node


class AffineRule(Rule):
    """Base of the rules that change the weights of a dense or convolutional layer."""

    def bind(self, call: Call) -> tuple[tuple[Tensor, ...], Node]:
        """See `Rule.bind`."""
        affine = affine_map(call.layer, call.folded)

        def node(x: Tensor) -> tuple[Tensor, Propagate]:
            return call.forward(x), self.way_back(affine, affine.layout(x))

        return (call.inputs[0],), node

    @abstractmethod
    def way_back(self, affine: AffineMap, x: Tensor) -> Propagate:
        """Compute what depends on the picture alone, and return the function that carries relevance."""


@dataclass(frozen=True)
class AlphaBeta(AffineRule):
    """R_j = sum_k (alpha (x_j w_jk)+ / z+_k - beta (x_j w_jk)- / z-_k) R_k without the bias (Bach et al. 2015, equation 60).

    Inputs are split by sign: x+ w+ and x- w- are the positive contributions. The division is guarded only where z is 0; what arrives there
    is accounted for as kept by eps.

    Attributes:
        alpha: Weight of the positive contributions; alpha - beta = 1 conserves relevance.
        beta: Weight of the negative contributions.
    """

    alpha: float = 1.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that do not conserve relevance."""
        if self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise RelevanceError(
                f"alpha {self.alpha:g} and beta {self.beta:g} do not conserve relevance. Expected alpha - beta = 1 with beta >= 0, "
                "for example alpha 1 beta 0 or alpha 2 beta 1."
            )

    def way_back(self, affine: AffineMap, x: Tensor) -> Propagate:
        """See `AffineRule.way_back`."""
        w = affine.layout(affine.weight)
        parts = [(self.alpha, _SignedPart(affine, x, formulas.positive(w), formulas.negative(w)))]
        if self.beta:
            parts.append((-self.beta, _SignedPart(affine, x, formulas.negative(w), formulas.positive(w))))

        def propagate(relevance: Tensor) -> tuple[tuple[Tensor, ...], Kept]:
            carried = [
                part.carry(relevance) if factor == 1 else factor * part.carry(relevance) for factor, part in parts
            ]
            guarded = [(factor, part.guarded(relevance)) for factor, part in parts]
            kept = [factor * amount for factor, amount in guarded if amount is not None]
            return (sum(carried[1:], carried[0]),), Kept(eps=torch.cat(kept, 1) if kept else None)

        return propagate


class _SignedPart:
    """The contributions of one sign: x+ with one set of weights, x- with the other."""

    def __init__(self, affine: AffineMap, x: Tensor, for_positive: Tensor, for_negative: Tensor) -> None:
        self.affine = affine
        self.terms = [(formulas.positive(x), for_positive)]
        if bool((x < 0).any()):
            self.terms.append((formulas.negative(x), for_negative))
        z = sum((affine.apply(x, w) for x, w in self.terms[1:]), affine.apply(*self.terms[0]))
        self.denominator = formulas.without_zeros(z)
        is_zero = _units_last(torch.isinf(self.denominator))
        self.guarded_units = is_zero.any(0).nonzero().squeeze(1)
        self.zero = is_zero[:, self.guarded_units]

    def carry(self, relevance: Tensor) -> Tensor:
        s = relevance / self.denominator
        terms = [self.affine.transpose(s, w, x).mul_(x) for x, w in self.terms]
        return sum(terms[1:], terms[0])

    def guarded(self, relevance: Tensor) -> Tensor | None:
        """Return the relevance that arrives where the denominator is zero, (B, units with a zero somewhere in the batch)."""
        if not len(self.guarded_units):
            return None
        return _units_last(relevance).index_select(1, self.guarded_units) * self.zero


def _units_last(tensor: Tensor) -> Tensor:
    """Flatten (B, C, ...) to (B, rest) with channels fastest, which is no copy where the memory is channels-last."""
    return tensor.movedim(1, -1).reshape(tensor.shape[0], -1)


@dataclass(frozen=True)
class Gamma(AffineRule):
    """R_j = sum_k (z_jk + gamma z+_jk) / (sum_j (z_jk + gamma z+_jk) + b_k + gamma b+_k) R_k (Montavon et al. 2019, section 10.2.3).

    Attributes:
        gamma: How much positive contributions are favored; 0 is the plain rule, large values approach alpha 1 beta 0.
        eps: Stabilizer of the denominator.
    """

    gamma: float = 0.25
    eps: float = 1e-6

    def way_back(self, affine: AffineMap, x: Tensor) -> Propagate:
        """See `AffineRule.way_back`."""
        w, gamma = affine.layout(affine.weight), self.gamma
        terms = [
            (formulas.positive(x), w + gamma * formulas.positive(w)),
            (formulas.negative(x), w + gamma * formulas.negative(w)),
        ]
        bias = None if affine.bias is None else affine.spread(affine.bias + gamma * formulas.positive(affine.bias))
        return _terms_way_back(affine, terms, bias, self.eps)


@dataclass(frozen=True)
class ZBox(AffineRule):
    """z-box for the first layer, whose inputs lie between two bounds (Montavon et al. 2017, equation 14).

    Attributes:
        low: Smallest value of each input channel, in normalized units.
        high: Largest value of each input channel.
        eps: Stabilizer of the denominator.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    eps: float = 1e-6

    def way_back(self, affine: AffineMap, x: Tensor) -> Propagate:
        """See `AffineRule.way_back`."""
        w = affine.layout(affine.weight)
        low, high = (affine.spread(x.new_tensor(bound)) for bound in (self.low, self.high))
        inputs = formulas.box_input(x, low, high)
        terms = list(zip(inputs, (w, -formulas.positive(w), -formulas.negative(w)), strict=True))
        return _terms_way_back(affine, terms, None, self.eps)


def _terms_way_back(
    affine: AffineMap, terms: list[tuple[Tensor, Tensor]], bias: Tensor | None, eps: float
) -> Propagate:
    z = sum((affine.apply(x, w) for x, w in terms[1:]), affine.apply(*terms[0]))
    if bias is not None:
        z = z + bias

    def propagate(relevance: Tensor) -> tuple[tuple[Tensor, ...], Kept]:
        s = formulas.epsilon_quotient(relevance, z, eps)
        carried = [affine.transpose(s, w, x) * x for x, w in terms]
        kept_bias = None if bias is None else formulas.kept_by_bias(s, bias)
        return (sum(carried[1:], carried[0]),), Kept(kept_bias, formulas.kept_by_eps(relevance, s, z, eps))

    return propagate


@dataclass(frozen=True)
class WinnerTakesAll(Rule):
    """Max-pooling gives all relevance to the largest input of each window, the first one where several are equal."""

    def bind(self, call: Call) -> tuple[tuple[Tensor, ...], Node]:
        """See `Rule.bind`."""
        if not isinstance(call.layer, nn.MaxPool2d):
            raise RelevanceError(
                f"WinnerTakesAll is a rule for max-pooling, but was given to a {type(call.layer).__name__}."
            )
        layer = call.layer

        def node(x: Tensor) -> tuple[Tensor, Propagate]:
            windows = pool_windows(layer, x)
            return call.forward(x), lambda relevance: ((windows.carry(relevance),), NOTHING)

        return (call.inputs[0],), node
