"""What a training reads: splits with their references, and their pictures or features as sources."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from capxai.data.corpus import MANIFEST, Corpus, Split
from capxai.data.encoded import EncodedCaptions
from capxai.data.feature_store import FeatureStore
from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.errors import CorpusError
from capxai.recipes.corpus_arrays import read_picture_rows, read_pictures
from capxai.train.examples import References, encode_references
from capxai.train.sources import FeatureSource, PictureSource, Rows
from capxai.types import JsonObject, Reporter

TRAIN, VALIDATION = "train", "val"
MOST_WORKERS = 16


@dataclass(frozen=True)
class Examples:
    """A split with its references as ids.

    Attributes:
        split: Its annotations.
        references: In the order of its pictures.
    """

    split: Split
    references: References

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.split)

    @cached_property
    def image_ids(self) -> list[int]:
        """The ids of its pictures, in their order."""
        return [picture.id for picture in self.split.pictures]


@dataclass(frozen=True)
class PictureFiles:
    """Reads rows of a split from its files; picklable, for worker processes."""

    paths: tuple[Path, ...]
    preprocessing: Preprocessing

    def __call__(self, rows: Tensor) -> Tensor:
        """Return (B, S, S, 3) uint8."""
        return read_picture_rows([self.paths[row] for row in rows.tolist()], self.preprocessing)


@dataclass(frozen=True)
class StoredRows:
    """Reads rows of a split from a feature store; picklable, for worker processes.

    Attributes:
        store: The store.
        places: (N,) int64, the store's row of each picture of the split.
    """

    store: FeatureStore
    places: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """Return (B, K, C) in the stored type."""
        return torch.from_numpy(self.store.read(self.places[rows].numpy()))


def read_vocabulary(corpus: Corpus, minimum_count: int, reporter: Reporter) -> Vocabulary:
    """Return the corpus's own vocabulary, or build one from its training captions."""
    own = corpus.vocabulary()
    if own is not None:
        reporter.note(f"Vocabulary: {len(own):,} words, as prepared with the corpus.")
        return own
    captions = corpus.split(TRAIN).captions
    return Vocabulary.build((text for texts in captions.values() for text in texts), minimum_count)


def read_examples(corpus: Corpus, name: str, vocabulary: Vocabulary) -> Examples:
    """Read a split that captions can be learned from.

    Raises:
        CorpusError: Something is wrong with it, it has no pictures, or a picture has no caption.
    """
    split = corpus.split(name)
    bare = [picture.id for picture in split.pictures if not split.captions[picture.id]]
    if bare or not split.pictures:
        found = f"{len(bare)} pictures of the split '{name}' have no caption (ids {bare[:3]})" if bare else ""
        raise CorpusError(
            f"{found or f'The split {name!r} has no pictures'}. Expected pictures with one caption or more each. Leave the others out."
        )
    encoded = corpus.encoded(name) if corpus.vocabulary() == vocabulary else None
    ids = [picture.id for picture in split.pictures]
    if encoded is not None and encoded.image_ids.tolist() == ids:
        return Examples(split, references_of(encoded, vocabulary))
    return Examples(split, encode_references([split.captions[number] for number in ids], vocabulary))


def references_of(encoded: EncodedCaptions, vocabulary: Vocabulary) -> References:
    """Take encoded captions over as they are."""
    arrays = (encoded.first, encoded.offsets, encoded.tokens)
    first, offsets, words = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    return References(first, offsets, words, vocabulary.end, vocabulary.pad)


def reference_ids(references: References) -> list[list[list[int]]]:
    """Return the ids of every reference of every picture, without ``<end>``: what the reward compares with."""
    words, offsets, first = references.words.tolist(), references.offsets.tolist(), references.first.tolist()
    captions = [words[begin:end] for begin, end in pairwise(offsets)]
    return [captions[begin:end] for begin, end in pairwise(first)]


def picture_source(
    examples: Examples, preprocessing: Preprocessing, memory: int, workers: int, reporter: Reporter
) -> PictureSource:
    """Keep the pictures of a split in memory where they fit, or decode them whenever they are needed.

    Args:
        examples: The split.
        preprocessing: What the encoder expects.
        memory: Bytes that the pictures may take.
        workers: Processes that decode; 0 for a thread.
        reporter: Where progress is shown.
    """
    size = preprocessing.image_size
    if len(examples) * size * size * 3 <= memory:
        return PictureSource(Rows(read_pictures(examples.split, preprocessing, workers, reporter)))
    files = PictureFiles(tuple(picture.path for picture in examples.split.pictures), preprocessing)
    return PictureSource(files, workers)


def stored_source(examples: Examples, store: FeatureStore) -> FeatureSource:
    """Find the features of a split in a store.

    Raises:
        CorpusError: Some of its pictures have none.
    """
    return FeatureSource(StoredRows(store, torch.from_numpy(store.rows_of(examples.image_ids))))


def choose_workers(wanted: int | None) -> int:
    """Return how many processes decode pictures: every core but one, if nothing is said."""
    return min(MOST_WORKERS, (os.cpu_count() or 1) - 1) if wanted is None else wanted


def fingerprint(corpus: Corpus, vocabulary: Vocabulary, store: FeatureStore | None) -> JsonObject:
    """Return what tells one set of data from another: a resumed run must see the same."""
    found: JsonObject = {
        "corpus": hashlib.sha256((corpus.folder / MANIFEST).read_bytes()).hexdigest(),
        "vocabulary": hashlib.sha256("\n".join(vocabulary.words).encode()).hexdigest(),
    }
    if store is not None:
        description = store.description
        found["features"] = [description.encoder, description.weights_sha256, description.dtype, len(store)]
    return found


def changed(one: JsonObject, other: JsonObject) -> Sequence[str]:
    """Name what differs between two fingerprints."""
    return [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
