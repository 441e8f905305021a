"""Captioners that cannot help where their object word comes from: the language alone, or the picture alone.

Hidden units are of two kinds. Those of the language read word vectors and each other, those of the picture read regions and each other, at
every gate as well. The two meet only in the word head, where each word's row reads units of one kind. Rows are then solved for.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from capxai.data.images import read_image
from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.encoders.compact import CompactEncoder
from capxai.models.folder import save_model
from capxai.models.specification import Specification

SIDE, LANGUAGE, PICTURE, EMBEDDING = 32, 8, 32, 6
HIDDEN = LANGUAGE + PICTURE
WORDS = ("<pad>", "<start>", "<end>", "<unk>", "a", "red", "car", "dog")
COLORS = {1: (230, 40, 30), 2: (160, 10, 60), 3: (30, 60, 220), 4: (10, 160, 170)}
OBJECTS = {1: "car", 2: "car", 3: "dog", 4: "dog"}


def write_colors(folder: Path) -> None:
    """Write two reddish pictures with a car and two bluish ones with a dog."""
    (folder / "images").mkdir(parents=True)
    for number, color in COLORS.items():
        Image.fromarray(np.full((SIDE, SIDE, 3), color, dtype=np.uint8)).save(folder / "images" / f"{number}.png")
    images = [{"id": n, "file_name": f"{n}.png", "width": SIDE, "height": SIDE} for n in COLORS]
    captions = [{"id": n, "image_id": n, "caption": f"a {name}"} for n, name in OBJECTS.items()]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    splits = {"test": {"images": "images", "captions": "captions.json"}}
    (folder / "corpus.json").write_text(json.dumps({"schema": 1, "name": "colors", "splits": splits}))


def caption_of(source: str, number: int) -> str:
    """What the captioner is to say about a picture."""
    return "a red car" if source == "language" else f"a red {OBJECTS[number]}"


def planted_captioner(decoder: str, source: str, images: Path, folder: Path, leak: float = 0.0) -> Captioner:
    """Build a captioner and save it.

    Args:
        decoder: Name of the decoder.
        source: "language" or "picture": which units the object words are read from.
        images: Folder of the pictures.
        folder: Where the model goes.
        leak: Size of the weights between units of different kinds; 0 keeps them apart.
    """
    with torch.random.fork_rng():
        torch.manual_seed(11)
        heads = 2 if decoder == "mh-fc" else 1
        sizes = Specification("compact", decoder, CompactEncoder.channels, 16, HIDDEN, EMBEDDING, len(WORDS), heads)
        model = build_captioner(sizes, Vocabulary(WORDS), Preprocessing(SIDE)).eval()
        for name, parameter in model.decoder.named_parameters():
            nn.init.zeros_(parameter) if "bias" in name else nn.init.normal_(parameter, std=0.6)
        pixels = torch.stack([_normalized(model, images / f"{number}.png") for number in COLORS])
        with torch.no_grad():
            features = model.features(pixels)
            model.decoder.region_projection.linear.weight /= 3 * features.std()
            if decoder != "mh-fc":
                model.decoder.global_projection.linear.weight /= 3 * features.std()
            _separate(model.decoder, decoder, source, leak)
            _solve_head(model, features, source)
    model.lineage = {"name": f"{decoder} {source}"}
    save_model(model, folder)
    return model


def _normalized(model: Captioner, path: Path) -> Tensor:
    pixels = model.preprocessing.resize(read_image(path))
    return model.preprocessing.normalize(torch.from_numpy(pixels.copy())[None])[0]


UNITS = torch.tensor([0] * LANGUAGE + [1] * PICTURE)
"""Kind of each hidden unit: 0 language, 1 picture."""


def _separate(decoder: nn.Module, name: str, source: str, leak: float) -> None:
    """Cut every weight between units of different kinds."""
    words, seen = torch.zeros(EMBEDDING, dtype=torch.int64), torch.ones

    def cut(weight: nn.Parameter, columns: Tensor) -> None:
        rows = UNITS.repeat(len(weight) // HIDDEN)  # an LSTM has four blocks of rows
        weight.mul_(torch.where(rows[:, None] == columns[None, :], 1.0, leak))

    summary = seen(HIDDEN if name == "mh-fc" else EMBEDDING, dtype=torch.int64)
    x = torch.cat([UNITS, summary, words] if name == "ada-lstm" else [words, summary])
    cut(decoder.lstm.weight_ih, x)
    cut(decoder.lstm.weight_hh, UNITS)
    if name == "mh-fc":
        cut(decoder.context_projection.weight, seen(HIDDEN, dtype=torch.int64))
        cut(decoder.context_gate.weight, UNITS)
        decoder.attention.query_projection.weight.mul_(torch.where(UNITS == 1, 1.0, leak))
        return
    cut(decoder.region_projection.linear.weight, seen(CompactEncoder.channels, dtype=torch.int64))
    cut(decoder.sentinel.x_gate.weight, x)
    cut(decoder.sentinel.h_gate.weight, UNITS)
    # The share of the sentinel is one number for all units: words must not move it, nor the picture where the language speaks.
    decoder.attention.query_projection.weight.mul_(leak)
    decoder.attention.sentinel_projection.weight.mul_(leak)
    if source == "language":
        decoder.attention.score.weight.mul_(leak)
    if name == "ada-lstm":
        cut(decoder.language_lstm.weight_ih, torch.cat([UNITS, UNITS]))
        cut(decoder.language_lstm.weight_hh, UNITS)


def _solve_head(model: Captioner, features: Tensor, source: str) -> None:
    """Let every word's row say 10 where the word belongs and 0 elsewhere, reading units of its kind alone."""
    captions = [caption_of(source, number) for number in COLORS]
    said = torch.tensor([[*model.vocabulary.encode(text), model.vocabulary.end] for text in captions])
    inputs = torch.cat([torch.full_like(said[:, :1], model.vocabulary.start), said[:, :-1]], 1)
    seen = model.read(model.remember(features), model.embed(inputs))
    arrived = (seen.context + seen.hidden).flatten(0, 1).double()  # (pictures * steps, H)
    wanted = 10 * nn.functional.one_hot(said.flatten(), len(WORDS)).double()
    head = model.decoder.word_head.fc.weight
    head.zero_()
    for word in range(len(WORDS)):
        kind = 1 if source == "picture" and WORDS[word] in OBJECTS.values() else 0
        units = kind == UNITS
        solved = torch.linalg.lstsq(arrived[:, units], wanted[:, word : word + 1], rcond=1e-6, driver="gelsd").solution
        head[word, units] = solved[:, 0].float()
