"""Counterfactual fine-tuning: hide what a word is seen from, and teach the model not to say it then.

A caption names an object. Relevance tells which regions of the picture speak for the word; these regions are hidden, so that the object is
gone and all that stays are its usual companions. There the word is penalized (unlikelihood; Welleck et al. 2020), and a reference
of the same picture that does not name the object is read with the object hidden. No boxes are needed.

Every draw is made, and every mean is taken, over the batch of all processes: a share of it contributes its part.

Axes: B rows of a share, T steps, L words of the other reference, K regions, C channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from capxai.finetune.batches import Captions, Lottery
from capxai.finetune.lrp_inference import CrossEntropy, summed_cross_entropy
from capxai.finetune.mentions import ObjectMentions, Scene
from capxai.finetune.regions import ChosenWords, Origin, RegionMethod, by_lrp, most_relevant, without_regions
from capxai.models.captioner import Captioner
from capxai.models.state import HeadInputs, Memory

LossOfPictures = Callable[[Captioner, Memory, Any], tuple[Tensor, float]]
"""The summed loss of a share of a batch of pictures as they are, and the number of words that it is summed over."""

LEAST_PROBABILITY = 1e-6
"""Floor in the logarithm."""


@dataclass(frozen=True)
class Counterfactual:
    """The objective ``lrp-counterfactual``, its controls with another `RegionMethod`, and its unions with LRP inference and rewards.

    loss = (1 - mu) L(y | picture) + kappa N + mu U + rho CE(y' | picture without the object), with L the loss of the picture as it is,
    N and U the means of -log(q) and of -log(1 - q'), where q and q' are the sums of p over the words that begin a name of the category,
    at the place where y names the object, with the object seen and hidden, and y' a reference that does not name it. N and U together
    teach what the region changes, and not only to say less.

    Attributes:
        mentions: Where references name objects.
        find_regions: What tells which regions a word comes from.
        hidden_share: Part of the regions to hide, those that score highest; None hides all that score above 0.
        penalty: mu in [0, 1].
        other_reference: rho, weight of the reference that does not name the object.
        emphasis: kappa, weight of naming the object where it is seen, beyond what L gives it.
        as_it_is: L: the cross-entropy, or what else fine-tuning can make small (LRP inference, a reward).
    """

    mentions: ObjectMentions
    find_regions: RegionMethod = by_lrp
    hidden_share: float | None = 0.15
    penalty: float = 0.4
    other_reference: float = 0.5
    emphasis: float = 0.0
    as_it_is: LossOfPictures = field(default_factory=CrossEntropy)

    def __call__(self, model: Captioner, memory: Memory, batch: Captions) -> tuple[Tensor, float]:
        """Return this share's part of the loss times the words of the batch, and the number of words in the share."""
        pad = model.vocabulary.pad
        loss, words = self.as_it_is(model, memory, batch)
        scene = Scene.draw(self.mentions, batch.whole)
        lottery = Lottery.of(batch)
        if not bool(scene.names.any()):
            return loss, words
        loss = (1 - self.penalty) * loss
        if not len(batch.rows):
            return loss, words
        everything = float((self.mentions.references.targets(batch.whole.captions) != pad).sum())
        share = scene.share(batch.first, len(batch.rows))
        hidden = self._hide(model, memory.features, batch, share, lottery)
        blind = model.remember(hidden)
        each = everything / float(scene.names.sum())
        probability = self._probability(model, blind, batch, share)
        loss = loss + each * self.penalty * _surprise(1 - probability, share)
        if self.emphasis:
            loss = loss + each * self.emphasis * _surprise(self._probability(model, memory, batch, share), share)
        if self.other_reference and bool(scene.exists.any()):
            others = float((scene.others[scene.exists] != pad).sum())
            loss = loss + everything * self.other_reference * _other_words(model, blind, share) / others
        return loss, words

    def _hide(self, model: Captioner, features: Tensor, batch: Captions, scene: Scene, lottery: Lottery) -> Tensor:
        """Return the features (B, K, C) with the regions hidden that the words come from."""
        device = features.device
        words = batch.targets.gather(1, scene.places.to(device)[:, None])[:, 0]
        chosen = ChosenWords(batch.inputs, scene.places, words, Origin(batch.rows.cpu(), scene.categories, lottery))
        found = self.find_regions(model, features, chosen)
        hidden = found > 0 if self.hidden_share is None else most_relevant(found, self.hidden_share)
        return without_regions(features, hidden)

    def _probability(self, model: Captioner, memory: Memory, batch: Captions, scene: Scene) -> Tensor:
        """Return how probable it is that the object is named where the caption names it, (B,)."""
        device = batch.inputs.device
        places, rows = scene.places.to(device), torch.arange(len(scene.places), device=device)
        seen = model.read(memory, model.embed(batch.inputs[:, : scene.steps]))
        logits = model.speak(HeadInputs(seen.context[rows, places], seen.hidden[rows, places]))
        forms = self.mentions.forms.to(device)[scene.categories.to(device)]
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return (exact.softmax(-1) * forms).sum(-1)


def _surprise(probability: Tensor, scene: Scene) -> Tensor:
    """Return -log of probabilities (B,), summed over the captions that name an object."""
    losses = -probability.clamp_min(LEAST_PROBABILITY).log()
    return (losses * scene.names.to(losses.device)).sum()


def _other_words(model: Captioner, blind: Memory, scene: Scene) -> Tensor:
    """Return the cross-entropy of the references that do not name the object, summed over their words."""
    vocabulary, device = model.vocabulary, blind.features.device
    targets = scene.others.to(device).masked_fill(~scene.exists[:, None].to(device), vocabulary.pad)
    start = torch.full_like(targets[:, :1], vocabulary.start)
    logits = model.speak(model.read(blind, model.embed(torch.cat([start, targets[:, :-1]], 1))))
    return summed_cross_entropy(logits, targets, vocabulary.pad)
