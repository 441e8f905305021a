"""Write checkpoints as the authors' code does, and compute their forward pass slowly, from the published formulas.

Nothing of `capxai.models` is used here, so that an error there cannot hide here.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

WORDS = ("a", "man", "dog", "on", "the", "beach", ")", "2", "t-shirt")
VGG16_WIDTHS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
EMBEDDING, HIDDEN, REGIONS, CHANNELS = 6, 16, 196, 512

Weights = OrderedDict[str, Tensor]


def word_map() -> dict[str, int]:
    """Number the words as the authors do: words from 1, then <unk>, <start>, <end>; <pad> is 0 and written last."""
    numbers = {word: number for number, word in enumerate((*WORDS, "<unk>", "<start>", "<end>"), start=1)}
    return numbers | {"<pad>": 0}


def write_word_map(path: Path, words: dict[str, int] | None = None) -> Path:
    path.write_text(json.dumps(word_map() if words is None else words))
    return path


def vgg16_weights(generator: torch.Generator) -> Weights:
    """Draw He-initialized convolutions, named as torchvision numbers its layers."""
    weights: Weights = OrderedDict()
    layer, inputs = 0, 3
    for width in VGG16_WIDTHS:
        if isinstance(width, str):
            layer += 1
            continue
        scale = math.sqrt(2 / (9 * inputs))
        name = f"img_encoder.encoder.{layer}"
        weights[f"{name}.weight"] = torch.randn(width, inputs, 3, 3, generator=generator) * scale
        weights[f"{name}.bias"] = torch.randn(width, generator=generator) * 0.1
        layer, inputs = layer + 2, width
    return weights


def decoder_weights(
    decoder: str, generator: torch.Generator, channels: int = CHANNELS, convolution: bool = True
) -> Weights:
    """Draw the weights of a decoder, each with its name and shape in the authors' code."""
    embedding, hidden, words = EMBEDDING, HIDDEN, len(word_map())
    weights: Weights = OrderedDict()

    def linear(name: str, outputs: int, inputs: int, bias: bool = True) -> None:
        weights[f"{name}.weight"] = torch.randn(outputs, inputs, generator=generator) / math.sqrt(inputs)
        if bias:
            weights[f"{name}.bias"] = torch.randn(outputs, generator=generator) * 0.3

    def lstm(name: str, inputs: int) -> None:
        for kind, columns in (("ih", inputs), ("hh", hidden)):
            weights[f"{name}.weight_{kind}"] = torch.randn(4 * hidden, columns, generator=generator) / math.sqrt(
                columns
            )
            weights[f"{name}.bias_{kind}"] = torch.randn(4 * hidden, generator=generator) * 0.3

    linear("img_projector", hidden, channels)
    if convolution:
        weights["img_projector.weight"] = weights["img_projector.weight"][:, :, None, None]
    if decoder == "mh-fc":
        lstm("LanguageLSTM", hidden + embedding)
        for name in ("decoder_k_proj", "decoder_v_proj", "decoder_multihead_attention.q_proj"):
            linear(name, hidden, hidden)
        for name in ("decoder_aoa_linear_gate", "decoder_aoa_linear"):
            linear(name, hidden, hidden)
    else:
        inputs = 2 * embedding + (hidden if decoder == "ada-lstm" else 0)
        linear("global_img_feature_proj", embedding, channels)
        if decoder == "ada-lstm":
            lstm("LanguageLSTM", 2 * hidden)
        lstm("AdaLSTM.lstm_cell", inputs)
        linear("AdaLSTM.x_gate", hidden, inputs)
        linear("AdaLSTM.h_gate", hidden, hidden)
        linear("AdaAttention.W_v_proj", REGIONS, hidden)
        linear("AdaAttention.W_s_proj", REGIONS, hidden)
        linear("AdaAttention.W_g_proj", REGIONS, hidden, bias=False)
        linear("AdaAttention.w_h", 1, REGIONS, bias=False)
    weights["embedding.weight"] = torch.randn(words, embedding, generator=generator)
    linear("fc", words, hidden)
    return weights


