"""Give the layers of a model their rules for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from capxai.errors import RelevanceError
from capxai.lrp.canonize import batch_norm_pairs, fold_batch_norm
from capxai.lrp.composites import Composite
from capxai.lrp.propagation import Ledger, Ruled
from capxai.lrp.rules import Call, PassThrough, Rule


@contextmanager
def attached(model: nn.Module, composite: Composite, ledger: Ledger | None = None) -> Iterator[None]:
    """Let the layers of a model propagate relevance while the context lasts.

    The forward pass computes what it always computes, with the same arithmetic; only the way back changes. Layers are given back as they
    were in every case, also after an exception.

    Args:
        model: The model, in evaluation mode.
        composite: Which rule each layer gets.
        ledger: Where nodes book what they keep; None to book nothing.

    Raises:
        RelevanceError: The model is in training mode or is attached already.
    """
    _refuse_unfit(model)
    changed: list[nn.Module] = []
    try:
        for layer, forward in _ruled_forwards(model, composite, ledger):
            layer.forward = forward
            changed.append(layer)
        yield
    finally:
        for layer in changed:
            del layer.__dict__["forward"]


def _refuse_unfit(model: nn.Module) -> None:
    if any(module.training and isinstance(module, nn.Dropout | nn.BatchNorm2d) for module in model.modules()):
        raise RelevanceError(
            "The model is in training mode, where dropout and batch norms change from call to call. Call model.eval() first."
        )
    if any("forward" in module.__dict__ for module in model.modules()):
        raise RelevanceError(
            "The model has rules attached already. Leave the first `with attached(...)` before entering another."
        )


def _ruled_forwards(
    model: nn.Module, composite: Composite, ledger: Ledger | None
) -> list[tuple[nn.Module, Callable[..., Tensor]]]:
    pairs = batch_norm_pairs(model) if composite.audited else []
    folded = {conv: fold_batch_norm(conv, norm) for conv, norm in pairs}
    norms = {norm for _, norm in pairs}
    found = []
    for name, layer in model.named_modules():
        rule = PassThrough() if layer in norms else composite.rule_for(name, layer)
        if rule is not None:
            found.append((layer, _ruled(name, layer, rule, (folded, ledger))))
    return found


def _ruled(
    name: str, layer: nn.Module, rule: Rule, context: tuple[dict[Any, Any], Ledger | None]
) -> Callable[..., Tensor]:
    folded, ledger = context
    plain = layer.forward

    def forward(*inputs: Any) -> Tensor:
        signals, node = rule.bind(Call(layer, plain, inputs, folded))
        output: Tensor = Ruled.apply(node, name, None if ledger is None else ledger.account, *signals)
        return output

    return forward
