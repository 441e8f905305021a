"""Encoders by name."""

from __future__ import annotations

from pathlib import Path

from capxai.errors import ModelError, unknown_choice
from capxai.models.encoders.base import Encoder
from capxai.models.encoders.compact import CompactEncoder

STORED_FEATURES = "features"
"""The name of the encoder that is none: the model reads stored features."""

ENCODERS = ("compact", "vgg16", "resnet50", "resnet101")
"""Names that `build_encoder` knows. torchvision is imported only for those that come from it."""


def build_encoder(name: str) -> Encoder | None:
    """Build an encoder with fresh weights; None for stored features.

    Raises:
        ModelError: Unknown name.
    """
    if name == STORED_FEATURES:
        return None
    if name not in ENCODERS:
        raise ModelError(unknown_choice("encoder", name, (*ENCODERS, STORED_FEATURES)))
    if name == "compact":
        return CompactEncoder()
    from capxai.models.encoders import imagenet

    return {
        "vgg16": imagenet.VGG16Encoder,
        "resnet50": imagenet.ResNet50Encoder,
        "resnet101": imagenet.ResNet101Encoder,
    }[name]()


def load_pretrained(encoder: Encoder, name: str, path: Path | None) -> str:
    """Fill an encoder with ImageNet weights and return where they came from; see `imagenet.load_imagenet_weights`.

    Raises:
        ModelError: The encoder has no published weights.
        DependencyError: The weights are not at hand.
    """
    from capxai.models.encoders import imagenet

    if name not in imagenet.WEIGHTS:
        raise ModelError(
            f"There are no published weights for the encoder '{name}'. Encoders with weights: {', '.join(imagenet.WEIGHTS)}."
        )
    return imagenet.load_imagenet_weights(encoder, name, path)
