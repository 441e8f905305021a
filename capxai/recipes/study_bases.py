"""The base models of a study, and the features that all their runs read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from capxai.data.corpus import MANIFEST, Corpus
from capxai.errors import ConfigError, ModelError
from capxai.models.captioner import Captioner
from capxai.models.folder import WEIGHTS_FILE, bundled_folder, load
from capxai.recipes.extract_features import ExtractConfig
from capxai.recipes.extract_features import run as extract
from capxai.recipes.feature_sources import encoder_bytes
from capxai.recipes.study import StudyConfig
from capxai.recipes.study_plan import Base, claimed, name_bases
from capxai.recipes.training_data import TRAIN, VALIDATION
from capxai.types import Reporter


def read_bases(config: StudyConfig, corpus: Corpus, device: torch.device, reporter: Reporter) -> list[Base]:
    """Check all base models, and compute the features of each different encoder once: fine-tuning leaves it as it is.

    Raises:
        ConfigError: The models have different decoders.
        ModelError: A model cannot be loaded, or sees no pictures and there is no feature file.
        CorpusError: The features cannot be written.
    """
    folders: list[Path | None] = list(config.models) or [None]
    names = name_bases(folders)
    models = [load(folder) for folder in folders]
    kinds = sorted({model.specification.decoder for model in models})
    if len(kinds) > 1:
        raise ConfigError(
            f"The base models have the decoders {', '.join(kinds)}. Expected one: a mean over different architectures says nothing of any "
            "of them. Make a study of each, with an --out of its own."
        )
    return [
        Base(name, folder, _weights_hash(folder), _features(config, (folder, model), corpus, (device, reporter)))
        for name, folder, model in zip(names, folders, models, strict=True)
    ]


def _weights_hash(folder: Path | None) -> str:
    return hashlib.sha256(((folder or bundled_folder()) / WEIGHTS_FILE).read_bytes()).hexdigest()


def _features(
    config: StudyConfig,
    base: tuple[Path | None, Captioner],
    corpus: Corpus,
    surroundings: tuple[torch.device, Reporter],
) -> Path:
    """Return the feature file for a base model, and write it where nobody has yet."""
    (folder, model), (device, reporter) = base, surroundings
    if config.features is not None:
        return config.features
    path = config.out / "features" / f"{_eye_hash(model, folder, corpus, config.splits)[:16]}.h5"
    with claimed(path.with_suffix(".lock"), wait=True):
        if not path.exists():
            splits = [name for name in (TRAIN, VALIDATION) if name in corpus.splits]
            extract(
                ExtractConfig(
                    corpus=corpus.folder,
                    model=folder,
                    split=tuple(dict.fromkeys([*splits, *config.splits])),
                    out=path,
                    threads=config.threads,
                    device=str(device),
                ),
                reporter,
            )
    return path


def _eye_hash(model: Captioner, folder: Path | None, corpus: Corpus, splits: Sequence[str]) -> str:
    """Return what the features depend on as one hash."""
    if model.encoder is None:
        raise ModelError(
            f"The base model '{folder}' has no encoder: it works on stored features. Expected its feature file. Give it with --features."
        )
    manifest = (corpus.folder / MANIFEST).read_bytes()
    settings = json.dumps([model.preprocessing.to_json(), list(splits)], sort_keys=True).encode()
    return hashlib.sha256(b"\0".join([encoder_bytes(model.encoder), manifest, settings])).hexdigest()
