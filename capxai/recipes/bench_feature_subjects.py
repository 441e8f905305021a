"""What ``bench features`` times: an extraction, the same arithmetic written bare, and a store being read and written."""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from capxai.data.feature_format import FeatureDescription
from capxai.data.feature_store import FeatureStore
from capxai.data.feature_writer import FeatureWriter
from capxai.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from capxai.recipes.bench_timing import clocked
from capxai.recipes.extraction import BlockExtractor
from capxai.recipes.feature_sources import GridSource, SourceSettings, build_source
from capxai.types import FloatArray, ImageArray

SEED = 0
_STARTING = 0.3  # seconds that worker processes get to come up, so that they read at the same time
READ_AT_ONCE = 32
"""Rows of one read, as a training step asks for them."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        encoder: Of the extraction; its weights are random, which changes no time.
        image_size: Side of its input, in pixels.
        pictures: Pictures that are extracted each time.
        picture_size: Their width and height before they are squeezed.
        rows: Rows of the store that is read and written.
        row_shape: (K, C) of each.
        reads: Rows that each reader reads each time.
    """

    encoder: str
    image_size: int
    pictures: int
    picture_size: tuple[int, int]
    rows: int
    row_shape: tuple[int, int]
    reads: int


SIZES = {
    "full": Size("vgg16", 224, 64, (640, 480), 2000, (36, 2048), 12800),
    "small": Size("compact", 32, 6, (48, 40), 64, (4, 8), 64),
}


def make_pictures(folder: Path, size: Size) -> list[Path]:
    """Write JPEG files whose decoding takes what that of photographs takes: large areas, edges and some noise."""
    generator = np.random.default_rng(SEED)
    paths = []
    for number in range(size.pictures):
        coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize(size.picture_size, Image.Resampling.BICUBIC), dtype=np.int16)
        noisy: ImageArray = (pixels + generator.integers(-12, 13, pixels.shape)).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(noisy).save(paths[-1], quality=92)
    return paths


class Extraction:
    """The extraction of a few pictures, ours and bare, with the same network, batches and workers.

    Args:
        size: What to extract.
        folder: Where pictures and feature files may lie.
        workers: Processes that decode.
        batch_size: Pictures at a time.
    """

    def __init__(self, size: Size, folder: Path, workers: int, batch_size: int) -> None:
        self._folder, self._workers, self._batch_size = folder, workers, batch_size
        self._paths = make_pictures(folder, size)
        settings = SourceSettings(size.encoder, "random", image_size=size.image_size, seed=SEED)
        source = build_source(settings, torch.device("cpu"))
        assert isinstance(source, GridSource)
        self._source = source
        self._trunk = source.encoder.trunk
        self._runs = 0
        self.last: Path | None = None

    def ours(self) -> None:
        """Extract into a new feature file, finished and checked, as ``capxai extract-features`` does."""
        self._runs += 1
        path = self._folder / f"extracted-{self._runs}.h5"
        description = self._source.describe("float16", "bench", {})
        count = len(self._paths)
        with FeatureWriter.create_or_resume(
            path, description, range(count), [(1, 1)] * count, block=self._batch_size
        ) as writer:
            extractor = BlockExtractor(self._source, writer, self._paths, self._workers, torch.device("cpu"))
            extractor.run(writer.missing_blocks(), lambda amount: None)
            writer.finish()
        if self.last is not None:
            self.last.unlink()
        self.last = path

    def bare(self) -> Tensor:
        """Decode, squeeze, normalize and go forward, and keep nothing but the last features."""
        dataset = _BarePictures(self._paths, self._source.preprocessing.image_size)
        loader: DataLoader[Tensor] = DataLoader(dataset, self._batch_size, num_workers=self._workers)
        features = torch.empty(0)
        with torch.inference_mode():
            for images in loader:
                features = self._trunk(images)
        return features


