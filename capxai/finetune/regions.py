"""Which regions a word comes from, for one word of each caption of a batch.

Axes: B batch, T steps, K regions, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from capxai.finetune.batches import Lottery
from capxai.lrp.attach import attached
from capxai.lrp.composites import GRADIENT, Composite, lrp
from capxai.models.captioner import Captioner
from capxai.models.state import HeadInputs, Step


@dataclass(frozen=True)
class Origin:
    """Where chosen words are from, for methods that do not ask the model.

    Attributes:
        pictures: (B,) int64, the picture of each.
        categories: (B,) int64, the number of the object that each word begins to name.
        lottery: Source of randomness for these rows.
    """

    pictures: Tensor
    categories: Tensor
    lottery: Lottery


@dataclass(frozen=True)
class ChosenWords:
    """One word of each caption.

    Attributes:
        inputs: (B, T) int64, ``<start>`` and the words of each caption.
        places: (B,) int64 in [0, T), the step that says the word.
        words: (B,) int64, the word.
        origin: Where they are from; only some methods want to know.
    """

    inputs: Tensor
    places: Tensor
    words: Tensor
    origin: Origin | None = None

    @property
    def steps(self) -> int:
        """How many steps it takes to say all of them."""
        return int(self.places.max()) + 1

    def at_places(self, values: Tensor) -> Tensor:
        """Take (B, ...) from (B, T, ...)."""
        return values[torch.arange(len(values), device=values.device), self.places.to(values.device)]


def origin_of(chosen: ChosenWords) -> Origin:
    """Return where words are from.

    Raises:
        ValueError: Nobody has said so.
    """
    if chosen.origin is None:
        raise ValueError("Found words without their origin; expected it, because the regions are found by it.")
    return chosen.origin


RegionMethod = Callable[[Captioner, Tensor, ChosenWords], Tensor]
"""``method(model, features (B, K, C), chosen) -> (B, K)``: the larger, the more the region speaks for the word."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while, and each part back into the mode it had."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _carried(model: Captioner, features: Tensor, chosen: ChosenWords, composite: Composite) -> tuple[Tensor, Tensor]:
    """Carry the logit of each chosen word back to its picture: (B, K, C) features, and what arrives at them.

    The captions of a batch do not touch each other, so one backward pass serves all of them.
    """
    leaf = features.detach().to(model.dtype).requires_grad_()
    rows = torch.arange(len(leaf), device=leaf.device)
    exactly = torch.autocast(leaf.device.type, enabled=False)
    with evaluating(model), torch.enable_grad(), exactly, attached(model.decoder, composite):
        vectors = model.embed(chosen.inputs[:, : chosen.steps]).detach()
        inputs = model.read(model.remember(leaf), vectors)
        logits = model.speak(HeadInputs(chosen.at_places(inputs.context), chosen.at_places(inputs.hidden)))  # (B, V)
    start = torch.zeros_like(logits)
    start[rows, chosen.words] = logits.detach()[rows, chosen.words] if composite.audited else 1.0
    (arrived,) = torch.autograd.grad(logits, leaf, start)
    return leaf.detach(), arrived


def by_lrp(model: Captioner, features: Tensor, chosen: ChosenWords) -> Tensor:
    """Return the relevance of every region, (B, K) in logit units, by the rules of method.md, section 2."""
    return _carried(model, features, chosen, lrp())[1].sum(-1)


def by_gradient_times_input(model: Captioner, features: Tensor, chosen: ChosenWords) -> Tensor:
    """Return feature x derivative, summed over channels, (B, K)."""
    values, derivatives = _carried(model, features, chosen, GRADIENT)
    return (values * derivatives).sum(-1)


@torch.no_grad()
def by_attention(model: Captioner, features: Tensor, chosen: ChosenWords) -> Tensor:
    """Return the attention weights of the step, (B, K), the mean over heads where there are several."""
    with evaluating(model):
        vectors = model.embed(chosen.inputs[:, : chosen.steps])
        steps: list[Step] = model.unroll(
            model.remember(features.to(model.dtype)), lambda t, _: vectors[:, t], chosen.steps
        )
    weights = chosen.at_places(torch.stack([step.attention for step in steps], 1))
    return weights.mean(1) if weights.dim() == 3 else weights


def by_chance(model: Captioner, features: Tensor, chosen: ChosenWords) -> Tensor:
    """Return random numbers in the place of relevance, (B, K) uniform in [0, 1): the control."""
    return origin_of(chosen).lottery.uniform(features.shape[1]).to(features.device)


def most_relevant(scores: Tensor, share: float) -> Tensor:
    """Tell which regions score highest.

    Args:
        scores: (B, K).
        share: Part of the regions; at least one, and all but one at most.

    Returns:
        (B, K) bool.

    Raises:
        ValueError: There is only one region.
    """
    regions = scores.shape[1]
    if regions < 2:
        raise ValueError("Found one region; expected two or more, so that some can be hidden and some stay.")
    count = min(max(1, round(share * regions)), regions - 1)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.topk(count, 1).indices, True)


def without_regions(features: Tensor, hidden: Tensor) -> Tensor:
    """Hide regions: each becomes the mean of its picture's regions that stay.

    Args:
        features: (B, K, C).
        hidden: (B, K) bool; where all are, they become the mean of all.
    """
    staying = (~hidden).unsqueeze(2).to(features.dtype)
    staying = torch.where(staying.sum(1, keepdim=True) > 0, staying, torch.ones_like(staying))
    mean = (features * staying).sum(1, keepdim=True) / staying.sum(1, keepdim=True)
    return torch.where(hidden.unsqueeze(2), mean, features)