def write_checkpoint(path: Path, weights: Weights, legacy: bool = False, parallel: bool = False) -> Path:
    """Save what the authors save, with their pickled Adam object, which has taken a step on some of the weights."""
    trained = [
        torch.nn.Parameter(tensor.clone()) for name, tensor in weights.items() if not name.startswith("img_encoder")
    ]
    optimizer = torch.optim.Adam([{"params": trained[:2]}, {"params": trained[2:]}], lr=5e-4, betas=(0.8, 0.999))
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = OrderedDict((f"module.{name}" if parallel else name, tensor) for name, tensor in weights.items())
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]  # as Module.state_dict sets it
    content = {
        "epoch": 7,
        "epochs_since_improvement": 0,
        "bleu-4": 0.2461,
        "cider": np.float64(0.5625),
        "state_dict": state,
        "optimizer": optimizer,
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def vgg16_features(weights: Weights, images: Tensor) -> Tensor:
    """Return VGG16's features before its last pooling, (B, K, C), in the precision of ``images``."""
    x, layer = images, 0
    for width in VGG16_WIDTHS:
        if isinstance(width, str):
            x = functional.max_pool2d(x, 2)
            layer += 1
            continue
        name = f"img_encoder.encoder.{layer}"
        x = torch.relu(functional.conv2d(x, weights[f"{name}.weight"].to(x), weights[f"{name}.bias"].to(x), padding=1))
        layer += 2
    return x.flatten(2).transpose(1, 2)


class Replica:
    """The authors' decoders in float64, one picture, one region and one head at a time."""

    def __init__(self, decoder: str, weights: Weights, heads: int = 8) -> None:
        self.decoder = decoder
        self.heads = heads
        self.weights = {
            name: tensor.double().flatten(1) if tensor.dim() == 4 else tensor.double()
            for name, tensor in weights.items()
        }

    def affine(self, name: str, x: Tensor) -> Tensor:
        """Return W x (+ b)."""
        result = self.weights[f"{name}.weight"] @ x
        return result + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else result

    def lstm(self, name: str, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new hidden and cell vector."""
        w = {key: self.weights[f"{name}.{key}"] for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        gates = w["weight_ih"] @ x + w["bias_ih"] + w["weight_hh"] @ hidden + w["bias_hh"]
        write, keep, candidate, read = gates.split(len(hidden))
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(write) * torch.tanh(candidate)
        return torch.sigmoid(read) * torch.tanh(cell), cell

    def logits(self, features: Tensor, words: list[int]) -> Tensor:
        """Return the logits (T, V) for one picture's features (K, C), feeding the given word ids."""
        features = features.double()
        regions = [torch.relu(self.affine("img_projector", region)) for region in features]
        step = self.multi_head_step if self.decoder == "mh-fc" else self.adaptive_step
        zeros = torch.zeros(len(regions[0]), dtype=torch.float64)
        state = [zeros] * 4
        rows = []
        for word in words:
            row, state = step(features, regions, self.weights["embedding.weight"][word], state)
            rows.append(row)
        return torch.stack(rows)

    def adaptive_step(
        self, features: Tensor, regions: list[Tensor], word: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        hidden1, cell1, hidden2, cell2 = state
        summary = torch.relu(self.affine("global_img_feature_proj", features.mean(0)))
        x = torch.cat([hidden2, summary, word] if self.decoder == "ada-lstm" else [word, summary])
        gate = torch.sigmoid(self.affine("AdaLSTM.x_gate", x) + self.affine("AdaLSTM.h_gate", hidden1))
        hidden1, cell1 = self.lstm("AdaLSTM.lstm_cell", x, hidden1, cell1)
        sentinel = gate * torch.tanh(cell1)
        query = self.affine("AdaAttention.W_g_proj", hidden1)
        # The quirk: entry k of the query goes to every unit of region k.
        scores = [
            self.affine("AdaAttention.w_h", torch.tanh(self.affine("AdaAttention.W_v_proj", region) + query[k]))
            for k, region in enumerate(regions)
        ]
        last = self.affine("AdaAttention.w_h", torch.tanh(self.affine("AdaAttention.W_s_proj", sentinel) + query))
        alpha = torch.cat(scores).softmax(0)
        context = sum((a * region for a, region in zip(alpha, regions, strict=True)), torch.zeros_like(hidden1))
        beta = torch.cat([*scores, last]).softmax(0)[-1]
        mixed = beta * sentinel + (1 - beta) * context
        if self.decoder == "adaptive":
            return self.affine("fc", mixed + hidden1), [hidden1, cell1, hidden2, cell2]
        hidden2, cell2 = self.lstm("LanguageLSTM", torch.cat([mixed, hidden1]), hidden2, cell2)
        return self.affine("fc", mixed + hidden2), [hidden1, cell1, hidden2, cell2]

    def multi_head_step(
        self, features: Tensor, regions: list[Tensor], word: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        hidden, cell, *rest = state
        hidden, cell = self.lstm("LanguageLSTM", torch.cat([word, torch.stack(regions).mean(0)]), hidden, cell)
        query = self.affine("decoder_multihead_attention.q_proj", hidden)
        keys = [self.affine("decoder_k_proj", region) for region in regions]
        values = [self.affine("decoder_v_proj", region) for region in regions]
        width = len(hidden) // self.heads
        parts = []
        for head in range(self.heads):
            own = slice(head * width, (head + 1) * width)
            weights = torch.stack([key[own] @ query[own] / math.sqrt(width) for key in keys]).softmax(0)
            parts.append(
                sum((w * value[own] for w, value in zip(weights, values, strict=True)), torch.zeros_like(hidden[own]))
            )
        gate = torch.sigmoid(self.affine("decoder_aoa_linear_gate", hidden))
        context = gate * self.affine("decoder_aoa_linear", torch.cat(parts))
        return self.affine("fc", context + hidden), [hidden, cell, *rest]
