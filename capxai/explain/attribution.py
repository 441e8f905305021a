"""Carry the logits of words back to their pictures and to the words before them, all words and several pictures at once.

Three stretches. The word head is run once for all explained words, each with its own logit. The decoder has read every caption once, with
features and word vectors as leaves; one batched backward pass carries all words. The encoder has run once as well; what reaches its
features goes on to the pixels as one batch of words, and everything that depends on the picture alone has been computed once. Which
numbers flow, relevance or derivatives, is up to the composite.

Axes: B pictures, T words of the longest caption, W explained words, R the most words of one picture, K regions, C channels, E embedding,
H hidden. The pictures of a batch do not touch each other, so the r-th words of all pictures share a lane of the backward pass.
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
from capxai.models.state import HeadInputs, Step

WORDS_AT_ONCE = 10
"""How many words of all pictures go through the encoder in one batch. At 224 pixels VGG16 needs about 60 MB a word; a larger batch is not
faster."""


@dataclass(frozen=True)
class Tape:
    """One pass of the encoder over pictures, with its way back.

    Attributes:
        composite: Rules for the way back.
        images: (B, 3, H, W), the leaf.
        features: (B, K, C), the values of a plain pass, with a graph.
        ledger: What the encoder keeps.
    """

    composite: Composite
    images: Tensor
    features: Tensor
    ledger: Ledger


def record(model: Captioner, images: Tensor, composite: Composite) -> Tape:
    """Run the encoder once over pictures (B, 3, H, W) so that words can be carried back through it.

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
        return self.together().inputs[0]

    def unroll(self) -> list[Step]:
        """Run the model plainly over the caption."""
        return self.together().unroll()

    def together(self) -> Readings:
        """Return the reading as a batch of one picture."""
        lengths = self.tokens.new_tensor([len(self.tokens)])
        return Readings(self.model, self.images, self.features, self.tokens[None], lengths, self.tape)


@dataclass(frozen=True)
class Words:
    """The words to explain, of several captions.

    Attributes:
        rows: (W,) int64, the picture of each.
        places: (W,) int64, the step that says it.
        tokens: (W,) int64, the word whose logit is explained there.
        against: (W,) int64, a word whose logit is subtracted ("why this and not that"), or None.
    """

    rows: Tensor
    places: Tensor
    tokens: Tensor
    against: Tensor | None = None

    def __len__(self) -> int:
        """Return how many words there are."""
        return len(self.rows)

    @property
    def lanes(self) -> Tensor:
        """(W,) int64: how many words before it belong to the same picture."""
        order = torch.argsort(self.rows, stable=True)
        counts = torch.bincount(self.rows)
        starts = torch.cumsum(counts, 0) - counts
        lanes = torch.empty_like(self.rows)
        lanes[order] = torch.arange(len(self), device=self.rows.device) - starts[self.rows[order]]
        return lanes


@dataclass(frozen=True)
class Readings:
    """A model reading several pictures and a caption of each.

    Attributes:
        model: In evaluation mode.
        images: (B, 3, H, W) normalized pictures, or None where only features are at hand.
        features: (B, K, C), without a graph.
        tokens: (B, T) int64, the words of the captions without specials, then ``<pad>``.
        lengths: (B,) int64, how many words each caption has.
        tape: The encoder's pass that gave the features, where it was recorded; saves a second pass.
    """

    model: Captioner
    images: Tensor | None
    features: Tensor
    tokens: Tensor
    lengths: Tensor
    tape: Tape | None = None

    @property
    def inputs(self) -> Tensor:
        """The input words of every step, (B, T) int64: ``<start>`` and all words but the last."""
        start = torch.full_like(self.tokens[:, :1], self.model.vocabulary.start)
        return torch.cat([start, self.tokens[:, :-1]], 1)

    def unroll(self) -> list[Step]:
        """Run the model plainly over the captions."""
        vectors = self.model.embed(self.inputs)
        return self.model.unroll(self.model.remember(self.features), lambda t, _: vectors[:, t], self.tokens.shape[1])

    def all_words(self) -> Words:
        """Choose every word of every caption, picture by picture."""
        there = torch.arange(self.tokens.shape[1], device=self.tokens.device) < self.lengths[:, None]
        rows, places = there.nonzero(as_tuple=True)
        return Words(rows, places, self.tokens[rows, places])


@dataclass(frozen=True)
class Attribution:
    """What arrived at the leaves for every word: relevance, or derivatives, as the composite has it.

    Attributes:
        pixels: (W, 3, H, W), or None where the model has no encoder or pixels were not asked for.
        features: (W, K, C).
        words: (W, T, E); zero for words that come later.
        kept: (W, 3) float64, columns of `Ledger.COLUMNS`: what nodes of decoder and encoder kept; zero for derivatives.
    """

    pixels: Tensor | None
    features: Tensor
    words: Tensor
    kept: Tensor


