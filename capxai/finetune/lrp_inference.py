"""Fine-tuning by LRP inference: words are predicted a second time from re-weighted context and hidden state (method.md, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from capxai.finetune.batches import Captions, Lottery
from capxai.finetune.inference_weights import Relevance, Shuffled, inference_weights, lrp_relevance
from capxai.models.captioner import Captioner
from capxai.models.state import HeadInputs, Memory

Vectors = Literal["both", "context", "hidden"]
Target = Literal["argmax", "reference"]


@dataclass(frozen=True)
class Reweighting:
    """How context and hidden state are re-weighted.

    Attributes:
        neutral: (V,) bool, words whose weights are 1.
        relevance: How relevance is found; `lrp_relevance`, or one of the controls.
        vectors: Which of the two vectors are re-weighted; the other one keeps weights of 1.
        target: Explain the most probable word of the step ("argmax"), or the word of the reference.
        shuffled: Put the relevance of each vector into random order (a control).
    """

    neutral: Tensor
    relevance: Relevance = lrp_relevance
    vectors: Vectors = "both"
    target: Target = "argmax"
    shuffled: bool = False

    def apply(
        self,
        model: Captioner,
        inputs: HeadInputs,
        logits: Tensor,
        references: Tensor | None = None,
        lottery: Lottery | None = None,
    ) -> HeadInputs:
        """Return the re-weighted summands; gradients reach the summands, not the weights.

        Args:
            model: The captioner.
            inputs: What the word head sees, (..., H) each.
            logits: (..., V) of the plain pass.
            references: (...) int64, the words of the reference; only read where these are explained.
            lottery: Source of randomness of the rows; only asked where the relevance is shuffled.
        """
        omega = self._weights(model, inputs, logits, references, lottery)
        context = inputs.context if self.vectors == "hidden" else omega.context * inputs.context
        hidden = inputs.hidden if self.vectors == "context" else omega.hidden * inputs.hidden
        return HeadInputs(context, hidden)

    def _weights(
        self, model: Captioner, inputs: HeadInputs, logits: Tensor, references: Tensor | None, lottery: Lottery | None
    ) -> HeadInputs:
        words = logits.detach().argmax(-1) if self.target == "argmax" else references
        if words is None:
            raise ValueError("Found no reference; expected its words, because they are what is explained.")
        relevance = self.relevance
        if self.shuffled:
            if lottery is None:
                raise ValueError("Found no lottery; expected one, because the relevance is to be shuffled.")
            relevance = Shuffled(lottery, relevance)
        return inference_weights(model.decoder.word_head.fc, inputs, words, self.neutral, relevance)


@dataclass(frozen=True)
class LrpInference:
    """loss = lambda CE(p, y) + (1 - lambda) CE(phat, y), phat = fc(dropout(omega_c context + omega_h hidden)).

    Differs from the published code: the sentinel gate reads the previous hidden state here as in training, and all steps share one
    projection.

    Attributes:
        reweighting: Where omega comes from.
        plain_share: lambda in [0, 1], the weight of the plain cross-entropy.
    """

    reweighting: Reweighting
    plain_share: float = 0.5

    def __call__(self, model: Captioner, memory: Memory, batch: Captions) -> tuple[Tensor, int]:
        """Return the summed loss in nats and the number of words it is summed over."""
        inputs = model.read(memory, model.embed(batch.inputs))
        logits = model.speak(inputs)
        lottery = Lottery.of(batch) if self.reweighting.shuffled else None
        improved = model.speak(self.reweighting.apply(model, inputs, logits, batch.targets, lottery))
        pad = model.vocabulary.pad
        plain_loss, improved_loss = (summed_cross_entropy(found, batch.targets, pad) for found in (logits, improved))
        loss = self.plain_share * plain_loss + (1 - self.plain_share) * improved_loss
        return loss, int((batch.targets != pad).sum())


@dataclass(frozen=True)
class CrossEntropy:
    """The control: the same words, the same batches and the same dropout, without the second prediction."""

    def __call__(self, model: Captioner, memory: Memory, batch: Captions) -> tuple[Tensor, int]:
        """Return the summed cross-entropy in nats and the number of words it is summed over."""
        logits = model.speak(model.read(memory, model.embed(batch.inputs)))
        pad = model.vocabulary.pad
        return summed_cross_entropy(logits, batch.targets, pad), int((batch.targets != pad).sum())


class Reweighted(Captioner):
    """A captioner that says what LRP inference makes of its context and hidden state; it shares its parts with the plain one.

    Whatever asks it for logits gets those of phat: sampling from it samples the caption of LRP inference, and reading a caption
    scores that caption by the same probabilities.

    Args:
        model: The plain captioner.
        reweighting: How; it must explain the most probable words and not be shuffled, because there is no reference.
    """

    def __init__(self, model: Captioner, reweighting: Reweighting) -> None:
        super().__init__(model.encoder, model.decoder, model.vocabulary, model.preprocessing, model.specification)
        self._reweighting = reweighting

    def speak(self, inputs: HeadInputs) -> Tensor:
        """Map what the word head sees to the logits of phat."""
        logits = super().speak(inputs)
        return super().speak(self._reweighting.apply(self, inputs, logits))


def summed_cross_entropy(logits: Tensor, targets: Tensor, pad: int) -> Tensor:
    """Sum the cross-entropy of logits (B, T, V) over the words of targets (B, T) that are not ``<pad>``, in nats."""
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
    return functional.cross_entropy(exact, targets.flatten(), ignore_index=pad, reduction="sum")
