"""The frame of every experiment: model, corpus and processes, the stream of pictures, and what was measured on each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch

from capxai import __version__
from capxai.config import run_record
from capxai.data.annotations import Picture
from capxai.data.corpus import Corpus, Split
from capxai.errors import CorpusError
from capxai.evaluate.lexicon import Lexicon, coco_lexicon
from capxai.evaluate.lexicon_file import read_lexicon
from capxai.explain.methods import Options, refuse_unused
from capxai.models.captioner import Captioner
from capxai.models.folder import load
from capxai.recipes.analysis.progress import FOLDER, Progress
from capxai.recipes.analysis.settings import AnalysisConfig
from capxai.recipes.analysis.stream import Look, Looking
from capxai.recipes.device import choose_device
from capxai.recipes.interruption import interruption
from capxai.recipes.object_scores import split_truths
from capxai.recipes.run_frame import open_shared_corpus, torch_state
from capxai.train.processes import Processes, processes
from capxai.types import SILENT, JsonObject, Reporter

BUNDLED = "bundled"

Measure = Callable[[Look], list[JsonObject]]
"""``measure(look)``: one record for each picture of the batch, of JSON values (finite numbers)."""


@dataclass(frozen=True)
class Experiment:
    """What an experiment works with.

    Attributes:
        config: Its settings.
        name: Name of the model: its folder, or "bundled".
        model: In evaluation mode.
        corpus: The corpus.
        split: The split that is looked at.
        lexicon: Names of objects.
        group: The processes that share the pictures.
        reporter: Where progress is shown.
    """

    config: AnalysisConfig
    name: str
    model: Captioner
    corpus: Corpus
    split: Split
    lexicon: Lexicon
    group: Processes
    reporter: Reporter

    @property
    def options(self) -> Options:
        """Settings of "lrp", and the seed of "random"."""
        return Options(eps=self.config.eps, seed=self.config.seed)

    @cached_property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures that are looked at."""
        return self.split.pictures[: self.config.pictures or None]

    @cached_property
    def objects(self) -> dict[int, frozenset[str]]:
        """By image id: the categories of a picture, by its instances and its references as far as there are any (CHAIR's truth)."""
        return {truth.image_id: frozenset(truth.objects) for truth in split_truths(self.split, self.lexicon)}

    def collect(self, measure: Measure, methods: Sequence[str], doing: str = "Explaining") -> list[JsonObject]:
        """Look at all pictures and measure each: a record for every picture, in the order of the split, the same in every process.

        A record has ``image_id`` and ``caption`` beside what ``measure`` returns; a picture about which the model says nothing has
        nothing else. Blocks of pictures are dealt out to the processes; each is on the disk once it is done, if there is an ``out``.

        Raises:
            ImageError: A picture cannot be read.
            ConfigError: The folder holds the beginning of another analysis.
            KeyboardInterrupt: The run was interrupted between two batches; what is done is kept.
        """
        looking = Looking(self.model, self.config.beam, tuple(methods), self.options, self.config.workers)
        size = looking.batch_size(self.config.batch_size)
        blocks = [(start // size, self.pictures[start : start + size]) for start in range(0, len(self.pictures), size)]
        progress = self._begin(size)
        done = self.group.broadcast(progress.done() if progress is not None and self.group.main else {})
        mine = [block for block in blocks if block[0] not in done][self.group.rank :: self.group.world]
        if done:
            self.reporter.note(f"Going on: {len(done)} of {len(blocks)} batches are done.")
        own: dict[int, list[JsonObject]] = {}
        try:
            with (
                self.reporter.track(doing, sum(len(pictures) for _, pictures in mine)) as advance,
                interruption() as wish,
            ):
                for (number, pictures), (_, look) in zip(mine, looking.blocks(mine), strict=True):
                    own[number] = _records(pictures, look, measure)
                    if progress is not None:
                        progress.add(number, own[number])
                    advance(len(pictures))
                    wish.check()
        except KeyboardInterrupt:
            if progress is not None and self.group.main:
                self.reporter.warn("Interrupted; what is done is kept. Run the same command again to go on from there.")
            raise
        finally:
            if progress is not None:
                progress.close()
        for share in self.group.gather(own):
            done |= share
        return [one for number, _ in blocks for one in done[number]]

    def _begin(self, batch_size: int) -> Progress | None:
        """Open the progress on the disk, the main process first; None where nothing is written."""
        if self.config.out is None:
            return None
        progress = Progress(self.config.out, self.group.rank)
        if self.group.main:
            progress.begin({**self.identity(), "batch_size": batch_size}, self.config.force)
        self.group.barrier()
        return progress

    def identity(self) -> JsonObject:
        """Return all that the records depend on."""
        return {
            **self.config.identity(),
            "verb": self.config.VERB,
            "version": __version__,
            "threads": torch.get_num_threads(),
            "weights_sha256": self.weights,
            "image_list_sha256": self.image_list,
            "lexicon_sha256": self.lexicon.sha256,
        }

    @property
    def weights(self) -> str:
        """The SHA-256 of the model's weights, "" where it is not known."""
        return str(self.model.lineage.get("weights_sha256", ""))

    @property
    def image_list(self) -> str:
        """The SHA-256 of the image ids."""
        return hashlib.sha256("\n".join(str(picture.id) for picture in self.pictures).encode()).hexdigest()

    def provenance(self) -> JsonObject:
        """Return settings, versions and hashes, for the report."""
        return run_record(
            self.config,
            verb=self.config.VERB,
            device=str(self.model.device),
            processes=self.group.world,
            threads=torch.get_num_threads(),
            weights_sha256=self.weights,
            image_list_sha256=self.image_list,
            lexicon_sha256=self.lexicon.sha256,
        )

    def finish(self) -> None:
        """Remove the progress, once the report is written."""
        if self.config.out is not None and self.group.main:
            Progress(self.config.out, self.group.rank).remove()


def _records(pictures: Sequence[Picture], look: Look | None, measure: Measure) -> list[JsonObject]:
    measured = {}
    if look is not None:
        found = zip(look.pictures, look.captions, measure(look), strict=True)
        measured = {picture.id: {"image_id": picture.id, "caption": text, **one} for picture, text, one in found}
    return [measured.get(picture.id, {"image_id": picture.id, "caption": ""}) for picture in pictures]


@contextmanager
def experiment(config: AnalysisConfig, reporter: Reporter = SILENT, needs_objects: bool = True) -> Iterator[Experiment]:
    """Open what an experiment works with; under torchrun in every process.

    Raises:
        CapxaiError: Model, corpus or device cannot be used, or there is a report already.
        CorpusError: The split has no picture, or no instances where they are needed.
        RelevanceError: There is no such method.
    """
    config.refuse_occupied()
    for method in config.methods():
        refuse_unused(method, Options())
    with processes(choose_device(config.device)) as group, torch_state(config.seed, config.threads, group.device):
        own = group.reporter(reporter)
        model = load(config.model, group.device).eval()
        name = BUNDLED if config.model is None else str(config.model)
        own.note(f"Model: {name}; device: {group.device}.")
        corpus = open_shared_corpus(config.corpus, (config.size, config.corpus_seed), group, own)
        split = corpus.split(config.split)
        refuse_unfit(split, needs_objects)
        lexicon = coco_lexicon() if config.lexicon is None else read_lexicon(config.lexicon)
        yield Experiment(config, name, model, corpus, split, lexicon, group, own)


def refuse_unfit(split: Split, needs_objects: bool) -> None:
    """Refuse a split without pictures, or without the objects that are needed.

    Raises:
        CorpusError: It is one.
    """
    if not split.pictures:
        raise CorpusError(f"The split '{split.name}' has no picture. Expected at least one. Choose another split.")
    if needs_objects and not split.has_objects:
        raise CorpusError(
            f"The split '{split.name}' has no instance file, so nobody knows where its objects are. Expected instances with masks and "
            "boxes. Choose a corpus with instances, such as scenes or coco."
        )


__all__ = ["BUNDLED", "FOLDER", "Experiment", "Measure", "experiment", "refuse_unfit"]
