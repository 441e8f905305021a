"""A model of a few units for tests of what surrounds models."""

from __future__ import annotations

import torch

from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.encoders.compact import CompactEncoder
from capxai.models.specification import Specification

WORDS = ("<pad>", "<start>", "<end>", "<unk>", "a", "red", "car", "on", "the", "road")


def tiny_captioner(decoder: str = "ada-lstm", favorite: str | None = None) -> Captioner:
    """A model of a few units with random weights that always has something to say, or says its favorite word alone."""
    words = WORDS if favorite is None else (*WORDS[:4], favorite)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = Specification(
            "compact", decoder, CompactEncoder.channels, 16, 16, 16, len(words), 2 if decoder == "mh-fc" else 1
        )
        captioner = build_captioner(sizes, Vocabulary(words), Preprocessing(32))
    for name, parameter in captioner.decoder.named_parameters():
        if parameter.shape == (len(words),) and name.endswith("bias"):
            parameter.data[captioner.vocabulary.end] = -1e4
    captioner.lineage = {"name": "tiny", "domain_note": "This model knows nothing but noise."}
    return captioner.eval()
