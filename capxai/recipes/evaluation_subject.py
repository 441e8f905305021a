"""Whose captions an evaluation measures, and on which pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capxai.data.corpus import Split
from capxai.recipes.builtin_corpus import open_corpus
from capxai.recipes.evaluation_config import EvaluateConfig
from capxai.recipes.evaluation_given import Choice, captions_to_compare, given_captions
from capxai.recipes.evaluation_truth import AnnotationFiles, read_annotation_files, read_image_list, restricted
from capxai.types import JsonObject, Reporter

if TYPE_CHECKING:
    import torch

    from capxai.models.captioner import Captioner
    from capxai.train.processes import Processes

TRAINING = "train"


@dataclass(frozen=True)
class Ground:
    """The pictures that captions are measured on.

    Attributes:
        corpus: Name of the corpus, or of the annotation files.
        pictures: The split with the pictures that are measured.
        training: The pictures in which frequent words are found; None where nobody asks for them.
        given: Captions from a file, by image id in the order of the pictures, or None.
        others: Captions to compare with, or None.
    """

    corpus: str
    pictures: Split
    training: Split | None = None
    given: Mapping[int, str] | None = None
    others: Mapping[int, str] | None = None


@dataclass(frozen=True)
class Subject:
    """Captions and what they are compared with.

    Attributes:
        name: Whose captions they are.
        ground: The pictures.
        captions: By image id, in the order of the pictures.
        origin: What made the captions: weights and decoding, or a file.
    """

    name: str
    ground: Ground
    captions: Mapping[int, str]
    origin: JsonObject


def read_ground(config: EvaluateConfig, reporter: Reporter) -> Ground:
    """Read all that captions are compared with, and those that are given in files.

    Raises:
        CorpusError: A file cannot be read, or files do not fit each other.
    """
    name, split, training = _split(config, reporter)
    images = None if config.images is None else read_image_list(config.images)
    choice = Choice(images, config.limit, config.partial, config.allow_empty)
    given, others = None, None
    if config.predictions is None:
        pictures = restricted(split, images, config.limit)
    else:
        pictures, given = given_captions(config.predictions, split, choice)
    if config.compare is not None:
        others = captions_to_compare(config.compare, split, pictures, choice)
    return Ground(name, pictures, training, given, others)


def _split(config: EvaluateConfig, reporter: Reporter) -> tuple[str, Split, Split | None]:
    """Return the name of the corpus, the split, and the pictures in which frequent words are found."""
    wanted = config.frequent == "corpus"
    if config.files_given:
        split = read_annotation_files(AnnotationFiles(config.captions, config.instances, config.pictures), reporter)
        return split.name, split, split if wanted else None
    corpus = open_corpus(config.corpus, config.size, config.corpus_seed, reporter)
    split = corpus.split(config.split)
    if not wanted or TRAINING not in corpus.splits or config.split == TRAINING:
        return corpus.name, split, split if wanted else None
    return corpus.name, split, corpus.split(TRAINING)


def given_subject(path: Path, ground: Ground, reporter: Reporter) -> Subject:
    """Measure the captions of a file."""
    assert ground.given is not None
    reporter.note(f"Captions: {path}, {len(ground.given):,} picture{'s'[: len(ground.given) != 1]}.")
    return Subject(str(path), ground, ground.given, {"predictions": str(path)})


def open_model(config: EvaluateConfig, device: torch.device, reporter: Reporter) -> tuple[str, Captioner]:
    """Load the model that is to caption: that which is named, the newest run, or the bundled one.

    Raises:
        ModelError: It cannot be loaded.
    """
    from capxai.models.folder import load, newest_run

    folder = config.model or newest_run()
    name = "bundled model" if folder is None else str(folder)
    reporter.note(f"Model: {name}. Device: {device}.")
    return name, load(folder, device)


def captioned_subject(
    config: EvaluateConfig, model: tuple[str, Captioner], ground: Ground, group: Processes, reporter: Reporter
) -> Subject:
    """Let a model caption the pictures; all processes take part, and each gets all captions.

    Raises:
        ModelError: The model cannot see pictures.
        CorpusError: Stored features do not fit.
        ImageError: A picture cannot be read.
    """
    from capxai.models.decoding import DecodingOptions
    from capxai.models.folder import WEIGHTS_HASH
    from capxai.recipes.evaluation_captions import Captioning, caption_split

    name, captioner = model
    options = DecodingOptions(beam=config.beam, maximum_length=config.maximum_length)
    how = Captioning(options, config.batch_size, config.features)
    captions = caption_split(captioner, ground.pictures, how, group, reporter)
    decoding = {"strategy": options.strategy, "beam": options.beam, "maximum_length": options.maximum_length}
    origin: JsonObject = {"model": name, WEIGHTS_HASH: captioner.lineage.get(WEIGHTS_HASH), "decoding": decoding}
    if config.features is not None:
        origin["features"] = str(config.features)
    return Subject(name, ground, captions, origin)
