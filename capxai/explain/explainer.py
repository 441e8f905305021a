"""Explain one caption of one picture: the library's main function."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from capxai.data.images import picture_array
from capxai.errors import VocabularyError
from capxai.explain.attribution import Reading, Words, record
from capxai.explain.explanation import Contrast, Explanation
from capxai.explain.methods import Maps, Options, Request, encoder_composite, find_method, refuse_unused, region_grid
from capxai.explain.question import asked
from capxai.lrp.composites import Composite
from capxai.lrp.propagation import Ledger
from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions, decode
from capxai.types import FloatArray, ImageArray


def explain(
    model: Captioner,
    image: str | Path | ImageArray,
    method: str = "lrp",
    caption: str | None = None,
    *,
    beam: int = 3,
    options: Options | None = None,
    head: int | None = None,
    why: str | None = None,
    against: str | None = None,
) -> Explanation:
    """Say for every word of a caption, or for one, which pixels and which preceding words spoke for and against it.

    Args:
        model: From `capxai.load`.
        image: A picture file, or (H, W, 3) uint8 RGB.
        method: A name in `capxai.explain.methods.METHODS`.
        caption: The caption to explain; None explains what the model says by itself.
        beam: Beam width for the model's own caption.
        options: Settings of the method.
        head: Shorthand for ``options.head``.
        why: Explain this word of the caption alone, where it stands first.
        against: Explain why it is ``why`` rather than this word of the vocabulary: the relevance of one logit minus that of the other, both
            at the step of ``why``. Guided backpropagation, Grad-CAM and guided Grad-CAM, which are not linear, are those of the
            difference of the logits.

    Returns:
        The explanation; relevance of `lrp` is signed and in logit units.

    Raises:
        ImageError: The picture cannot be read.
        VocabularyError: The caption holds no word, or a word that the model does not know; the message names it.
        RelevanceError: Unknown method, or one that the model cannot give.
    """
    explained = find_method(method)
    picture = model.preprocessing.resize(picture_array(image))
    chosen = options or Options()
    if head is not None:
        chosen = replace(chosen, head=head)
    refuse_unused(method, chosen)
    question = asked(model.vocabulary, method, why, against)
    with _evaluating(model):
        reading = read(model, picture, caption, beam, encoder_composite(method, model, chosen))
        readings = reading.together()
        words = readings.all_words() if question is None else question.words(reading)
        maps = explained(Request(readings, words, chosen))
        facts = _facts(reading, words)
    source = "" if isinstance(image, np.ndarray) else Path(image).name
    note = model.lineage.get("domain_note")
    return Explanation(
        method=method,
        model=str(model.lineage.get("name") or model.specification.decoder),
        image=picture,
        grid=region_grid(reading),
        source=source,
        notes=(str(note),) if note else (),
        **_texts(reading, words),
        **facts,
        **_arrays(maps, int(words.places.max()) + 1),
    )


def read(
    model: Captioner, picture: ImageArray, caption: str | None, beam: int = 3, composite: Composite | None = None
) -> Reading:
    """Let a model look at a picture and read a caption, or write its own.

    Args:
        model: In evaluation mode.
        picture: (S, S, 3) uint8 RGB, resized by the model's preprocessing.
        caption: None for the model's own caption, decoded with a beam.
        beam: Width of the beam.
        composite: Record the encoder's pass for these rules; None for a plain pass.

    Raises:
        VocabularyError: The caption holds no word or an unknown one, or the model has nothing to say about the picture.
    """
    with torch.no_grad():
        images = model.preprocessing.normalize(torch.from_numpy(np.array(picture))[None].to(model.device)).to(
            model.dtype
        )
        tape = None if composite is None or model.encoder is None else record(model, images, composite)
        features = model.features(images) if tape is None else tape.features.detach()
        if caption is None:
            tokens = list(
                decode(model, model.remember(features), DecodingOptions(strategy="beam", beam=beam))[0].token_ids
            )
        else:
            tokens = model.vocabulary.encode(caption)
    if not tokens:
        raise VocabularyError(
            "There is no word to explain: "
            + ("the model's own caption of this picture is empty. Give one with --caption." if caption is None
               else f"the caption '{caption}' holds none. Give at least one word.")
        )  # fmt: skip
    return Reading(model, images, features, torch.tensor(tokens, device=model.device), tape)


def _texts(reading: Reading, words: Words) -> dict[str, Any]:
    """Split the caption into the explained words, which stand together, and those before and after them."""
    spoken = tuple(reading.model.vocabulary.words[token] for token in reading.tokens.tolist())
    first, last = int(words.places.min()), int(words.places.max()) + 1
    return {
        "tokens": spoken[first:last],
        "token_ids": words.tokens.cpu().numpy(),
        "before": spoken[:first],
        "after": spoken[last:],
    }


def _facts(reading: Reading, words: Words) -> dict[str, Any]:
    """Collect what the plain forward pass says about every explained word, and about the one that it is set against."""
    with torch.no_grad():
        seen = reading.unroll()
        steps = [seen[place] for place in words.places.tolist()]
        logits = torch.stack([step.logits[0] for step in steps])  # (W, V)
        probabilities = torch.softmax(logits, 1)
        chosen = words.tokens[:, None]
        sentinels = [step.sentinel[0] for step in steps if step.sentinel is not None]
        return {
            "logits": _numpy(logits.gather(1, chosen)[:, 0]),
            "probability": _numpy(probabilities.gather(1, chosen)[:, 0]),
            "attention": _numpy(torch.stack([step.attention[0] for step in steps])),
            "sentinel": _numpy(torch.stack(sentinels)) if sentinels else None,
            "contrast": None if words.against is None else _contrast(reading, words.against, logits, probabilities),
        }


def _contrast(reading: Reading, against: Tensor, logits: Tensor, probabilities: Tensor) -> Contrast:
    other = int(against)
    return Contrast(
        reading.model.vocabulary.words[other], other, float(logits[0, other]), float(probabilities[0, other])
    )


def _arrays(maps: Maps, inputs: int) -> dict[str, Any]:
    """Name the arrays of an explanation whose last word has so many input words."""
    kept = {} if maps.kept is None else dict(zip(Ledger.COLUMNS, maps.kept.unbind(1), strict=True))
    return {
        "pixel_relevance": _numpy(maps.pixels),
        "region_relevance": _numpy(maps.regions),
        "word_relevance": _numpy(None if maps.words is None else maps.words[:, :inputs]),
        "bias_relevance": _numpy(kept.get("bias")),
        "eps_relevance": _numpy(kept.get("eps")),
        "other_heads_relevance": _numpy(kept["other heads"]) if kept and bool(kept["other heads"].any()) else None,
    }


def _numpy(tensor: Tensor | None) -> FloatArray | None:
    return None if tensor is None else tensor.detach().to("cpu", torch.float32).numpy()


@contextmanager
def _evaluating(model: Captioner) -> Iterator[None]:
    """Put the model into evaluation mode and back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
