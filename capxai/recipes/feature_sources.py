"""What computes features: an encoder (a grid) or a detector (regions), with its weights and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from capxai.data.feature_format import FeatureDescription
from capxai.data.feature_store import FeatureStore
from capxai.data.picture_blocks import Prepare
from capxai.data.preprocessing import Preprocessing
from capxai.errors import ConfigError, ModelError
from capxai.models.encoders import build_encoder, load_pretrained
from capxai.models.encoders.base import Encoder
from capxai.models.encoders.imagenet import read_local_weights
from capxai.models.folder import load
from capxai.models.regions import RegionExtractor, build_region_extractor
from capxai.models.regions.extractor import RegionSettings
from capxai.types import ImageArray, JsonObject

COMPACT, REGIONS, RANDOM = "compact", "regions", "random"
IMAGE_SIZE = 224
"""Side of the pictures for the encoders of torchvision, in pixels, where none is given."""

Precision = Literal["float32", "bfloat16", "float16"]
_OWN_PREFIX = "trunk."


@dataclass(frozen=True)
class SourceSettings:
    """Which features to compute, and with which weights.

    Attributes:
        encoder: Name of an encoder, or "regions"; None for that of ``model``.
        weights: A file, "random", or None for the encoder's own weights.
        model: Model folder whose encoder to use; None with ``encoder`` "compact" or None takes the bundled model.
        image_size: Side of the pictures in pixels, or the short side for regions; None for what is usual.
        precision: Of the network.
        seed: Of random weights.
    """

    encoder: str | None = None
    weights: str | None = None
    model: Path | None = None
    image_size: int | None = None
    precision: Precision = "float32"
    seed: int = 0


class FeatureSource(Protocol):
    """Computes the features of blocks of pictures.

    Attributes:
        origin: Where the weights came from, in words.
        weights: The encoder's weights as a safetensors file, or None where they are not kept.
        prepare: What a worker does to a decoded picture; does not hold the network, because it may be sent to another process.
    """

    origin: str
    weights: bytes | None
    prepare: Prepare

    def describe(self, dtype: Literal["float16", "float32"], corpus: str, details: JsonObject) -> FeatureDescription:
        """Describe the features."""

    def extract(self, images: Tensor | Sequence[ImageArray], dtype: torch.dtype) -> tuple[Tensor, NDArray[Any] | None]:
        """Compute (B, K, C) features, on the device and possibly not yet done, and (B, K, 4) boxes or None."""


class GridSource:
    """Features of an encoder: the cells of its feature map, row by row. Also has the encoder itself, in evaluation mode.

    Args:
        name: Name of the encoder.
        encoder: The encoder.
        preprocessing: How a picture becomes its input.
        origin: Where its weights came from.
        device: Where to compute.
        precision: Of the network; "float32" on CUDA lets convolutions round to TF32, as torch does by default.
    """

    def __init__(
        self,
        name: str,
        encoder: Encoder,
        preprocessing: Preprocessing,
        origin: str,
        device: torch.device,
        *,
        precision: Precision = "float32",
    ) -> None:
        self.name = name
        self.origin = origin
        self.preprocessing = preprocessing
        self.weights: bytes | None = encoder_bytes(encoder)
        self.prepare: Prepare = preprocessing.resize
        self.precision = precision
        self._device = device
        self.encoder = encoder.eval().to(device)
        if device.type == "cuda":
            self.encoder.to(memory_format=torch.channels_last)
        side = preprocessing.image_size
        if side < encoder.stride:
            raise ConfigError(
                f"A picture of {side} pixels leaves the encoder {name} no cell. Expected at least {encoder.stride} pixels. Raise "
                "image_size."
            )
        with torch.inference_mode():
            _, self.channels, rows, columns = self.encoder(torch.zeros(1, 3, side, side, device=device)).shape
        self.grid = (rows, columns)

    def describe(self, dtype: Literal["float16", "float32"], corpus: str, details: JsonObject) -> FeatureDescription:
        """Describe the features."""
        assert self.weights is not None
        rows, columns = self.grid
        return FeatureDescription(
            kind="grid",
            encoder=self.name,
            weights_sha256=hashlib.sha256(self.weights).hexdigest(),
            preprocessing=self.preprocessing.to_json(),
            regions=rows * columns,
            channels=self.channels,
            dtype=dtype,
            grid=self.grid,
            corpus=corpus,
            details={"precision": self.precision, **details},
        )

    def extract(self, images: Tensor | Sequence[ImageArray], dtype: torch.dtype) -> tuple[Tensor, NDArray[Any] | None]:
        """Compute the features of (B, S, S, 3) uint8 pictures: (B, K, C) of ``dtype`` on the device, and no boxes."""
        assert isinstance(images, Tensor)
        pixels = self.preprocessing.normalize(images.to(self._device, non_blocking=True))
        reduced = self.precision != "float32"
        with torch.inference_mode(), torch.autocast(self._device.type, getattr(torch, self.precision), enabled=reduced):
            grid: Tensor = self.encoder(pixels)
        return grid.flatten(2).transpose(1, 2).to(dtype).contiguous(), None


class RegionSource:
    """Features of the regions that a detector finds."""

    def __init__(self, extractor: RegionExtractor) -> None:
        self.origin = extractor.origin
        self.weights: bytes | None = None
        self.prepare: Prepare = _as_it_is
        self._extractor = extractor

    def describe(self, dtype: Literal["float16", "float32"], corpus: str, details: JsonObject) -> FeatureDescription:
        """Describe the features."""
        own = self._extractor
        return FeatureDescription(
            kind="region",
            encoder=own.name,
            weights_sha256=own.weights_sha256,
            preprocessing=None,
            regions=own.regions,
            channels=own.channels,
            dtype=dtype,
            grid=None,
            corpus=corpus,
            details={**own.description, **details},
        )

    def extract(self, images: Tensor | Sequence[ImageArray], dtype: torch.dtype) -> tuple[Tensor, NDArray[Any] | None]:
        """Compute (B, K, C) features of ``dtype`` and (B, K, 4) boxes of pictures of any sizes."""
        features, boxes = self._extractor.extract([np.asarray(image) for image in images])
        return torch.from_numpy(features).to(dtype), boxes


def _as_it_is(image: ImageArray) -> ImageArray:
    return image


def build_source(settings: SourceSettings, device: torch.device) -> FeatureSource:
    """Build what computes features.

    Raises:
        ConfigError: The settings contradict each other.
        ModelError: Unknown encoder, or weights that cannot be read or do not fit.
        DependencyError: Published weights are not at hand.
    """
    if settings.encoder == REGIONS:
        return _build_regions(settings, device)
    name, encoder, preprocessing, origin = _encoder(settings)
    if settings.image_size is not None:
        preprocessing = Preprocessing(settings.image_size, preprocessing.mean, preprocessing.std)
    return GridSource(name, encoder, preprocessing, origin, device, precision=settings.precision)


def encoder_bytes(encoder: Encoder) -> bytes:
    """Return the weights of an encoder as a safetensors file, the same bytes for the same weights."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    return safetensors.torch.save(weights)


