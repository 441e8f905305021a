"""Builds the captioner of a training, and fills its encoder with weights that are not trained here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from capxai.data.feature_store import FeatureStore
from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.errors import ConfigError, CorpusError, ModelError
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.encoders import ENCODERS, STORED_FEATURES, build_encoder, load_pretrained
from capxai.models.encoders.base import Encoder
from capxai.models.specification import Specification
from capxai.recipes.train import TrainConfig
from capxai.recipes.training_choices import Choices
from capxai.types import Reporter

COMPACT = "compact"
RANDOM = Path("random")
IMAGE_SIZES = {COMPACT: 112}
OTHER_IMAGE_SIZE = 224


@dataclass(frozen=True)
class Eye:
    """What a model sees with.

    Attributes:
        encoder: Its name, "features" where there is none.
        preprocessing: What the encoder expects.
        channels: C.
        regions: K.
        trained_here: Whether a stage of this training teaches it what is where.
    """

    encoder: str
    preprocessing: Preprocessing
    channels: int
    regions: int
    trained_here: bool


def choose_eye(config: TrainConfig, store: FeatureStore | None, reporter: Reporter) -> Eye:
    """Find out what the model is to see with: the encoder of the stored features, or the one that the settings name.

    Raises:
        ConfigError: The features are of another encoder than the settings name.
        ModelError: There is no such encoder.
    """
    if store is not None:
        return _eye_of_store(config, store, reporter)
    preprocessing = Preprocessing(IMAGE_SIZES.get(config.encoder, OTHER_IMAGE_SIZE))
    encoder = build_encoder(config.encoder) if config.encoder != STORED_FEATURES else None
    if encoder is None:
        raise ConfigError(
            f"The encoder '{config.encoder}' sees no pictures. Expected a feature file with it (--features F), or one of: "
            f"{', '.join(ENCODERS)}."
        )
    regions = (preprocessing.image_size // encoder.stride) ** 2
    trained = config.encoder == COMPACT and config.encoder_weights is None and config.encoder_epochs > 0
    return Eye(config.encoder, preprocessing, encoder.channels, regions, trained)


def _eye_of_store(config: TrainConfig, store: FeatureStore, reporter: Reporter) -> Eye:
    description = store.description
    name = description.encoder
    if config.encoder not in (COMPACT, name):
        raise ConfigError(
            f"'{config.features}' holds features of the encoder '{name}', and the settings name '{config.encoder}'. Expected the same. "
            "Leave --encoder out, or extract features with it."
        )
    if config.encoder_weights is not None:
        raise ConfigError(
            f"Encoder weights '{config.encoder_weights}' came with the features '{config.features}'. Expected one of them: features bring "
            "the weights that they were made with. Leave --encoder-weights out, or extract features with these weights."
        )
    whole = name in ENCODERS and description.preprocessing is not None and store.weights_path.is_file()
    if not whole:
        reporter.warn(
            f"The encoder of '{config.features}' is not beside it (expected '{store.weights_path.name}'), so the model will work on "
            "stored features and cannot see pictures."
        )
    preprocessing = (
        Preprocessing(OTHER_IMAGE_SIZE)
        if description.preprocessing is None
        else Preprocessing.from_json(description.preprocessing)
    )
    encoder = name if whole else STORED_FEATURES
    return Eye(encoder, preprocessing, description.channels, description.regions, trained_here=False)


def build_model(config: TrainConfig, choices: Choices, eye: Eye, vocabulary: Vocabulary) -> Captioner:
    """Build the captioner with fresh weights. The encoder is built first: it is the same for every decoder."""
    specification = Specification(
        encoder=eye.encoder,
        decoder=config.decoder,
        channels=eye.channels,
        regions=eye.regions,
        hidden_size=choices.hidden_size,
        embedding_size=choices.embedding_size,
        vocabulary_size=len(vocabulary),
        heads=config.heads if config.decoder == "mh-fc" else 1,
    )
    torch.manual_seed(config.seed)
    model = build_captioner(specification, vocabulary, eye.preprocessing)
    if model.encoder is not None:
        model.encoder.to(memory_format=torch.channels_last)  # faster convolutions on CPUs
    if config.dropout is not None:
        for module in model.decoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = config.dropout
    return model


def fill_encoder(model: Captioner, config: TrainConfig, store: FeatureStore | None, reporter: Reporter) -> None:
    """Fill an encoder that is not trained here with its weights, and say from where.

    Raises:
        ModelError: The weights cannot be used.
        DependencyError: They are not at hand.
    """
    if model.encoder is None:
        return
    name = model.specification.encoder
    if store is not None:
        origin = _fill_from_store(model.encoder, store)
    elif config.encoder_weights == RANDOM:
        origin = f"random, drawn from the seed {config.seed}"
    elif name != COMPACT:
        origin = load_pretrained(model.encoder, name, config.encoder_weights)
    elif config.encoder_weights is not None:
        origin = _fill_from_file(model.encoder, config.encoder_weights)
    else:
        return
    reporter.note(f"Encoder weights: {origin}.")


def _fill_from_store(encoder: Encoder, store: FeatureStore) -> str:
    path, expected = store.weights_path, store.description.weights_sha256
    if expected and (found := hashlib.sha256(path.read_bytes()).hexdigest()) != expected:
        raise ModelError(
            f"'{path}' is not the encoder that '{store.path}' was made with: its SHA-256 is {found}, expected {expected}. Put the file "
            "back that extract-features wrote, or extract the features again."
        )
    return _fill_from_file(encoder, path)


def _fill_from_file(encoder: Encoder, path: Path) -> str:
    from capxai.models.encoders.imagenet import read_local_weights  # torchvision takes seconds

    weights = read_local_weights(path)
    try:
        encoder.load_state_dict({name.removeprefix("encoder."): value for name, value in weights.items()})
    except RuntimeError as error:
        raise ModelError(
            f"The weights in '{path}' do not fit the encoder ({str(error).splitlines()[-1].strip()}). Expected those of the same "
            "architecture, as 'capxai extract-features' stores them."
        ) from error
    return str(path)


def refuse_without_objects(has_objects: bool, folder: Path) -> None:
    """Refuse to teach the compact encoder without objects.

    Raises:
        CorpusError: There are none.
    """
    if not has_objects:
        raise CorpusError(
            f"The corpus '{folder}' has no objects. Expected boxes or masks, from which the compact encoder learns. Add the instances, "
            "take a pretrained encoder (--encoder vgg16) or stored features (--features F), or one that knows nothing "
            "(--encoder-weights random)."
        )
