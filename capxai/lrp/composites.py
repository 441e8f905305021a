"""Composites: which rule each layer gets. A composite is data; the first entry that matches wins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from torch import nn

from capxai.layers.lstm import GateAffine
from capxai.layers.structure import Add, Gate, Mean, MergeHeads, WeightedSum
from capxai.lrp.rules import (
    AlphaBeta,
    Epsilon,
    GuidedReLU,
    PassThrough,
    Rule,
    SelectHead,
    SignalTakesAll,
    WinnerTakesAll,
)

Target = type[nn.Module] | str
"""A layer type, or a pattern for the layer's dotted name ("trunk.0", "*.fc")."""


@dataclass(frozen=True)
class Composite:
    """An ordered list of rules.

    Attributes:
        name: For messages.
        entries: (target, rule) pairs, first match wins; layers without a match keep their derivative.
        audited: Whether an operation without a rule is an error. True where relevance is to be conserved.
    """

    name: str
    entries: tuple[tuple[Target, Rule], ...] = ()
    audited: bool = False

    def rule_for(self, name: str, layer: nn.Module) -> Rule | None:
        """Return the rule of a layer, or None where no entry matches."""
        for target, rule in self.entries:
            if fnmatchcase(name, target) if isinstance(target, str) else isinstance(layer, target):
                return rule
        return None

    def preceded_by(self, *entries: tuple[Target, Rule]) -> Composite:
        """Return a composite in which the given entries are asked first."""
        return replace(self, entries=(*entries, *self.entries))


def lrp(eps: float = 0.01, convolution: Rule | None = None, head: int | None = None) -> Composite:
    """Return the composite of method.md, section 2.

    Args:
        eps: Stabilizer of every linear sum, in the unit of its output.
        convolution: Rule of the encoder's convolutions; alpha-1 beta-0 where None.
        head: Keep the relevance of this attention head alone; all heads where None.
    """
    entries: tuple[tuple[Target, Rule], ...] = (
        (nn.Conv2d, convolution or AlphaBeta(1, 0)),
        (nn.Linear, Epsilon(eps)),
        (GateAffine, Epsilon(eps)),
        (Add, Epsilon(eps)),
        (Mean, Epsilon(eps)),
        (WeightedSum, Epsilon(eps)),
        (Gate, SignalTakesAll()),
        (nn.ReLU, PassThrough()),
        (nn.Tanh, PassThrough()),
        (nn.MaxPool2d, WinnerTakesAll()),
    )
    chosen = () if head is None else ((MergeHeads, SelectHead(head)),)
    return Composite("lrp", (*chosen, *entries), audited=True)


GRADIENT = Composite("gradient")
"""Plain derivatives from autograd."""

GUIDED_BACKPROP = Composite("guided-backprop", ((nn.ReLU, GuidedReLU()),))
"""Derivatives with the guided ReLU."""