def load_stored_encoder(store: FeatureStore) -> Encoder | None:
    """Load the encoder that made the features, from the file beside them.

    Returns:
        The encoder in evaluation mode; None where the file is not there, or for features of regions.

    Raises:
        ModelError: The file is not the one that made the features, or cannot be read.
    """
    path, description = store.weights_path, store.description
    if description.kind != "grid" or not path.is_file():
        return None
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != description.weights_sha256:
        raise ModelError(
            f"'{path}' is not the encoder that made '{store.path}': its SHA-256 is {found}, expected {description.weights_sha256}. Put "
            "the file back that was extracted with the features, or remove it to train without an encoder."
        )
    encoder = build_encoder(description.encoder)
    assert encoder is not None
    _load_own(encoder, read_local_weights(path), path)
    return encoder.eval()


def _encoder(settings: SourceSettings) -> tuple[str, Encoder, Preprocessing, str]:
    """Return the name, encoder, preprocessing and origin of the weights."""
    own = settings.encoder in (None, COMPACT) and settings.weights is None
    if settings.model is not None or own:
        return _encoder_of_model(settings)
    name = settings.encoder or COMPACT
    preprocessing = load().preprocessing if name == COMPACT else Preprocessing(IMAGE_SIZE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        encoder = build_encoder(name)
    if encoder is None:
        raise ConfigError(
            f"The encoder '{name}' is none to extract features with. Choose compact, vgg16, resnet50, resnet101 or regions."
        )
    if settings.weights == RANDOM:
        return name, encoder, preprocessing, f"random, seed {settings.seed}"
    path = None if settings.weights is None else Path(settings.weights)
    weights = read_local_weights(path) if path is not None else {}
    if path is not None and (name == COMPACT or all(key.startswith(_OWN_PREFIX) for key in weights)):
        _load_own(encoder, weights, path)
        return name, encoder, preprocessing, str(path)
    return name, encoder, preprocessing, load_pretrained(encoder, name, path)


def _encoder_of_model(settings: SourceSettings) -> tuple[str, Encoder, Preprocessing, str]:
    model = load(settings.model)
    where = "bundled model" if settings.model is None else f"model '{settings.model}'"
    name = model.specification.encoder
    if model.encoder is None or settings.encoder not in (None, name) or settings.weights is not None:
        wanted = f"encoder '{settings.encoder or name}'" + (
            f" with weights '{settings.weights}'" if settings.weights else ""
        )
        raise ConfigError(
            f"The {where} has the encoder '{name}', and {wanted} was asked for. Expected one that sees pictures, with its own weights. "
            "Give --model alone, or --encoder and --encoder-weights without --model."
        )
    return name, model.encoder, model.preprocessing, where


def _build_regions(settings: SourceSettings, device: torch.device) -> RegionSource:
    if settings.model is not None or settings.precision != "float32":
        raise ConfigError(
            f"Features of regions were asked for with model {settings.model} and precision {settings.precision}. Expected no model, and "
            "float32. Leave --model and --precision out."
        )
    usual = RegionSettings()
    short = settings.image_size or usual.short_side
    sizes = RegionSettings(short_side=short, long_side=round(usual.long_side * short / usual.short_side))
    weights = Path(settings.weights) if settings.weights not in (None, RANDOM) else settings.weights
    return RegionSource(build_region_extractor(weights, settings.seed, device, sizes))  # type: ignore[arg-type]


def _load_own(encoder: Encoder, weights: dict[str, Tensor], path: Path) -> None:
    try:
        encoder.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ModelError(
            f"The weights in '{path}' do not fit the encoder: {str(error).splitlines()[-1].strip()} Expected those that "
            "'capxai extract-features' writes. Use the file of the same encoder."
        ) from error
