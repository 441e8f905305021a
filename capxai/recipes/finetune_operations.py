"""Counts the multiply-adds of a fine-tuning step: how fast an objective could be at best, beside what a benchmark measures.

Matrix products alone are counted. What goes over elements (tanh over regions, softmax over the vocabulary, Adam) is not, so a measured
ratio may lie on either side of the counted one.

Axes: B captions, T words, P words up to the explained ones, K regions, C channels, H = E units, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from capxai.recipes.bench_training import Size

PICTURE = ("features", "keys")
"""Parts that are computed once a picture; the others are computed for each word."""


@dataclass(frozen=True)
class Part:
    """A part of the network as matrix products.

    Attributes:
        forward: Multiply-adds of a forward pass.
        to_input: Whether gradients go on to what it reads.
        to_weights: Whether gradients go to its weights (to both factors, where it has none).
    """

    forward: int
    to_input: bool = True
    to_weights: bool = True

    @property
    def total(self) -> int:
        """Multiply-adds of the forward pass and of what goes back."""
        return self.forward * (1 + self.to_input + self.to_weights)


Parts = dict[str, Part]


def picture_parts(decoder: str, size: Size, captions: int) -> Parts:
    """Count what is computed once a picture. Stored features want no gradient."""
    regions, units = size.regions, size.units
    summary = size.channels * units if decoder == "ada-lstm" else 0
    keys = regions * units * (regions if decoder == "ada-lstm" else 2 * units)
    features = captions * (regions * size.channels * units + summary)
    return {"features": Part(features, to_input=False), "keys": Part(captions * keys)}


def word_parts(decoder: str, size: Size, words: int) -> Parts:
    """Count what is computed for each of so many words, from the cells to the sum before the vocabulary."""
    units, regions = size.units, size.regions
    if decoder == "ada-lstm":
        cells = 4 * units * (3 * units + units) + 4 * units * (2 * units + units)
        gates = units * 3 * units + units * units
        attention = 2 * units * regions + regions * regions + regions + regions * units
    else:
        cells = 4 * units * (2 * units + units)
        gates = 2 * units * units
        attention = units * units + 2 * regions * units
    return {"cells": Part(words * cells), "gates": Part(words * gates), "attention": Part(words * attention)}


def vocabulary_part(size: Size, words: int) -> Part:
    """Count the projection of so many words to the vocabulary."""
    return Part(words * size.units * size.vocabulary)


def step_parts(objective: str, decoder: str, size: Size, captions: int) -> Parts:
    """Count a step of an objective.

    Args:
        objective: "ce", "lrp" or "lrp-counterfactual"; for the last one every caption names an object, near its end.
        decoder: "ada-lstm" or "mh-fc".
        size: Sizes; every caption has ``size.words`` words.
        captions: B.
    """
    words = captions * size.words
    parts = {
        **picture_parts(decoder, size, captions),
        **word_parts(decoder, size, words),
        "vocabulary": vocabulary_part(size, words),
    }
    if objective == "lrp":
        parts["vocabulary, improved"] = vocabulary_part(size, words)
    if objective == "lrp-counterfactual":
        parts |= _counterfactual_parts(decoder, size, captions)
    return parts


def _counterfactual_parts(decoder: str, size: Size, captions: int) -> Parts:
    """Count one pass of relevance, the penalty, and the other reference; words are named at their last place but ``<end>``."""
    before, words = captions * (size.words - 1), captions * size.words
    picture = picture_parts(decoder, size, captions)
    return {
        **{f"{name}, relevance": _carried(name, part) for name, part in picture.items()},
        **{f"{name}, relevance": _carried(name, part) for name, part in word_parts(decoder, size, before).items()},
        "vocabulary, relevance": replace(vocabulary_part(size, captions), to_weights=False),
        **{f"{name}, hidden": part for name, part in picture.items()},
        **{f"{name}, penalty": part for name, part in word_parts(decoder, size, before).items()},
        "vocabulary, penalty": vocabulary_part(size, captions),
        **{f"{name}, other reference": part for name, part in word_parts(decoder, size, words).items()},
        "vocabulary, other reference": vocabulary_part(size, words),
    }


def _carried(name: str, part: Part) -> Part:
    """Relevance goes back to the inputs and to no weights; gates and what attention compares get none."""
    return replace(part, to_input=name in ("features", "cells"), to_weights=False)


def multiply_adds(parts: Parts) -> int:
    """Add up all parts, forward and backward."""
    return sum(part.total for part in parts.values())


def floor(objective: str, decoder: str, size: Size, captions: int) -> float:
    """Return what a step of an objective costs at least, in steps of cross-entropy, if multiply-adds alone took time."""
    steps = (multiply_adds(step_parts(name, decoder, size, captions)) for name in (objective, "ce"))
    ours, control = steps
    return ours / control
