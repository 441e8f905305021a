"""From features to captions: greedy, beam search, diverse beam search and sampling, all pictures of a batch at once."""

from __future__ import annotations

import torch

from capxai.models.captioner import Captioner
from capxai.models.decoding.beam import beam_search
from capxai.models.decoding.decoded import Decoded, Veto
from capxai.models.decoding.options import STRATEGIES, DecodingOptions
from capxai.models.decoding.sampling import sample
from capxai.models.state import Memory

__all__ = ["STRATEGIES", "Decoded", "DecodingOptions", "Veto", "decode"]


@torch.no_grad()
def decode(
    model: Captioner, memory: Memory, options: DecodingOptions | None = None, veto: Veto | None = None
) -> list[Decoded]:
    """Find captions, without gradients, in the mode (training or evaluation) that the model is in.

    ``<pad>``, ``<start>`` and ``<unk>`` are never chosen; ``<end>`` may be the first choice, and then the caption is
    empty.

    Args:
        model: The captioner.
        memory: From `Captioner.encode` or `Captioner.remember`, batch B.
        options: How to search; beam search of width 3 by default.
        veto: May forbid words at each step, for each hypothesis by itself; the word gives way to the next best.

    Returns:
        B captions, in the order of the batch.

    Raises:
        ModelError: The model's logits are not numbers.

    Differs from the published code: it decodes one picture at a time, and its beam shrinks with each caption that ends.
    """
    options = options or DecodingOptions()
    if memory.features.shape[0] == 0:
        return []
    if options.strategy == "sample":
        return sample(model, memory, options, veto=veto)
    return beam_search(model, memory, options, veto)
