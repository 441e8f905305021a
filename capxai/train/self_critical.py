"""Self-critical sequence training: what raises the reward of sampled captions above that of the greedy ones.

Rennie et al., "Self-critical Sequence Training for Image Captioning" (CVPR 2017), equation 9: REINFORCE with the reward of the model's
own greedy caption as its baseline,

    loss = - sum_b (r(sample_b) - r(greedy_b)) * sum_t log p(sample_bt | sample_b1 ... sample_b(t-1), picture_b)

over the words up to ``<end>``, which counts. The gradient of its expectation is that of minus the expected reward.

Dropout is off in all three passes. The estimate is unbiased only where the probabilities that are scored are those that were sampled
from, and the baseline is meant to be what the model does in use; both are so in evaluation mode, where one pass without a graph can
sample and one teacher-forced pass can score. Captioning code commonly samples under dropout and keeps the graph of that pass, which
is unbiased too, but for the reward of thinned networks, and projects to the vocabulary inside the time loop. Sampling without
dropout and scoring with it, or with other masks, would be off-policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from capxai.models.captioner import Captioner
from capxai.models.decoding import Decoded, DecodingOptions, decode
from capxai.models.decoding.decoded import prohibition
from capxai.models.decoding.sampling import Draw, sample
from capxai.models.state import Memory
from capxai.train.examples import CaptionBatch, caption_batch

Speaker = Callable[[Captioner], Captioner]
"""Returns the captioner that is to be heard in the place of another one; both have the same weights."""

Reward = Callable[[Tensor, list[list[int]]], Tensor]
"""``reward(rows, captions)``: (B,) of captions, each its word ids and ``<end>`` where it has one; rows (B,) int64 say which pictures."""


@dataclass(frozen=True)
class RewardSums:
    """Rewards summed over captions.

    Attributes:
        sampled: Of the sampled captions.
        greedy: Of the greedy ones, the baseline.
        captions: How many there were of each.
    """

    sampled: float = 0.0
    greedy: float = 0.0
    captions: int = 0


class SelfCritical:
    """The self-critical objective: ``(model, memory, batch)`` to the summed loss and the number of words that it is summed over.

    Random numbers are drawn from PyTorch's global random state, for the batch of all processes: processes with the same state sample
    together what one process would.

    Args:
        reward: What captions are worth. It is asked once a step, for the sampled and the greedy captions together.
        maximum_length: Steps of a caption, ``<end>`` counted.
        temperature: Divides the logits, both for sampling and for the probabilities that are scored.
        speaker: Who samples and is scored, where that is not the model itself; the greedy baseline is always the model's.
    """

    def __init__(
        self,
        reward: Reward,
        maximum_length: int = 20,
        temperature: float = 1.0,
        speaker: Speaker | None = None,
    ) -> None:
        self._reward, self._speaker = reward, speaker
        self._sampling = DecodingOptions("sample", temperature=temperature, maximum_length=maximum_length)
        self._greedy = DecodingOptions("greedy", maximum_length=maximum_length)
        self._sums = RewardSums()

    def __call__(self, model: Captioner, memory: Memory, batch: CaptionBatch) -> tuple[Tensor, float]:
        """Sample a caption for every picture of the batch and score it; the references of the batch are not read.

        Args:
            model: The captioner; its mode is as before afterwards.
            memory: Of the pictures, with the graph to what is trained below it.
            batch: Which pictures.

        Returns:
            The loss, a scalar, and the number of words, ``<end>`` counted.

        Raises:
            ModelError: The logits are not numbers.
        """
        rows = len(batch.rows)
        total = rows if batch.total is None else batch.total
        length = self._sampling.maximum_length
        uniform = torch.rand(total, length, dtype=torch.float64)[batch.first : batch.first + rows]
        with evaluating(model):
            if rows:
                targets, advantage = self._explore(model, memory, batch.rows, uniform)
            else:  # a process without a share: its gradients are zeros, but it has some
                targets, advantage = batch.targets, torch.zeros(0)
            losses = caption_losses(self._heard(model), memory, targets, self._sampling.temperature)
            return (advantage.to(losses) * losses).sum(), float((targets != model.vocabulary.pad).sum())

    def take_rewards(self) -> RewardSums:
        """Return the rewards since the last call, and begin anew."""
        sums, self._sums = self._sums, RewardSums()
        return sums

    def _heard(self, model: Captioner) -> Captioner:
        return model if self._speaker is None else self._speaker(model)

    @torch.no_grad()
    def _explore(self, model: Captioner, memory: Memory, rows: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Return sampled captions (B, T), padded, and by how much the reward of each is above that of the greedy one, (B,)."""
        end = model.vocabulary.end
        sampled = _with_end(sample(self._heard(model), memory, self._sampling, inverse_draw(uniform)), end)
        greedy = _with_end(decode(model, memory, self._greedy), end)
        rewards = self._reward(torch.cat([rows, rows]), sampled + greedy)
        ours, baseline = rewards.split(len(rows))
        before = self._sums
        self._sums = RewardSums(
            before.sampled + float(ours.sum()), before.greedy + float(baseline.sum()), before.captions + len(rows)
        )
        padded = nn.utils.rnn.pad_sequence(
            [torch.tensor(caption) for caption in sampled], batch_first=True, padding_value=model.vocabulary.pad
        )
        return padded, ours - baseline


def caption_losses(model: Captioner, memory: Memory, targets: Tensor, temperature: float) -> Tensor:
    """Return minus the log-probability of each whole caption, (B,), in one teacher-forced pass.

    It is that of the distribution which sampling draws from: with the temperature, and without the words that are never chosen.

    Args:
        model: The captioner.
        memory: Batch B.
        targets: (B, T) int64, the words and ``<end>``; ``<pad>`` where the caption is over.
        temperature: Divides the logits.
    """
    vocabulary, device = model.vocabulary, memory.features.device
    batch = caption_batch(torch.arange(len(targets)), targets, vocabulary).to(device)
    logits = model.speak(model.read(memory, model.embed(batch.inputs)))  # (B, T, V)
    allowed = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature + prohibition(
        vocabulary, memory.features
    )
    losses = functional.cross_entropy(
        allowed.flatten(0, 1), batch.targets.flatten(), ignore_index=vocabulary.pad, reduction="none"
    )
    return losses.view(batch.targets.shape).sum(1)


def inverse_draw(uniform: Tensor) -> Draw:
    """Draw by the inverse of the cumulative distribution: step t takes the first word whose cumulated probability is above uniform[:, t].

    Args:
        uniform: (B, T) in [0, 1).
    """
    shrunk = uniform * (1 - 2**-20)  # so that rounding never leads behind the last word

    def draw(t: int, probabilities: Tensor) -> Tensor:
        cumulated = probabilities.cumsum(1, dtype=torch.float64 if probabilities.device.type != "mps" else None)
        bounds = shrunk[:, t : t + 1].to(cumulated) * cumulated[:, -1:]
        return torch.searchsorted(cumulated, bounds, right=True)

    return draw


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode while the context lasts; every module gets its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _with_end(captions: Sequence[Decoded], end: int) -> list[list[int]]:
    return [[*caption.token_ids, end] if caption.finished else list(caption.token_ids) for caption in captions]
