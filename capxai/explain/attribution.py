"""Carry the logit of every word of a caption back to the picture and to the preceding words, all words at once.

One graph, two stretches. The decoder is unrolled once over the caption with its features and word vectors as leaves; one batched backward
pass carries all words. The encoder has run once as well; what reaches its features goes on to the pixels as one batch of words, and
everything that depends on the picture alone has been computed once. Which numbers flow, relevance or derivatives, is up to the
composite.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from capxai.lrp.attach import attached
from capxai.lrp.audit import audit
from capxai.lrp.composites import Composite
from capxai.lrp.propagation import Ledger
from capxai.models.captioner import Captioner
from capxai.models.state import Step

WORDS_AT_ONCE = 10
"""How many words go through the encoder in one batch. At 224 pixels VGG16 needs about 60 MB a word; a larger batch is not faster."""


@dataclass(frozen=True)
class Tape:
    """One pass of the encoder over a picture, with its way back.

    Attributes:
        composite: Rules for the way back.
        images: (1, 3, H, W), the leaf.
        features: (1, K, C), the values of a plain pass, with a graph.
        ledger: What the encoder keeps.
    """

    composite: Composite
    images: Tensor
    features: Tensor
    ledger: Ledger


def record(model: Captioner, images: Tensor, composite: Composite) -> Tape:
    """Run the encoder once over a picture (1, 3, H, W) so that words can be carried back through it.

    Raises:
        RelevanceError: An operation on the way has no rule, or the model is in training mode.
    """
    leaf = images.detach().requires_grad_()
    with torch.enable_grad(), _frozen(model), _ledger(model, composite, leaf) as ledger:
        features = model.features(leaf)
    if composite.audited:
        audit(features)
    return Tape(composite, leaf, features, ledger)


@dataclass(frozen=True)
class Reading:
    """A model reading a picture and a caption: what all methods explain.

    Attributes:
        model: In evaluation mode.
        images: (1, 3, H, W) normalized picture, or None where only features are at hand.
        features: (1, K, C), without a graph.
        tokens: (T,) int64, the words of the caption without specials.
        tape: The encoder's pass that gave the features, where it was recorded; saves a second pass.
    """

    model: Captioner
    images: Tensor | None
    features: Tensor
    tokens: Tensor
    tape: Tape | None = None

    @property
    def inputs(self) -> Tensor:
        """The input words of every step, (T,) int64: ``<start>`` and all words but the last."""
        start = self.tokens.new_tensor([self.model.vocabulary.start])
        return torch.cat([start, self.tokens[:-1]])

    def unroll(self) -> list[Step]:
        """Run the model plainly over the caption."""
        vectors = self.model.embed(self.inputs)
        return self.model.unroll(self.model.remember(self.features), lambda t, _: vectors[None, t], len(self.tokens))


@dataclass(frozen=True)
class Attribution:
    """What arrived at the leaves for every word: relevance, or derivatives, as the composite has it.

    Attributes:
        pixels: (T, 3, H, W), or None where the model has no encoder or pixels were not asked for.
        features: (T, K, C).
        words: (T, T, E); zero for words that come later.
        kept: (T, 3) float64, columns of `Ledger.COLUMNS`: what nodes of decoder and encoder kept; zero for derivatives.
    """

    pixels: Tensor | None
    features: Tensor
    words: Tensor
    kept: Tensor


def attribute(reading: Reading, composite: Composite, pixels: bool = True) -> Attribution:
    """Carry every word of a caption back to the leaves.

    Relevance starts as the raw logit of the explained word, a derivative as one; all other logits start at zero.

    Args:
        reading: Model, picture and caption.
        composite: Rules for the way back.
        pixels: Whether to go on through the encoder.

    Raises:
        RelevanceError: An operation on the way has no rule, or the model is in training mode.
    """
    arrived_features, words, kept = _through_decoder(reading, composite)
    if not pixels or reading.images is None:
        return Attribution(None, arrived_features, words, kept)
    arrived_pixels, kept_by_encoder = _through_encoder(reading, composite, arrived_features)
    return Attribution(arrived_pixels, arrived_features, words, kept + kept_by_encoder)


def _through_decoder(reading: Reading, composite: Composite) -> tuple[Tensor, Tensor, Tensor]:
    model, tokens = reading.model, reading.tokens
    features = reading.features.detach().requires_grad_()
    words = model.embed(reading.inputs).detach()[None].requires_grad_()  # (1, T, E)
    with torch.enable_grad(), _frozen(model), _ledger(model, composite, features) as ledger:
        steps = model.unroll(model.remember(features), lambda t, _: words[:, t], len(tokens))
        logits = torch.stack([step.logits for step in steps], 1)  # (1, T, V)
    if composite.audited:
        audit(logits)
    start = _start(logits.detach(), tokens, composite)
    arrived = _batched_backward(logits, (features, words, ledger.account), start)
    return arrived[0][:, 0], arrived[1][:, 0], arrived[2][:, 0]


def _start(logits: Tensor, tokens: Tensor, composite: Composite) -> Tensor:
    """Return what each word starts with, (T, 1, T, V): its logit or one at its own place, zero elsewhere."""
    places = torch.arange(len(tokens), device=tokens.device)
    start = logits.new_zeros(len(tokens), *logits.shape)
    start[places, 0, places, tokens] = logits[0, places, tokens] if composite.audited else 1.0
    return start


def _through_encoder(reading: Reading, composite: Composite, arrived: Tensor) -> tuple[Tensor, Tensor]:
    assert reading.images is not None
    tape = reading.tape
    if tape is None or tape.composite != composite:
        tape = record(reading.model, reading.images, composite)
    leaves = (tape.images, tape.ledger.account)
    found = [_batched_backward(tape.features, leaves, batch) for batch in arrived[:, None].split(WORDS_AT_ONCE)]
    return torch.cat([pixels[:, 0] for pixels, _ in found]), torch.cat([kept[:, 0] for _, kept in found])


def _batched_backward(output: Tensor, leaves: tuple[Tensor, ...], start: Tensor) -> tuple[Tensor, ...]:
    """Carry a batch of starting values, (T, shape of output), back through one graph to (T, shape of leaf) for each leaf.

    Leaves that the composite never reaches, such as the ledger of plain derivatives, get zeros.
    """

    def back(one: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(output, leaves, one, retain_graph=True, allow_unused=True, materialize_grads=True)

    return torch.func.vmap(back)(start)


@contextmanager
def _ledger(model: Captioner, composite: Composite, leaf: Tensor) -> Iterator[Ledger]:
    ledger = Ledger(len(leaf), leaf.device)
    with attached(model, composite, ledger):
        yield ledger


@contextmanager
def _frozen(model: Captioner) -> Iterator[None]:
    """Keep the weights out of the graph: only the leaves matter, and a graph of the weights would cost memory."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
