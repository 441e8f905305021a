"""Refuse, by name, any operation on the path of relevance that has no rule.

Without the audit a layer that no rule knows would pass its derivative on instead of relevance: the heatmap would be wrong and look
right.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from capxai.errors import RelevanceError

ROUTING = frozenset(
    f"{name}Backward0"
    for name in (
        "Alias", "Cat", "Clone", "Expand", "Gather", "Index", "IndexSelect", "Permute", "ReshapeAlias", "Select", "Slice", "Split",
        "SplitWithSizes", "Squeeze", "Stack", "T", "ToCopy", "Transpose", "Unbind", "UnsafeSplit", "UnsafeView", "Unsqueeze", "View",
    )
) | {"SqueezeBackward1", "AccumulateGrad", "RuledBackward"}  # fmt: skip
"""Operations that only move numbers: their derivative moves relevance just so. And the leaves, and the ruled nodes themselves."""


def audit(*outputs: Tensor) -> None:
    """Walk the graph behind tensors from its end to its leaves.

    Args:
        *outputs: The explained logits or what they are computed from, themselves computed under `capxai.lrp.attach.attached`.

    Raises:
        RelevanceError: An operation has no rule. The message names each of them and the ruled layer that it feeds.
    """
    foreign: dict[str, str] = {}
    stack: list[tuple[Any, str]] = [(output.grad_fn, "the logits") for output in outputs]
    seen: set[Any] = set()
    while stack:
        function, consumer = stack.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        name = type(function).__name__
        if name not in ROUTING:
            foreign.setdefault(name, consumer)
        here = f"'{function.layer_name}'" if name == "RuledBackward" else consumer
        stack += [(parent, here) for parent, _ in function.next_functions]
    if foreign:
        listed = ", ".join(
            f"{name.rstrip('0123456789').removesuffix('Backward')} (on the way to {consumer})"
            for name, consumer in foreign.items()
        )
        raise RelevanceError(
            f"Relevance cannot pass these operations, because no rule is known for them: {listed}. Expected only layers that the composite "
            "covers. Write the operation as a module of capxai.layers and give it a rule in the composite."
        )
