"""Twenty pictures of colored blocks, and a model of a few units that has half learned captions for them: long, short, and an empty one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from small_models import randomize
from torch import nn

from capxai.data.images import read_image
from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.encoders.compact import CompactEncoder
from capxai.models.folder import load_model, save_model
from capxai.models.specification import Specification

SIDE = 32
WORDS = ("<pad>", "<start>", "<end>", "<unk>", "a", "car", "traffic", "light", "knife", "dog", "near", "red", "on")
NAMES = ("car", "traffic light", "knife", "dog")
COUNT = 20


def caption_of(number: int) -> str:
    """What the model is taught to say about a picture, 1 to 20: nothing about the last one, and little about every sixth."""
    if number == COUNT:
        return ""
    first, second, third = (NAMES[(number * step + number // 4) % 4] for step in (1, 2, 3))
    if number % 6 == 0:
        return f"a {first} near a {second}"
    return (
        f"a {first} near a {second} on a red {third}" if number % 2 else f"a red {first} on a {third} near a {second}"
    )


def write_corpus(folder: Path) -> None:
    """Write the pictures, and references that name one object each: other mentions are hallucinations."""
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(7)
    for number in range(1, COUNT + 1):
        blocks = generator.integers(0, 256, (5, 4, 3), dtype=np.uint8)
        Image.fromarray(np.kron(blocks, np.ones((8, 9, 1), dtype=np.uint8))).save(folder / "images" / f"{number}.png")
    numbers = range(1, COUNT + 1)
    images = [{"id": n, "file_name": f"{n}.png", "width": 36, "height": 40} for n in numbers]
    captions = [{"id": n, "image_id": n, "caption": reference_of(n)} for n in numbers]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    splits = {"test": {"images": "images", "captions": "captions.json"}}
    (folder / "corpus.json").write_text(json.dumps({"schema": 1, "name": "blocks", "splits": splits}))


def reference_of(number: int) -> str:
    """Name what is in a picture."""
    return f"a {NAMES[(number + number // 4) % 4]} and a table"


def normalized(model: Captioner, folder: Path, number: int) -> torch.Tensor:
    """Read a picture as the model sees it, (1, 3, S, S)."""
    pixels = model.preprocessing.resize(read_image(folder / "images" / f"{number}.png"))
    return model.preprocessing.normalize(torch.from_numpy(pixels.copy())[None])


def learned_model(decoder: str, corpus: Path, folder: Path) -> Captioner:
    """Teach a decoder on a random encoder its captions, and load it as the command will."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        heads = 2 if decoder == "mh-fc" else 1
        sizes = Specification("compact", decoder, CompactEncoder.channels, 16, 24, 16, len(WORDS), heads)
        model = build_captioner(sizes, Vocabulary(WORDS), Preprocessing(SIDE)).eval()
        assert model.encoder is not None
        randomize(model.encoder)
        images = torch.cat([normalized(model, corpus, number) for number in range(1, COUNT + 1)])
        features = _fit_statistics(model, images)
        _teach(model, features)
    model.lineage = {"name": decoder}
    save_model(model, folder)
    return load_model(folder)


def _fit_statistics(model: Captioner, images: torch.Tensor) -> torch.Tensor:
    """Let the batch norms of the encoder see the pictures once, so that its features tell them apart."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.train()
    with torch.no_grad():
        model.features(images)
        return model.eval().features(images)


def _teach(model: Captioner, features: torch.Tensor) -> None:
    vocabulary = model.vocabulary
    ids = [vocabulary.encode(text) if text else [] for text in map(caption_of, range(1, COUNT + 1))]
    longest = max(map(len, ids)) + 1
    said = torch.tensor([[*one, vocabulary.end, *(vocabulary.pad,) * (longest - len(one) - 1)] for one in ids])
    inputs = torch.cat([torch.full_like(said[:, :1], vocabulary.start), said[:, :-1]], 1)
    optimizer = torch.optim.Adam(model.decoder.parameters(), lr=0.01)
    for _ in range(120):
        logits = model.speak(model.read(model.remember(features), model.embed(inputs)))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), said.flatten(), ignore_index=vocabulary.pad)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
