"""Captions of a split by a model, from pictures or stored features, shared among the processes of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from capxai.data.annotations import Picture
from capxai.data.corpus import Split
from capxai.data.feature_store import FeatureStore
from capxai.data.images import read_image
from capxai.errors import CorpusError
from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions, decode
from capxai.models.state import Memory
from capxai.train.processes import Processes
from capxai.types import Reporter

Remember = Callable[[Sequence[Picture]], Memory]
"""Prepares a batch of pictures for decoding."""


@dataclass(frozen=True)
class Captioning:
    """How pictures are captioned.

    Attributes:
        options: How to search.
        batch_size: Pictures at a time.
        features: Features file, or None to look at the pictures.
    """

    options: DecodingOptions
    batch_size: int = 64
    features: Path | None = None


def caption_split(
    model: Captioner, split: Split, how: Captioning, group: Processes, reporter: Reporter
) -> dict[int, str]:
    """Caption every picture of a split; each process of the group takes every so-manieth picture.

    Returns:
        The captions by image id in the order of the split's pictures, the same in every process.

    Raises:
        ModelError: The model has no encoder and there are no features.
        CorpusError: The features are not those of these pictures, or do not fit the model.
        ImageError: A picture cannot be read.
    """
    remember = _from_pictures(model) if how.features is None else _from_features(model, how.features)
    mine = split.pictures[group.rank :: group.world]
    captions: dict[int, str] = {}
    with reporter.track(f"Captioning {split.name} pictures", len(mine)) as advance, torch.inference_mode():
        for first in range(0, len(mine), how.batch_size):
            batch = mine[first : first + how.batch_size]
            found = decode(model, remember(batch), how.options)
            for picture, one in zip(batch, found, strict=True):
                captions[picture.id] = model.vocabulary.decode(one.token_ids)
            advance(len(batch))
    together = {number: text for share in group.gather(captions) for number, text in share.items()}
    return {picture.id: together[picture.id] for picture in split.pictures}


def _from_pictures(model: Captioner) -> Remember:
    def remember(batch: Sequence[Picture]) -> Memory:
        pictures = np.stack([model.preprocessing.resize(read_image(picture.path)) for picture in batch])
        return model.encode(model.preprocessing.normalize(torch.from_numpy(pictures).to(model.device)))

    return remember


def _from_features(model: Captioner, path: Path) -> Remember:
    store = FeatureStore.open(path)
    _refuse_foreign(model, store)

    def remember(batch: Sequence[Picture]) -> Memory:
        rows = store.rows_of([picture.id for picture in batch])
        features: Tensor = torch.from_numpy(store.read(rows)).to(model.device, model.dtype)
        return model.remember(features)

    return remember


def _refuse_foreign(model: Captioner, store: FeatureStore) -> None:
    """See that features are such as the model was trained on; its lineage describes them, if it was trained on stored ones."""
    found, wanted = store.description, model.specification
    problems = []
    if (found.regions, found.channels) != (wanted.regions, wanted.channels):
        problems.append(
            f"{found.regions} regions of {found.channels} channels, where the model has {wanted.regions} of {wanted.channels}"
        )
    trained = model.lineage.get("features")
    if isinstance(trained, dict):
        for name in ("encoder", "weights_sha256"):
            one, other = getattr(found, name), trained.get(name)
            if one and other and one != other:
                problems.append(f"{name} '{one}', where the model was trained with '{other}'")
    if problems:
        raise CorpusError(
            f"'{store.path}' holds features with {'; '.join(problems)}. Expected features as in the model's training. Extract them for "
            "this split with the same encoder."
        )