class _BarePictures(Dataset[Tensor]):
    """Pictures as anybody would load them."""

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        self._paths, self._side = paths, side
        self._mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
        self._std = torch.tensor(IMAGENET_STD)[:, None, None]

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self._paths)

    def __getitem__(self, place: int) -> Tensor:
        with Image.open(self._paths[place]) as picture:
            squeezed = picture.convert("RGB").resize((self._side, self._side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(squeezed)).permute(2, 0, 1).float().div_(255)
        return pixels.sub_(self._mean).div_(self._std)


class Storage:
    """A store of region features, written and read in random order.

    Args:
        size: How much.
        folder: Where it may lie.
    """

    def __init__(self, size: Size, folder: Path) -> None:
        self._size, self._folder = size, folder
        generator = np.random.default_rng(SEED)
        self._block = generator.normal(size=(READ_AT_ONCE, *size.row_shape)).astype(np.float16)
        self._boxes: FloatArray = np.ones((READ_AT_ONCE, size.row_shape[0], 4), np.float32)
        self._runs = 0
        self.write()
        self.store = FeatureStore.open(self._path)

    @property
    def _path(self) -> Path:
        return self._folder / f"stored-{self._runs}.h5"

    @property
    def item_bytes(self) -> int:
        """Bytes of one row in the store."""
        return self._size.row_shape[0] * self._size.row_shape[1] * 2

    def write(self) -> None:
        """Write a whole store, until it is on the disk, checked and named."""
        if self._runs > 1:
            self._path.unlink()
        self._runs += 1
        regions, channels = self._size.row_shape
        description = FeatureDescription("region", "bench", "", None, regions, channels, "float16", None, "bench", {})
        rows = self._size.rows
        with FeatureWriter.create_or_resume(
            self._path, description, range(rows), [(1, 1)] * rows, block=READ_AT_ONCE
        ) as writer:
            for block in writer.missing_blocks():
                count = len(writer.header.rows(block))
                writer.write(block, self._block[:count], self._boxes[:count])
            writer.finish()

    def read(self, workers: int) -> tuple[float, float]:
        """Read random rows and return the (wall, CPU) seconds of the slowest reader.

        Args:
            workers: Processes that read at the same time, each its own rows; 0 reads in this process.
        """
        if not workers:
            return _read(self.store, self._size.reads, SEED)
        begin = time.monotonic() + _STARTING
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            jobs = [(self.store, self._size.reads, SEED + number, begin) for number in range(workers)]
            return max(pool.starmap(_read, jobs, chunksize=1))

    def deliver(self, workers: int) -> tuple[float, float]:
        """Let a loader with worker processes hand over as many random rows, and return (wall, CPU) seconds of this process."""
        batches = _random_rows(len(self.store), self._size.reads, SEED).reshape(-1, READ_AT_ONCE)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "This DataLoader will create"
            )  # four readers are asked for on any machine
            arriving = iter(DataLoader(_Rows(self.store, batches), batch_size=None, num_workers=workers))
        next(arriving)  # the workers have started
        before = (time.perf_counter(), time.process_time())
        count = sum(1 for _ in arriving)
        wall, cpu = time.perf_counter() - before[0], time.process_time() - before[1]
        scale = len(batches) / count
        return wall * scale, cpu * scale


class _Rows(Dataset[Tensor]):
    """Batches of rows of a store."""

    def __init__(self, store: FeatureStore, batches: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
        self._store, self._batches = store, batches

    def __len__(self) -> int:
        """Count the batches."""
        return len(self._batches)

    def __getitem__(self, place: int) -> Tensor:
        return torch.from_numpy(self._store.read(self._batches[place]))


def _random_rows(count: int, reads: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.random.default_rng(seed).integers(0, count, reads)


def _read(store: FeatureStore, reads: int, seed: int, begin: float = 0.0) -> tuple[float, float]:
    """Read random rows, at the earliest from a moment of the monotonic clock on, and return (wall, CPU) seconds."""
    batches = _random_rows(len(store), reads, seed).reshape(-1, READ_AT_ONCE)
    time.sleep(max(0.0, begin - time.monotonic()))

    def subject() -> None:
        for rows in batches:
            store.read(rows)

    return clocked(subject)
