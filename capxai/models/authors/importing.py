"""Build a captioner from one of the authors' checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.errors import ModelError
from capxai.models.authors.checkpoint import Checkpoint, read_checkpoint
from capxai.models.authors.names import Layout, recognize, translate
from capxai.models.authors.wordmap import read_wordmap
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner


def import_captioner(checkpoint: Path, wordmap: Path, heads: int | None = None) -> Captioner:
    """Read a checkpoint and its word map; nothing in them is executed.

    Args:
        checkpoint: A file that the authors' code saved with ``torch.save``, before or after PyTorch 1.6.
        wordmap: Their JSON word map.
        heads: Number of heads of an `mh-fc`, which checkpoints do not store; None for the paper's.

    Returns:
        The captioner on the CPU in evaluation mode, with its lineage.

    Raises:
        UnsafeCheckpointError: The checkpoint's pickle names something that could run code.
        ModelError: The checkpoint cannot be used.
        VocabularyError: The word map cannot be used.
    """
    vocabulary = read_wordmap(wordmap)
    read = read_checkpoint(checkpoint)
    layout = recognize(read.weights, heads)
    size = layout.specification.vocabulary_size
    if size != len(vocabulary):
        raise ModelError(
            f"The checkpoint has {size} words, the word map '{wordmap}' has {len(vocabulary)}. Expected the same "
            "number. "
            "Give the word map of the data set that the checkpoint was trained on."
        )
    captioner = _build(read, layout, vocabulary)
    captioner.lineage = {
        "imported_from": checkpoint.name,
        "sha256": read.sha256,
        "container": read.container,
        "wordmap": wordmap.name,
        **{key: read.facts[key] for key in ("epoch", "bleu-4", "cider") if key in read.facts},
        "notes": list(layout.notes),
    }
    return captioner


def _build(read: Checkpoint, layout: Layout, vocabulary: Vocabulary) -> Captioner:
    with torch.device("meta"):  # no time is spent on weights that are replaced at once
        captioner = build_captioner(layout.specification, vocabulary, Preprocessing(layout.image_size))
    weights = translate(read.weights, layout.specification.decoder, captioner.state_dict())
    broken = [name for name, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise ModelError(
            f"The checkpoint's weights are not finite ({', '.join(broken[:3])}). Expected numbers. Its training "
            "diverged; use one of "
            "an earlier epoch."
        )
    captioner.load_state_dict(weights, assign=True)
    return captioner.eval()
