"""What decoding finds, and what all strategies share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from capxai.data.vocabulary import Vocabulary
from capxai.errors import ModelError
from capxai.models.state import HeadInputs

Veto = Callable[[int, HeadInputs, Tensor], Tensor]
"""``veto(t, inputs, log_probabilities) -> log_probabilities``: may forbid words at step t by -inf, for each hypothesis by itself.

``inputs`` are what the word head saw, (R, H) each, ``log_probabilities`` (R, V); the R rows are the W hypotheses of the first picture,
then those of the second, and so on. ``<end>`` must stay possible. What is not forbidden keeps the model's own log-probability.
"""


@dataclass(frozen=True)
class Decoded:
    """A caption as the model found it.

    Attributes:
        token_ids: The words, without ``<start>`` and ``<end>``.
        log_probability: Sum of ``token_log_probabilities``.
        token_log_probabilities: Natural logarithm of the model's own probability (over the whole vocabulary, whatever
            the temperature) for each word, and last for ``<end>`` where the caption is finished.
        finished: Whether the model ended the caption with ``<end>``; otherwise it was cut at the maximum length.
        score: What beam search compared: ``log_probability`` divided by length ** length penalty.
        alternatives: The other hypotheses of a beam search, best first; they have none of their own.
    """

    token_ids: tuple[int, ...]
    log_probability: float
    token_log_probabilities: tuple[float, ...]
    finished: bool
    score: float
    alternatives: tuple[Decoded, ...] = ()


@dataclass(frozen=True)
class Hypotheses:
    """Hypotheses in progress: W for each of B pictures, t steps so far.

    Attributes:
        words: (B, W, t) int64 ids; ``<pad>`` after the end.
        log_probabilities: (B, W, t) of each word; 0 after the end.
        total: (B, W), their sum; -inf for a hypothesis that does not exist (yet).
        length: (B, W) int64, how many words, ``<end>`` counted.
        finished: (B, W) bool, whether ``<end>`` was chosen.
    """

    words: Tensor
    log_probabilities: Tensor
    total: Tensor
    length: Tensor
    finished: Tensor

    @classmethod
    def start(cls, total: Tensor) -> Hypotheses:
        """Return hypotheses without a word, given their (B, W) totals."""
        counts = torch.zeros_like(total, dtype=torch.int64)
        nothing = (*total.shape, 0)
        return cls(counts.new_empty(nothing), total.new_empty(nothing), total, counts, counts.to(torch.bool))

    def extend(self, parents: Tensor, words: Tensor, log_probabilities: Tensor, end: int) -> Hypotheses:
        """Return the hypotheses one word further.

        Args:
            parents: (B, W) int64 in [0, W), which hypothesis each new one extends.
            words: (B, W) int64, the new word; ``<pad>`` for a finished one.
            log_probabilities: (B, W), of the new word; 0 for a finished one.
            end: Id of ``<end>``.
        """
        history = parents.unsqueeze(2).expand(-1, -1, self.words.shape[2])
        finished = self.finished.gather(1, parents)
        return Hypotheses(
            torch.cat([self.words.gather(1, history), words.unsqueeze(2)], dim=2),
            torch.cat([self.log_probabilities.gather(1, history), log_probabilities.unsqueeze(2)], dim=2),
            self.total.gather(1, parents) + log_probabilities,
            self.length.gather(1, parents) + ~finished,
            finished | (words == end),
        )

    def collect(self, length_penalty: float = 0.0) -> list[Decoded]:
        """Return the best hypothesis of each picture, the others as its alternatives.

        Raises:
            ModelError: A picture has no hypothesis with a finite log-probability.
        """
        scores = self.total / self.length.to(self.total.dtype) ** length_penalty
        order = scores.argsort(dim=1, descending=True, stable=True).tolist()
        columns = (self.words, self.log_probabilities, self.length, self.finished, scores)
        words, log_probabilities, lengths, finished, score = (column.tolist() for column in columns)
        captions = []
        for b, ranking in enumerate(order):
            found = [
                _decoded(words[b][w], log_probabilities[b][w], lengths[b][w], finished[b][w], score[b][w])
                for w in ranking
                if math.isfinite(score[b][w])
            ]
            if not found:
                raise not_numbers()
            captions.append(_with_alternatives(found))
        return captions


def _decoded(words: list[int], log_probabilities: list[float], length: int, finished: bool, score: float) -> Decoded:
    kept = tuple(log_probabilities[:length])
    return Decoded(tuple(words[: length - finished]), math.fsum(kept), kept, finished, score)


def _with_alternatives(found: list[Decoded]) -> Decoded:
    return replace(found[0], alternatives=tuple(found[1:]))


def not_numbers() -> ModelError:
    """Return the error for logits that are infinite or no numbers."""
    return ModelError(
        "The model's logits are not numbers, so there is no best word. Expected finite logits. The weights are damaged "
        "or training diverged: use another model, or train again with a lower learning rate."
    )


def log_softmax(logits: Tensor) -> Tensor:
    """Return the logarithm of the softmax over the last axis, in float32 at least."""
    return torch.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def prohibition(vocabulary: Vocabulary, like: Tensor) -> Tensor:
    """Return (V,) to add to log-probabilities: -inf for ``<pad>``, ``<start>`` and ``<unk>``: never chosen."""
    added = torch.zeros(len(vocabulary), device=like.device)
    added[[vocabulary.pad, vocabulary.start, vocabulary.unknown]] = -math.inf
    return added
