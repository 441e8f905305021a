"""Captioners of three to five units in float64, with every axis of another length, for tests that compute everything by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.explain.attribution import Reading
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.specification import Specification

DECODERS = ("ada-lstm", "mh-fc", "adaptive")
WORDS = ("<pad>", "<start>", "<end>", "<unk>", "a", "red", "car", "on", "the", "road")
CHANNELS, REGIONS, EMBEDDING = 5, 6, 3
CAPTION = (4, 6, 7, 8, 9)
"""Token ids of "a car on the road"."""

OUTPUT_CHANNELS = {"compact": 112, "vgg16": 512, "resnet50": 2048}
STRIDES = {"compact": 8, "vgg16": 16, "resnet50": 32}


def small_model(decoder: str, *, published: bool = False, seed: int = 0, biased: bool = True) -> Captioner:
    """A float64 model of stored features: H 4, E 3, C 5, K 6, two heads; weights large enough that nothing is nearly linear."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        heads = 2 if decoder == "mh-fc" else 1
        sizes = Specification("features", decoder, CHANNELS, REGIONS, 4, EMBEDDING, len(WORDS), heads, published)
        model = build_captioner(sizes, Vocabulary(WORDS), Preprocessing(32)).double().eval()
        for name, parameter in model.named_parameters():
            nn.init.normal_(parameter, std=0.7)
            if "bias" in name and not biased:
                nn.init.zeros_(parameter)
    return model


def features(seed: int = 1, count: int = 1) -> Tensor:
    """Encoder output (B, K, C) as after a ReLU: never negative."""
    return torch.rand(count, REGIONS, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def reading(model: Captioner, tokens: tuple[int, ...] = CAPTION, regions: Tensor | None = None) -> Reading:
    """A model of stored features reading a caption."""
    return Reading(model, None, features() if regions is None else regions, torch.tensor(tokens))


def picture_model(encoder: str, decoder: str, size: int, dtype: torch.dtype, seed: int = 0) -> Captioner:
    """A model of 16 units on a real encoder, every bias and every statistic of its batch norms drawn at random."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        regions = (size // STRIDES[encoder]) ** 2
        heads = 4 if decoder == "mh-fc" else 1
        sizes = Specification(encoder, decoder, OUTPUT_CHANNELS[encoder], regions, 16, 12, len(WORDS), heads)
        model = build_captioner(sizes, Vocabulary(WORDS), Preprocessing(size)).to(dtype).eval()
        randomize(model)
        nn.init.normal_(model.decoder.region_projection.linear.weight, std=0.2)  # or the picture would hardly count
    return model


def randomize(model: nn.Module) -> None:
    """Draw biases and the statistics of batch norms, which fresh layers leave at zero and one."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -0.9, 0.9)  # some turn the sign
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.1)


def picture(size: int, dtype: torch.dtype = torch.float32, seed: int = 2) -> Tensor:
    """A normalized picture (1, 3, S, S) of noise."""
    return torch.randn(1, 3, size, size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def picture_reading(model: Captioner, tokens: tuple[int, ...] = CAPTION) -> Reading:
    """A model looking at a picture of noise and reading a caption."""
    images = picture(model.preprocessing.image_size, next(model.parameters()).dtype)
    with torch.no_grad():
        return Reading(model, images, model.features(images), torch.tensor(tokens))
