"""One run of ``capxai extract-features``: which pictures, which file, who computes what, and how it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from capxai.config import run_record
from capxai.data.annotations import Picture
from capxai.data.corpus import Corpus
from capxai.data.feature_format import FeatureDescription
from capxai.data.feature_names import part_path, shard_path, weights_path
from capxai.data.feature_part import refuse_existing
from capxai.data.feature_writer import FeatureWriter
from capxai.data.picture_blocks import find_unreadable
from capxai.errors import CorpusError, ImageError
from capxai.files import write_atomically, write_json_atomically
from capxai.recipes.builtin_corpus import open_corpus
from capxai.recipes.extract_features import ExtractConfig, ExtractReport
from capxai.recipes.extraction import BlockExtractor, Extracted
from capxai.recipes.failures import Failure
from capxai.recipes.feature_sources import FeatureSource, SourceSettings, build_source
from capxai.train.processes import Processes
from capxai.types import Reporter

_NAMED_AT_MOST = 20
_ROUND = 100
"""Blocks of each process after which all wait for each other, so that none is so far ahead that its connection times out."""
_MOST_WORKERS = 8


@dataclass(frozen=True)
class _Plan:
    """What goes into which file."""

    path: Path
    pictures: tuple[Picture, ...]
    left_out: tuple[Failure, ...]
    description: FeatureDescription


class ExtractionRun:
    """One extraction in one process of a group."""

    def __init__(self, config: ExtractConfig, group: Processes, reporter: Reporter) -> None:
        self.config = config
        self.group = group
        self.reporter = reporter
        self.workers = config.workers if config.workers is not None else _usual_workers(group)

    def run(self) -> ExtractReport:
        """Extract the features; see `capxai.recipes.extract_features.run`."""
        config = self.config
        refuse_existing(config.out if config.part is None else shard_path(config.out, *config.part), config.force)
        with _threads(config.threads):
            source = self._source()
            plan = self._plan(source, self._open_corpus())
            self._check_weights(plan.path, source)
            with self._writer(plan) as writer:
                return self._extract(source, plan, writer)

    def _source(self) -> FeatureSource:
        config = self.config
        settings = SourceSettings(
            encoder=config.encoder,
            weights=config.encoder_weights,
            model=config.model,
            image_size=config.image_size,
            precision=config.precision,
            seed=config.seed,
        )
        return build_source(settings, self.group.device)

    def _open_corpus(self) -> Corpus:
        """Open the corpus; the built-in one is rendered by the first process, before the others look for it."""
        config = self.config
        if not self.group.main:
            self.group.barrier()
        corpus = open_corpus(config.corpus, config.size, config.corpus_seed, self.reporter)
        if self.group.main:
            self.group.barrier()
        return corpus

    def _plan(self, source: FeatureSource, corpus: Corpus) -> _Plan:
        config = self.config
        names = config.split or corpus.splits
        pictures = _pictures(corpus, names)
        description = source.describe(config.dtype, corpus.name, {"splits": list(names)})
        self.reporter.note(
            f"Encoder: {description.encoder}, {source.origin}; {description.regions} regions of {description.channels} channels. "
            f"Device: {self.group.device}. Pictures: {len(pictures):,} ({', '.join(names)})."
        )
        left_out: tuple[Failure, ...] = ()
        if config.skip_unreadable:
            left_out = self._unreadable(pictures)
            gone = {failure.image for failure in left_out}
            pictures = tuple(picture for picture in pictures if str(picture.path) not in gone)
        if config.part is None:
            return _Plan(config.out, pictures, left_out, description)
        # Parts end where blocks do, so that every picture is computed among the same others as without parts.
        number, total = config.part
        blocks = -(-len(pictures) // config.batch_size)
        first, end = (blocks * place // total * config.batch_size for place in (number - 1, number))
        return _Plan(shard_path(config.out, number, total), pictures[first:end], left_out, description)

    def _unreadable(self, pictures: Sequence[Picture]) -> tuple[Failure, ...]:
        """Decode all pictures once, the processes sharing them."""
        paths = [picture.path for picture in pictures]
        own = paths[self.group.rank :: self.group.world]
        found: list[tuple[str, str]] = []
        with self.reporter.track("Looking for unreadable pictures", len(own)) as advance:
            for count, unreadable in find_unreadable(own, self.workers, self.config.batch_size):
                found += unreadable
                advance(count)
        failures = [Failure(*item) for items in self.group.gather(found) for item in items]
        if failures:
            self.reporter.warn(f"{len(failures)} pictures cannot be read and are left out:\n" + _listed(failures))
        return tuple(sorted(failures, key=lambda failure: failure.image))

    def _check_weights(self, path: Path, source: FeatureSource) -> None:
        """See that a part does not come beside weights of other parts.

        Raises:
            CorpusError: It would.
        """
        beside = weights_path(path)
        if self.config.shard is None or self.config.force or source.weights is None or not beside.exists():
            return
        if beside.read_bytes() != source.weights:
            raise CorpusError(
                f"'{beside}' holds other weights than those of this extraction. Expected the same for all parts of a file. Use the "
                "settings of the other parts, choose another --out, or replace the weights with --force."
            )

    def _writer(self, plan: _Plan) -> FeatureWriter:
        """Start or join the file, the first process before the others."""
        if not self.group.main:
            self.group.barrier()
        writer = FeatureWriter.create_or_resume(
            plan.path,
            plan.description,
            [picture.id for picture in plan.pictures],
            [(picture.height, picture.width) for picture in plan.pictures],
            block=self.config.batch_size,
            shard=self.config.part,
            writer=self.group.rank,
            force=self.config.force,
        )
        if self.group.main:
            self.group.barrier()
        return writer

    def _extract(self, source: FeatureSource, plan: _Plan, writer: FeatureWriter) -> ExtractReport:
        header = writer.header
        missing = self.group.broadcast(writer.missing_blocks())
        todo = sum(len(header.rows(number)) for number in missing)
        resumed = len(plan.pictures) - todo
        if resumed:
            self.reporter.note(
                f"Going on with '{part_path(plan.path)}': {resumed:,} of {len(plan.pictures):,} pictures are done."
            )
        paths = [picture.path for picture in plan.pictures]
        extractor = BlockExtractor(source, writer, paths, self.workers, self.group.device)
        started = time.perf_counter()
        with self._resumable(plan, writer), self.reporter.track("Extracting features", todo) as advance:
            self._share(extractor, missing, lambda amount: advance(amount * self.group.world))
            writer.flush()  # before the first process looks whether all is there
        seconds = time.perf_counter() - started
        self._judge(plan, self.group.gather(extractor.found))
        if self.group.main:
            self._finish(source, plan, writer)
        self.group.barrier()
        return self._report(source, plan, resumed, seconds, extractor.found)

    def _share(self, extractor: BlockExtractor, missing: Sequence[int], advance: Callable[[int], None]) -> None:
        """Compute the blocks of this process: every world-th one."""
        step = _ROUND * self.group.world
        if self.group.world == 1:
            extractor.run(missing, advance)
            return
        for start in range(0, len(missing), step):
            extractor.run(missing[start + self.group.rank : start + step : self.group.world], advance)
            self.group.barrier()

    @contextmanager
    def _resumable(self, plan: _Plan, writer: FeatureWriter) -> Iterator[None]:
        """Say how to go on where somebody interrupts."""
        try:
            yield
        except KeyboardInterrupt:
            if self.group.main:
                missing = sum(len(writer.header.rows(number)) for number in writer.missing_blocks())
                self.reporter.warn(
                    f"Interrupted with {len(plan.pictures) - missing:,} of {len(plan.pictures):,} pictures done; they are kept in "
                    f"'{part_path(plan.path)}'. Run the same command again to go on from there."
                )
            raise

    def _judge(self, plan: _Plan, found: Sequence[Extracted]) -> None:
        """Report the pictures that could not be read, of all processes, at once.

        Raises:
            ImageError: There are any.
        """
        if others := sum(one.other_sizes for one in found):
            self.reporter.warn(
                f"{others:,} pictures have another size than the corpus says; boxes and sizes may not fit."
            )
        failures = [Failure(*item) for one in found for item in one.unreadable]
        notes = plan.path.with_name(f"{plan.path.name}.unreadable.json")
        if not failures:
            notes.unlink(missing_ok=True)
            return
        if not self.group.main:
            raise ImageError(f"{len(failures)} pictures cannot be read; the first process names them.")
        write_json_atomically(notes, [failure.to_json() for failure in failures])
        raise ImageError(
            f"{len(failures)} of {len(plan.pictures):,} pictures cannot be read:\n{_listed(failures)}\nExpected all of them (listed in "
            f"'{notes}'). Mend them and run the same command again, which computes what is missing in '{part_path(plan.path)}', or "
            "leave them out with --skip-unreadable --force."
        )

    def _finish(self, source: FeatureSource, plan: _Plan, writer: FeatureWriter) -> None:
        """Write what lies beside the file, and then give it its name."""
        if source.weights is not None:
            write_atomically(weights_path(plan.path), source.weights)
        record = run_record(
            self.config,
            verb="extract-features",
            device=str(self.group.device),
            processes=self.group.world,
            threads=torch.get_num_threads(),
            weights=source.origin,
            description=plan.description.to_json(),
            left_out=[failure.to_json() for failure in plan.left_out],
        )
        write_json_atomically(plan.path.with_suffix(".json"), record)
        writer.finish()

    def _report(
        self, source: FeatureSource, plan: _Plan, resumed: int, seconds: float, found: Extracted
    ) -> ExtractReport:
        return ExtractReport(
            out=plan.path,
            description=plan.description.to_json(),
            pictures=len(plan.pictures),
            resumed=resumed,
            file_bytes=plan.path.stat().st_size,
            seconds=seconds,
            waiting_share=found.waited / seconds if seconds else 0.0,
            left_out=plan.left_out,
            weights=None if source.weights is None else weights_path(plan.path),
        )


def _pictures(corpus: Corpus, splits: Sequence[str]) -> tuple[Picture, ...]:
    """Return the pictures of splits, each once, in the order of their ids.

    Raises:
        CorpusError: A split is unknown or torn, or one id stands for two pictures.
    """
    found: dict[int, Picture] = {}
    for name in splits:
        for picture in corpus.split(name).pictures:
            other = found.setdefault(picture.id, picture)
            if other.path != picture.path:
                raise CorpusError(
                    f"Image id {picture.id} is '{other.path}' in one split and '{picture.path}' in '{name}'. Expected one picture for "
                    "each id. Extract these splits into files of their own with --split."
                )
    return tuple(found[image_id] for image_id in sorted(found))


def _listed(failures: Sequence[Failure]) -> str:
    lines = [f"  {failure.message}" for failure in failures[:_NAMED_AT_MOST]]
    more = len(failures) - len(lines)
    return "\n".join(lines + ([f"  ... and {more} more"] if more else []))


def _usual_workers(group: Processes) -> int:
    """Return half of the processors for decoding where the network needs them too, and all of them beside a GPU."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    local = int(os.environ.get("LOCAL_WORLD_SIZE", group.world))
    share = available // local if group.device.type == "cuda" else available // (2 * local)
    return min(max(share, 1), _MOST_WORKERS)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
