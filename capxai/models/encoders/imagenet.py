"""Encoders from torchvision, cut before their last pooling, and their ImageNet weights.

The plain forward pass is torchvision's, bit for bit: the same modules in the same order. Only the residual sum and the three ReLUs of a
bottleneck become modules of their own, so that relevance rules can address them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, ResNet101_Weights, VGG16_Weights, WeightsEnum, resnet, vgg16

from capxai.errors import DependencyError, ModelError
from capxai.layers.structure import Add
from capxai.models.encoders.base import Encoder

WEIGHTS: dict[str, WeightsEnum] = {
    "vgg16": VGG16_Weights.IMAGENET1K_V1,
    "resnet50": ResNet50_Weights.IMAGENET1K_V2,
    "resnet101": ResNet101_Weights.IMAGENET1K_V2,
}


def _without_overwriting(trunk: nn.Sequential) -> nn.Sequential:
    """Let ReLUs keep their input, which relevance rules of the layer before may still need; the output is the same."""
    for module in trunk.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return trunk


class VGG16Encoder(Encoder):
    """VGG16 without its last max-pooling: a 224 px picture gives 14x14x512 (Simonyan and Zisserman 2015)."""

    channels = 512
    stride = 16

    def __init__(self) -> None:
        super().__init__(_without_overwriting(vgg16(weights=None).features[:-1]))

    def load_torchvision(self, weights: dict[str, Tensor]) -> None:
        """Load a state dict of torchvision's whole VGG16; the classifier's part of it is left aside."""
        prefix = "features."
        self.trunk.load_state_dict({k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)})


class Bottleneck(resnet.Bottleneck):
    """torchvision's bottleneck with its residual sum and each of its ReLUs addressable by name."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.residual_add = Add()
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(x' + f(x)), x' being x or its projection."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        result: Tensor = self.relu(self.residual_add(out, identity))
        return result


class ResNetEncoder(Encoder):
    """A ResNet up to its last stage: a 224 px picture gives 7x7x2048 (He et al. 2016)."""

    channels = 2048
    stride = 32
    blocks = (3, 4, 6, 3)

    def __init__(self) -> None:
        network = resnet.ResNet(Bottleneck, list(self.blocks))
        stages = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
        trunk = nn.Sequential()
        for name in stages:
            trunk.add_module(name, getattr(network, name))
        super().__init__(_without_overwriting(trunk))

    def load_torchvision(self, weights: dict[str, Tensor]) -> None:
        """Load a state dict of torchvision's whole ResNet; the classifier's part of it is left aside."""
        self.trunk.load_state_dict({k: v for k, v in weights.items() if not k.startswith("fc.")})


class ResNet50Encoder(ResNetEncoder):
    """ResNet-50."""


class ResNet101Encoder(ResNetEncoder):
    """ResNet-101."""

    blocks = (3, 4, 23, 3)


def read_local_weights(path: Path) -> dict[str, Tensor]:
    """Read a torchvision state dict from a ``.pth`` or ``.safetensors`` file. Nothing in it is executed.

    Raises:
        ModelError: The file is missing or is no state dict.
    """
    if not path.is_file():
        raise ModelError(
            f"No weights at '{path}'. Give --encoder-weights the file that torchvision publishes for the encoder."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"'{path}' cannot be read as weights ({type(error).__name__}). Expected a state dict saved by torch.save, or a "
            ".safetensors file."
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ModelError(
            f"'{path}' holds no state dict. Expected a mapping of parameter names to tensors, as torchvision publishes."
        )
    return loaded


def load_imagenet_weights(encoder: Encoder, name: str, path: Path | None) -> str:
    """Fill an encoder with ImageNet weights from a local file, torchvision's cache or the internet.

    Args:
        encoder: The encoder to fill.
        name: Its name, a key of `WEIGHTS`.
        path: A local file, or None to let torchvision find or download them.

    Returns:
        Where the weights came from, for the lineage.

    Raises:
        DependencyError: They are not at hand and cannot be downloaded.
        ModelError: The file does not fit the encoder.
    """
    assert isinstance(encoder, VGG16Encoder | ResNetEncoder)
    if path is not None:
        weights, origin = read_local_weights(path), str(path)
    else:
        weights, origin = _torchvision_weights(name), str(WEIGHTS[name])
    try:
        encoder.load_torchvision(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ModelError(
            f"The weights from '{origin}' do not fit {name}: {first} Use the file of the same architecture."
        ) from error
    return origin


def _torchvision_weights(name: str) -> dict[str, Tensor]:
    entry = WEIGHTS[name]
    try:
        return dict(entry.get_state_dict(progress=False, check_hash=True))
    except Exception as error:
        raise DependencyError(
            f"The ImageNet weights of {name} are not on this machine and cannot be downloaded ({type(error).__name__}). Download\n"
            f"  {entry.url}\n"
            f"where there is internet, copy the file here and pass --encoder-weights FILE (or put it into"
            f" {torch.hub.get_dir()}/checkpoints)."
        ) from error
