"""Measures what a model's captions name that is there, and what they hallucinate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capxai.errors import ConfigError
from capxai.types import SILENT, JsonObject, Reporter

if TYPE_CHECKING:
    from capxai.data.corpus import Split
    from capxai.evaluate.objects import ObjectReport
    from capxai.models.captioner import Captioner

SCHEMA = 1
EVALUATION_FILE = "eval.json"


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of ``capxai eval``.

    Attributes:
        model: Model folder; None takes the newest run under ``runs/``, or else the bundled model.
        corpus: Corpus folder; None takes the built-in corpus ``scenes``.
        size: Training pictures of the built-in corpus; the other splits are parts of that.
        corpus_seed: Seed of the built-in corpus.
        split: The split to caption.
        chair: Measure objects: CHAIRi, CHAIRs, precision, recall and F1.
        beam: Captions kept while searching; 1 is greedy.
        maximum_length: Longest caption, in words, ``<end>`` counted.
        batch_size: Pictures captioned at a time.
        limit: Only the first so many pictures of the split; None for all.
        seed: Seed of the bootstrap.
        device: Name of the device.
        out: Folder for ``eval.json``; None writes nothing.
    """

    model: Path | None = None
    corpus: Path | None = None
    size: int = 5000
    corpus_seed: int = 0
    split: str = "test"
    chair: bool = True
    beam: int = 3
    maximum_length: int = 20
    batch_size: int = 64
    limit: int | None = None
    seed: int = 0
    device: str = "auto"
    out: Path | None = None

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        problems = [
            f"{name} is {getattr(self, name)}. Expected 1 or more."
            for name in ("beam", "maximum_length", "batch_size")
            if getattr(self, name) < 1
        ]
        if self.limit is not None and self.limit < 1:
            problems.append(f"limit is {self.limit}. Expected 1 or more, or none.")
        if not self.chair:
            problems.append("No metric was chosen. Expected at least one. Choose --chair.")
        if problems:
            raise ConfigError("These settings of the evaluation cannot be used:\n  " + "\n  ".join(problems))


@dataclass(frozen=True)
class EvaluateReport:
    """What was measured.

    Attributes:
        model: The model folder, or "bundled model".
        corpus: Name of the corpus.
        split: The split.
        objects: Figures, categories and pictures.
        provenance: Settings, versions and a hash of the picture list.
    """

    model: str
    corpus: str
    split: str
    objects: ObjectReport
    provenance: JsonObject

    def to_json(self) -> JsonObject:
        """Return the report as JSON: ``overall``, ``categories``, ``images`` and ``provenance``."""
        head = {"schema": SCHEMA, "model": self.model, "corpus": self.corpus, "split": self.split}
        return {**head, **self.objects.to_json(), "provenance": self.provenance}


def run(config: EvaluateConfig, reporter: Reporter = SILENT) -> EvaluateReport:
    """Caption a split of a corpus and measure the objects that the captions name.

    Raises:
        ModelError: The model cannot be loaded, or cannot see pictures.
        CorpusError: The corpus cannot be read, the split is unknown or has no objects to compare with.
        ImageError: A picture cannot be read.
        DependencyError: The device is not there.
    """
    from capxai.evaluate.lexicon import coco_lexicon
    from capxai.files import write_json_atomically
    from capxai.recipes.builtin_corpus import open_corpus
    from capxai.recipes.object_scores import score_captions

    name, model = _load(config, reporter)
    corpus = open_corpus(config.corpus, config.size, config.corpus_seed, reporter)
    split = _checked(corpus.split(config.split), config.limit)
    captions = caption_split(model, split, config, reporter)
    report = EvaluateReport(
        name,
        corpus.name,
        split.name,
        score_captions(captions, split, coco_lexicon(), config.seed),
        _provenance(config, split),
    )
    if config.out is not None:
        write_json_atomically(config.out / EVALUATION_FILE, report.to_json())
    return report


def _load(config: EvaluateConfig, reporter: Reporter) -> tuple[str, Captioner]:
    from capxai.models.folder import load, newest_run
    from capxai.recipes.device import choose_device

    device = choose_device(config.device)
    folder = config.model or newest_run()
    name = "bundled model" if folder is None else str(folder)
    reporter.note(f"Model: {name}. Device: {device}.")
    return name, load(folder, device)


def _checked(split: Split, limit: int | None) -> Split:
    from dataclasses import replace

    from capxai.errors import CorpusError

    if not split.has_objects:
        raise CorpusError(
            f"The split '{split.name}' has no objects to compare captions with. Expected an instance file. Choose a corpus "
            "that has one."
        )
    return split if limit is None else replace(split, pictures=split.pictures[:limit])


def caption_split(model: Captioner, split: Split, config: EvaluateConfig, reporter: Reporter) -> list[str]:
    """Caption every picture of a split, in the order of its pictures.

    Raises:
        ModelError: The model has no encoder.
        ImageError: A picture cannot be read.
    """
    import numpy as np
    import torch

    from capxai.data.images import read_image
    from capxai.models.decoding import DecodingOptions, decode

    options = DecodingOptions(beam=config.beam, maximum_length=config.maximum_length)
    captions: list[str] = []
    with reporter.track(f"Captioning {split.name} pictures", len(split.pictures)) as advance, torch.inference_mode():
        for first in range(0, len(split.pictures), config.batch_size):
            batch = split.pictures[first : first + config.batch_size]
            pictures = np.stack([model.preprocessing.resize(read_image(picture.path)) for picture in batch])
            images = model.preprocessing.normalize(torch.from_numpy(pictures).to(model.device))
            captions += [
                model.vocabulary.decode(found.token_ids) for found in decode(model, model.encode(images), options)
            ]
            advance(len(batch))
    return captions


def _provenance(config: EvaluateConfig, split: Split) -> JsonObject:
    from capxai.config import run_record

    return run_record(config, verb="eval", pictures=len(split.pictures), image_list_sha256=_hash_of_ids(split))


def _hash_of_ids(split: Split) -> str:
    import hashlib

    ids: Sequence[str] = [str(picture.id) for picture in split.pictures]
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
