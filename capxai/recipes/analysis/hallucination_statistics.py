"""Numbers that may tell a true object word from a hallucinated one: of its relevance, by every method, and of the step that says it.

Names are "<method> <level> <statistic>", as "lrp regions mean"; what is no map of the picture has no level: "lrp words sum", "word head
context share", "probability". All are meant so that larger speaks for the picture, but for the entropies, "minimum", and what the words,
biases and eps hold; nothing is turned around.

Axes: W words, P pixels or K regions of a map, T words of a caption, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from capxai.explain.attribution import Words
from capxai.explain.methods import Maps, Options
from capxai.finetune.inference_weights import lrp_relevance
from capxai.lrp.propagation import Ledger
from capxai.models.state import HeadInputs
from capxai.recipes.analysis.mentions import Mentioned
from capxai.recipes.analysis.stream import Look

Level = Literal["pixels", "regions"]
LEVELS: tuple[Level, ...] = get_args(Level)
NameWord = Literal["first", "last"]
QUANTILES = (5, 25, 50, 75, 95)
"""Percent."""
ALWAYS_ONE = ("mean", "positive mean", "absolute mean", "sum")
"""What attention weights cannot vary in, since they sum to 1."""

Table = dict[str, Tensor]
"""Statistics by name, (W,) float64 each."""


def word_statistics(
    look: Look,
    mentioned: Sequence[Mentioned],
    methods: Sequence[str],
    options: Options | None = None,
    levels: Sequence[Level] = LEVELS,
    *,
    name_word: NameWord = "first",
) -> list[dict[str, float]]:
    """Measure object words: a dict of statistics for each, all with the same names in the same order, all finite.

    Only these words are explained. Where pixels are not asked for, nothing goes through the encoder.

    Args:
        look: The pictures with their captions.
        mentioned: Words of these captions.
        methods: Names of methods; none are fine.
        options: Settings of "lrp", and the seed of "random".
        levels: Which maps to measure. A method whose pixels are its regions, spread, is measured on its regions where both are asked for.
        name_word: The word of a name that is explained, where the name has several.
    """
    if not mentioned:
        return []
    places = [one.place if name_word == "first" else one.last for one in mentioned]
    words = look.words([one.row for one in mentioned], places)
    options = options or Options()
    table = {**step_statistics(look, words), **head_statistics(look, words, options.eps)}
    logits = table["logit"]
    seen = look if "pixels" in levels else replace(look, readings=replace(look.readings, images=None, tape=None))
    for name, maps in seen.maps(words, usable(methods, levels), options):
        table |= method_statistics(name, maps, _levels(maps, levels), logits)
    columns = [values.tolist() for values in table.values()]
    return [dict(zip(table, row, strict=True)) for row in zip(*columns, strict=True)]


def usable(methods: Sequence[str], levels: Sequence[Level]) -> tuple[str, ...]:
    """Leave out the method that has no regions, where only these are asked for."""
    return tuple(name for name in methods if "pixels" in levels or name != "guided-grad-cam")


def step_statistics(look: Look, words: Words) -> Table:
    """Measure what the steps that say the words show without any explanation.

    "probability" in [0, 1], "logit", "margin" (to the best other word, in logit units), "entropy" of the next word and "attention entropy"
    over regions (nats), "attention maximum" (attention is the mean over heads), and "1 - beta" where the model has a sentinel.
    """
    facts, at = look.facts, (words.rows, words.places)
    logits = facts.logits[at].double()  # (W, V)
    own = logits.gather(1, words.tokens[:, None])
    others = logits.scatter(1, words.tokens[:, None], -torch.inf).amax(1)
    chances = logits.softmax(1)
    attention = facts.attention[at].double()
    attention = attention if attention.dim() == 2 else attention.mean(1)  # (W, K)
    table = {
        "probability": chances.gather(1, words.tokens[:, None])[:, 0],
        "logit": own[:, 0],
        "margin": own[:, 0] - others,
        "entropy": _entropy(chances),
        "attention maximum": attention.amax(1),
        "attention entropy": _entropy(attention),
    }
    return table if facts.sentinel is None else {**table, "1 - beta": 1 - facts.sentinel[at].double()}


def head_statistics(look: Look, words: Words, eps: float) -> Table:
    """Carry each logit through the word head alone, to the context and to the hidden state that it adds (method.md, section 3).

    "context share" and "hidden share" are parts of the logit; "context against hidden" is |context| / (|context| + |hidden|).
    """
    at = (words.rows, words.places)
    seen, fc = look.facts.head_inputs, look.readings.model.decoder.word_head.fc
    inputs = HeadInputs(seen.context[at].double(), seen.hidden[at].double())
    found = lrp_relevance(inputs, fc.weight.detach()[words.tokens].double(), eps)
    logits = look.facts.logits[at].double().gather(1, words.tokens[:, None])[:, 0]
    carried = 1 / (logits + eps * torch.where(logits < 0, -1.0, 1.0))  # the logit itself cancels in its share
    context, hidden = (part.nan_to_num().sum(1) for part in (found.context, found.hidden))  # 0 / 0 without eps
    return {
        "word head context share": (context * carried).nan_to_num(0, 0, 0),
        "word head hidden share": (hidden * carried).nan_to_num(0, 0, 0),
        "word head context against hidden": _against(context, hidden),
    }


def method_statistics(name: str, maps: Maps, levels: Mapping[str, Tensor], logits: Tensor) -> Table:
    """Measure what a method found.

    Args:
        name: The method.
        maps: What it found for W words.
        levels: Its maps to measure, (W, ...) each.
        logits: (W,) float64, what relevance is a share of.
    """
    table: Table = {}
    words = None if maps.words is None else maps.words.double().sum(1)
    for level, values in levels.items():
        flat = values.double().flatten(1)
        found = map_statistics(flat)
        if words is not None:
            found["against words"] = _against(flat.sum(1), words)
        if maps.kept is not None:
            found["share"] = _ratio(flat.sum(1), logits)
        varying = {key: one for key, one in found.items() if name != "attention" or key not in ALWAYS_ONE}
        table |= {f"{name} {level} {key}": one for key, one in varying.items()}
    if words is not None:
        table[f"{name} words sum"] = words
    if words is not None and maps.kept is not None:
        kept = maps.kept.double()
        table[f"{name} words share"] = _ratio(words, logits)
        table |= {f"{name} {key} share": _ratio(kept[:, Ledger.COLUMNS.index(key)], logits) for key in ("bias", "eps")}
    return table


def map_statistics(values: Tensor) -> Table:
    """Measure maps (W, P) float64, in their own unit.

    "positive mean" is the mean of the values above 0, "concentration" the share of the maximum in their sum; both 0 where there is none.
    Quantiles are interpolated linearly.
    """
    positive = values.clamp_min(0)
    count, total = (values > 0).sum(1), positive.sum(1)
    table = {
        "mean": values.mean(1),
        "positive mean": _ratio(total, count.double()),
        "absolute mean": values.abs().mean(1),
        "maximum": values.amax(1),
        "minimum": values.amin(1),
        "sum": values.sum(1),
        "concentration": _ratio(positive.amax(1), total),
    }
    ordered = values.sort(1).values
    return {**table, **{f"quantile {percent}": _quantile(ordered, percent / 100) for percent in QUANTILES}}


def _levels(maps: Maps, levels: Sequence[Level]) -> dict[str, Tensor]:
    """Return the maps to measure, the same levels for every word of every picture; spread regions count once."""
    chosen: dict[str, Tensor | None] = {level: getattr(maps, level) for level in LEVELS if level in levels}
    found = {level: values for level, values in chosen.items() if values is not None}
    if len(found) == len(LEVELS) and maps.spread:
        del found["pixels"]
    return found


def _quantile(ordered: Tensor, share: float) -> Tensor:
    """Interpolate between the two ordered values around a place."""
    place = share * (ordered.shape[1] - 1)
    low = min(int(place), ordered.shape[1] - 1)
    high = min(low + 1, ordered.shape[1] - 1)
    return ordered[:, low] + (place - low) * (ordered[:, high] - ordered[:, low])


def _entropy(chances: Tensor) -> Tensor:
    """Return the entropy of each row in nats; 0 log 0 = 0."""
    terms: Tensor = torch.special.entr(chances)
    return terms.sum(1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole == 0, 0.0, part / torch.where(whole == 0, 1.0, whole))


def _against(picture: Tensor, words: Tensor) -> Tensor:
    """Return |picture| / (|picture| + |words|), in [0, 1]; 0 where both are 0."""
    return _ratio(picture.abs(), picture.abs() + words.abs())
