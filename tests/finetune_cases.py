"""A corpus of a few pictures, base models of 16 units, and settings of runs of a moment, for tests of fine-tuning."""

from __future__ import annotations

from pathlib import Path

import torch

from capxai.data.corpus import Corpus
from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.encoders.compact import CompactEncoder
from capxai.models.folder import save_model
from capxai.models.specification import Specification
from capxai.recipes.finetune import FinetuneConfig

SIDE = 32
REGIONS = 16


def base_model(corpus: Corpus, decoder: str, encoder: str = "compact") -> Captioner:
    """Return a model of random weights that knows the words of a corpus, the same each time."""
    captions = corpus.split("train").captions
    vocabulary = Vocabulary.build((text for texts in captions.values() for text in texts), 1)
    heads = 4 if decoder == "mh-fc" else 1
    sizes = Specification(encoder, decoder, CompactEncoder.channels, REGIONS, 16, 16, len(vocabulary), heads)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_captioner(sizes, vocabulary, Preprocessing(SIDE))
    for parameter in model.decoder.parameters():
        parameter.data *= 2  # so that pictures and words count
    model.lineage = {"name": "base", "domain": "scenes", "domain_note": "knows nothing"}
    return model.eval()


def write_base(folder: Path, corpus: Path, decoder: str = "ada-lstm", encoder: str = "compact") -> Path:
    """Save `base_model`."""
    save_model(base_model(Corpus.open(corpus), decoder, encoder), folder)
    return folder


def settings(corpus: Path, model: Path, out: Path, **more: object) -> FinetuneConfig:
    """Return settings of a run of a moment."""
    small: dict[str, object] = {
        "updates": 3,
        "batch_size": 5,
        "validation_pictures": 4,
        "figure_splits": (),
        "threads": 1,
        "workers": 0,
        "device": "cpu",
    }
    return FinetuneConfig(corpus=corpus, model=model, out=out, **{**small, **more})  # type: ignore[arg-type]