def attribute(reading: Reading, composite: Composite, pixels: bool = True) -> Attribution:
    """Carry every word of a caption back to the leaves, W = T; see `attribute_words`."""
    readings = reading.together()
    return attribute_words(readings, readings.all_words(), composite, pixels)


def attribute_words(readings: Readings, words: Words, composite: Composite, pixels: bool = True) -> Attribution:
    """Carry words back to the leaves.

    Relevance starts as the raw logit of the explained word, a derivative as one; all other logits start at zero. A word that is
    explained against another starts with that one's part subtracted; what arrives is the difference of both, except by guided
    backpropagation, whose cuts do not add up.

    Args:
        readings: Model, pictures and captions.
        words: What to explain, at least one word.
        composite: Rules for the way back.
        pixels: Whether to go on through the encoder.

    Raises:
        RelevanceError: An operation on the way has no rule, or the model is in training mode.
    """
    arrived_features, vectors, kept = _through_decoder(readings, words, composite)
    if not pixels or readings.images is None:
        return Attribution(None, arrived_features, vectors, kept)
    arrived_pixels, kept_by_encoder = _through_encoder(readings, words, composite, arrived_features)
    return Attribution(arrived_pixels, arrived_features, vectors, kept + kept_by_encoder)


def _through_decoder(readings: Readings, words: Words, composite: Composite) -> tuple[Tensor, Tensor, Tensor]:
    model = readings.model
    features = readings.features.detach().requires_grad_()
    vectors = model.embed(readings.inputs).detach().requires_grad_()  # (B, T, E)
    with torch.enable_grad(), _frozen(model), _ledger(model, composite, features) as ledger:
        seen = model.read(model.remember(features), vectors)  # (B, T, H) each
    if composite.audited:
        audit(seen.context, seen.hidden)
    at_head, kept_by_head = _through_head(model, seen, words, composite)
    places = (words.lanes, words.rows, words.places)
    start = tuple(_spread(found, places, seen.hidden.shape[:2]) for found in (at_head.context, at_head.hidden))
    arrived = _batched_backward((seen.context, seen.hidden), (features, vectors, ledger.account), start)
    of_features, of_vectors, kept = (found[words.lanes, words.rows] for found in arrived)
    return of_features, of_vectors, kept + kept_by_head


def _through_head(model: Captioner, seen: HeadInputs, words: Words, composite: Composite) -> tuple[HeadInputs, Tensor]:
    """Carry every word through the word head: what arrives at both of its inputs, (W, H) each, and what is kept, (W, 3)."""
    leaves = [found.detach()[words.rows, words.places].requires_grad_() for found in (seen.context, seen.hidden)]
    with torch.enable_grad(), _frozen(model), _ledger(model, composite, leaves[0]) as ledger:
        logits = model.speak(HeadInputs(*leaves))  # (W, V)
    if composite.audited:
        audit(logits)
    inputs = (*leaves, ledger.account)
    context, hidden, kept = torch.autograd.grad(
        logits, inputs, _start(logits.detach(), words, composite), allow_unused=True, materialize_grads=True
    )
    return HeadInputs(context, hidden), kept


def _start(logits: Tensor, words: Words, composite: Composite) -> Tensor:
    """Return what each word starts with, (W, V): its logit or one at its own place, zero elsewhere."""
    each = torch.arange(len(words), device=logits.device)
    start = torch.zeros_like(logits)
    start[each, words.tokens] = logits[each, words.tokens] if composite.audited else 1.0
    if words.against is not None:
        start[each, words.against] -= logits[each, words.against] if composite.audited else 1.0
    return start


def _spread(values: Tensor, places: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
    """Put one entry for each word, (W, ...), where it belongs in a table of lanes, (R, *shape, ...)."""
    table = values.new_zeros(int(places[0].max()) + 1, *shape, *values.shape[1:])
    table[places] = values
    return table


def _through_encoder(readings: Readings, words: Words, composite: Composite, arrived: Tensor) -> tuple[Tensor, Tensor]:
    assert readings.images is not None
    tape = readings.tape
    if tape is None or tape.composite != composite:
        tape = record(readings.model, readings.images, composite)
    leaves, pictures = (tape.images, tape.ledger.account), len(readings.features)
    lanes = _spread(arrived, (words.lanes, words.rows), (pictures,))  # (R, B, K, C)
    found = [
        _batched_backward((tape.features,), leaves, (part,)) for part in lanes.split(max(1, WORDS_AT_ONCE // pictures))
    ]
    pixels, kept = (torch.cat(parts)[words.lanes, words.rows] for parts in zip(*found, strict=True))
    return pixels, kept


def _batched_backward(
    outputs: tuple[Tensor, ...], leaves: tuple[Tensor, ...], start: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Carry lanes of starting values, (R, shape of output) each, back through one graph to (R, shape of leaf) for each leaf.

    Leaves that the composite never reaches, such as the ledger of plain derivatives, get zeros.
    """

    def back(*lane: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(outputs, leaves, lane, retain_graph=True, allow_unused=True, materialize_grads=True)

    return torch.func.vmap(back)(*start)


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
