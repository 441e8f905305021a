"""Forbids object words for which the model shows too little evidence, while it decodes (a veto on top of method.md, section 3).

Axes: R hypotheses, H hidden, V vocabulary, F object words, B pictures, T steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from capxai.data.vocabulary import Vocabulary
from capxai.errors import ConfigError
from capxai.evaluate.lexicon import Lexicon
from capxai.finetune.inference_weights import EPS
from capxai.models.captioner import Captioner
from capxai.models.decoders.base import WordHead
from capxai.models.decoding import Decoded
from capxai.models.state import HeadInputs, Memory
from capxai.recipes.grounding import Grounding, Vetoed


@dataclass(frozen=True)
class Evidence:
    """What speaks for words at one step, (R, F) each.

    Attributes:
        context: Relevance of each word's logit that arrives at the context (chat or c), what the model sees; logit units.
        hidden: Relevance that arrives at the hidden state, what it has said so far; logit units.
        log_probability: Natural logarithm of the model's probability.
    """

    context: Tensor
    hidden: Tensor
    log_probability: Tensor


def _lead(found: Evidence) -> Tensor:
    """Return how much more the context speaks for each word than for the best other object word, (R, F)."""
    if found.context.shape[1] == 1:
        return found.context
    best = found.context.topk(2, dim=1).values
    others = torch.where(found.context == best[:, :1], best[:, 1:], best[:, :1])
    return found.context - others


MEASURES: dict[str, Callable[[Evidence], Tensor]] = {
    "context": lambda found: found.context,
    "share": lambda found: found.context / (found.context.abs() + found.hidden.abs()).clamp_min(1e-12),
    "margin": lambda found: found.context - found.hidden,
    "lead": _lead,
    "above": lambda found: found.context - found.context.mean(1, keepdim=True),
    "language": lambda found: -found.hidden,
    "probability": lambda found: found.log_probability,
}
"""Numbers that are low where a word has little to stand on. "probability" is the control without relevance."""


def gather_evidence(
    head: WordHead, words: Tensor, inputs: HeadInputs, log_probabilities: Tensor, eps: float = EPS
) -> Evidence:
    """Carry the logits of words through fc and the sum, all words of all hypotheses by two small products.

    With x = context + hidden and z = w x + b, the rules of method.md, section 2, give R_x = x w z / (z + eps sign z) and
    R_context = context R_x / (x + eps sign x); here summed over the units.

    Args:
        head: The word head.
        words: (F,) int64 vocabulary ids.
        inputs: What the word head sees, (R, H) each.
        log_probabilities: (R, V).
        eps: The stabilizer.
    """
    rows, x = head.fc.weight[words], inputs.context + inputs.hidden
    share = x / torch.where(x < 0, x - eps, x + eps)
    z = (x @ rows.T + head.fc.bias[words]).abs()
    kept = z / (z + eps)
    return Evidence(
        (inputs.context * share) @ rows.T * kept, (inputs.hidden * share) @ rows.T * kept, log_probabilities[:, words]
    )


def object_words(vocabulary: Vocabulary, lexicon: Lexicon) -> dict[int, tuple[str, ...]]:
    """Return the words with which a model decides for an object, by id: the categories whose names begin so, "traffic" for instance.

    Raises:
        ConfigError: There is none.
    """
    found = {
        number: categories
        for word, categories in lexicon.beginnings().items()
        if (number := vocabulary.id_of(word)) is not None and number not in vocabulary.specials
    }
    if not found:
        raise ConfigError(
            f"None of the {len(vocabulary)} words of the model begins the name of an object of the lexicon. Expected some, as they are "
            "what grounding is about. Use a model that names objects, or the lexicon of its corpus with --lexicon."
        )
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class EvidenceVeto:
    """Forbids every object word whose evidence lies under its threshold, at this step of this hypothesis alone.

    Attributes:
        head: The word head of the model.
        words: (F,) int64, the object words.
        thresholds: (F,), of each word.
        measure: A name in `MEASURES`.
    """

    head: WordHead
    words: Tensor
    thresholds: Tensor
    measure: str

    def values(self, inputs: HeadInputs, log_probabilities: Tensor) -> Tensor:
        """Return the measure of every object word, (R, F)."""
        return MEASURES[self.measure](gather_evidence(self.head, self.words, inputs, log_probabilities))

    def __call__(self, _: int, inputs: HeadInputs, log_probabilities: Tensor) -> Tensor:
        """Return the log-probabilities (R, V) with -inf for what is forbidden; see `capxai.models.decoding.Veto`."""
        return forbid(log_probabilities, self.words, self.values(inputs, log_probabilities) < self.thresholds)


@dataclass(frozen=True)
class DrawnVeto:
    """Forbids object words by lot: the control that vetoes as often, and knows nothing.

    Attributes:
        words: (F,) int64, the object words.
        forbidden: (B, T, F) bool, drawn for every picture; its hypotheses share it.
    """

    words: Tensor
    forbidden: Tensor

    def __call__(self, t: int, _: HeadInputs, log_probabilities: Tensor) -> Tensor:
        """Return the log-probabilities (R, V) with -inf for what is forbidden."""
        each = len(log_probabilities) // len(self.forbidden)
        return forbid(log_probabilities, self.words, self.forbidden[:, t].repeat_interleave(each, 0))


def forbid(log_probabilities: Tensor, words: Tensor, forbidden: Tensor) -> Tensor:
    """Return log-probabilities (R, V) with -inf where one of the words (F,) is forbidden, (R, F) bool."""
    changed = log_probabilities.clone()
    changed[:, words] = changed[:, words].masked_fill(forbidden, -math.inf)
    return changed


def drawn_veto(words: Tensor, rate: float, seeds: Sequence[int], steps: int) -> DrawnVeto:
    """Draw which object words are forbidden, with probability ``rate`` each, for pictures with these seeds."""
    drawn = [torch.rand(steps, len(words), generator=torch.Generator().manual_seed(seed)) < rate for seed in seeds]
    return DrawnVeto(words, torch.stack(drawn).to(words.device))


def grounded_veto(head: WordHead, vocabulary: Vocabulary, lexicon: Lexicon, grounding: Grounding) -> EvidenceVeto:
    """Build the veto of a grounding. A word that begins names of several categories gets the lowest of their thresholds."""
    found = object_words(vocabulary, lexicon)
    weight = head.fc.weight
    lowest = [min(grounding.threshold(category) for category in categories) for categories in found.values()]
    return EvidenceVeto(
        head,
        torch.tensor(list(found), device=weight.device),
        torch.tensor(lowest, device=weight.device, dtype=weight.dtype),
        grounding.measure,
    )


@torch.no_grad()
def vetoed_words(
    model: Captioner, memory: Memory, captions: Sequence[Decoded], veto: EvidenceVeto
) -> list[tuple[Vetoed, ...]]:
    """Say which object words a veto kept out of captions: forbidden at a step where the model found them likelier than what is said.

    The captions are read once more. Greedily decoded, each word would have been said at its step; in a beam search, which weighs whole
    captions, it would have been that hypothesis' better continuation.

    Args:
        model: The captioner.
        memory: Of the pictures, batch B.
        captions: B captions, as they were found.
        veto: The veto with which they were found.

    Returns:
        For each caption its vetoed words, by step, the likeliest first.
    """
    vocabulary = model.vocabulary
    said = [[*one.token_ids, *([vocabulary.end] if one.finished else [])] for one in captions]
    longest = max(len(tokens) for tokens in said)
    table = torch.full((len(said), longest), vocabulary.pad, device=memory.features.device)
    for row, tokens in enumerate(said):
        table[row, : len(tokens)] = torch.tensor(tokens, device=table.device)
    inputs = torch.cat([torch.full_like(table[:, :1], vocabulary.start), table[:, :-1]], 1)
    seen = model.read(memory, model.embed(inputs))  # (B, T, H) each
    flat = HeadInputs(seen.context.flatten(0, 1), seen.hidden.flatten(0, 1))
    log_probabilities = torch.log_softmax(model.speak(flat), -1)
    values = veto.values(flat, log_probabilities)  # (B T, F)
    likelier = log_probabilities[:, veto.words] > log_probabilities.gather(1, table.flatten()[:, None])
    hits = ((values < veto.thresholds) & likelier & (table.flatten() != vocabulary.pad)[:, None]).nonzero().tolist()
    found: list[list[Vetoed]] = [[] for _ in said]
    for place, word in hits:
        row, step = divmod(place, longest)
        number = int(veto.words[word])
        found[row].append(
            Vetoed(
                step,
                vocabulary.words[number],
                vocabulary.words[said[row][step]],
                math.exp(float(log_probabilities[place, number])),
                float(values[place, word]),
                float(veto.thresholds[word]),
            )
        )
    return [tuple(sorted(one, key=lambda each: (each.step, -each.probability))) for one in found]
