"""What `capxai bench train` times: a step through the training loop, and the same arithmetic written bare.

The weights and the features are random. They change no time, as every step computes the same sums whatever the numbers are.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from capxai.data.feature_format import FeatureDescription
from capxai.data.feature_store import FeatureStore
from capxai.data.feature_writer import FeatureWriter
from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import END, PAD, START, UNKNOWN, Vocabulary
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.specification import Specification
from capxai.recipes.bare_training import BARE, BareTraining
from capxai.recipes.training_data import StoredRows
from capxai.train.captions import CaptionTask
from capxai.train.cross_entropy import CrossEntropy
from capxai.train.examples import CaptionBatch, References, caption_batch
from capxai.train.loop import Loop, LoopSettings, Progress
from capxai.train.optimization import Numerics, Optimization
from capxai.train.processes import Processes
from capxai.train.schedule import Plateau
from capxai.train.sources import FeatureSource

LEARNING_RATE = 5e-4
BLOCK = 32
SPECIALS = (PAD, START, END, UNKNOWN)


@dataclass(frozen=True)
class Size:
    """How large the step is.

    Attributes:
        side: Cells on a side of the feature map.
        channels: C.
        units: E = H.
        vocabulary: V, the specials included.
        words: T, ``<end>`` counted.
        heads: N of ``mh-fc``.
    """

    side: int
    channels: int
    units: int
    vocabulary: int
    words: int
    heads: int

    @property
    def regions(self) -> int:
        """K."""
        return self.side**2


SIZES = {"full": Size(14, 512, 512, 9586, 19, 8), "small": Size(3, 8, 16, 40, 5, 4)}
"""The step that the figures are stated for, and a tiny one to try the benchmark itself."""


@contextmanager
def stored_features(size: Size, pictures: int, seed: int = 0) -> Iterator[Path]:
    """Write a feature file of noise, as after a ReLU, into a temporary folder that goes away afterwards.

    Raises:
        CapxaiError: It cannot be written.
    """
    description = FeatureDescription(
        "grid", "noise", "", None, size.regions, size.channels, "float16", (size.side, size.side), "noise", {}
    )
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="capxai-bench-") as folder:
        path = Path(folder, "features.h5")
        with FeatureWriter.create_or_resume(path, description, range(pictures), [(224, 224)] * pictures) as writer:
            for block in writer.missing_blocks():
                rows = len(writer.header.rows(block))
                noise = generator.standard_normal((rows, size.regions, size.channels), dtype=np.float32)
                writer.write(block, np.maximum(noise, 0).astype(np.float16))
            writer.finish()
        _drop_from_cache(path)
        yield path


def _drop_from_cache(path: Path) -> None:
    """Make the first reading a reading from the disk, where the operating system lets us."""
    with suppress(AttributeError, OSError), path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class OurSteps:
    """Steps of the training loop, one by one.

    Attributes:
        waited: Seconds that they have waited for features so far.
    """

    def __init__(self, loop: Loop) -> None:
        self._steps = loop.run()
        self.waited = 0.0

    def step(self) -> Progress:
        """Take one."""
        progress = next(self._steps)
        self.waited = progress.waited
        return progress

    def close(self) -> None:
        """Let the thread go that reads ahead."""
        close = getattr(self._steps, "close", None)
        if close is not None:
            close()


@dataclass(frozen=True)
class Workload:
    """A decoder with captions of the same length to learn.

    Attributes:
        size: Sizes.
        decoder: Its name.
        batch_size: B.
        features: The feature file.
    """

    size: Size
    decoder: str
    batch_size: int
    features: Path

    @property
    def tokens(self) -> int:
        """Words of a step, ``<end>`` counted."""
        return self.batch_size * self.size.words

    def specification(self) -> Specification:
        """Return the architecture."""
        size = self.size
        heads = size.heads if self.decoder == "mh-fc" else 1
        sizes = (size.channels, size.regions, size.units, size.units, size.vocabulary, heads)
        return Specification("features", self.decoder, *sizes)

    def model(self) -> Captioner:
        """Build the captioner, with the same weights each time."""
        words = [f"word{number}" for number in range(self.size.vocabulary - len(SPECIALS))]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build_captioner(self.specification(), Vocabulary([*SPECIALS, *words]), Preprocessing(224))

    def references(self, pictures: int) -> References:
        """Draw one caption for each picture: every word is one of the vocabulary's."""
        length = self.size.words - 1
        generator = torch.Generator().manual_seed(0)
        words = torch.randint(len(SPECIALS), self.size.vocabulary, (pictures * length,), generator=generator)
        offsets = torch.arange(pictures + 1) * length
        return References(torch.arange(pictures + 1), offsets, words.to(torch.int32), SPECIALS.index(END), 0)

    def batch(self, model: Captioner) -> CaptionBatch:
        """Return the first captions as a batch."""
        rows = torch.arange(self.batch_size)
        return caption_batch(rows, self.references(self.batch_size).targets(rows), model.vocabulary)

    def loop(self, model: Captioner, store: FeatureStore) -> Loop:
        """Make the training loop over an epoch of the stored features."""
        source = FeatureSource(StoredRows(store, torch.arange(len(store))))
        task = CaptionTask(model, source, self.references(len(store)), self.batch_size, lambda _: CrossEntropy())
        numerics = Numerics(torch.device("cpu"))
        optimization = Optimization([(model.decoder.parameters(), LEARNING_RATE)], Plateau(), numerics)
        return Loop(task, optimization, LoopSettings(1, 0, numerics), Processes(0, 1, numerics.device))

    @contextmanager
    def ours(self) -> Iterator[OurSteps]:
        """Start training from the stored features."""
        with (
            torch.random.fork_rng(devices=[]),
            FeatureStore.open(self.features) as store,
            closing(OurSteps(self.loop(self.model(), store))) as steps,
        ):
            yield steps

    def bare_training(self, model: Captioner, projection_in_loop: bool = False) -> BareTraining:
        """Write the decoder bare, with the weights of the captioner."""
        with torch.random.fork_rng(devices=[]):
            decoder = BARE[self.decoder](self.specification(), projection_in_loop)
        decoder.take_weights(model)
        return BareTraining(decoder, LEARNING_RATE, model.vocabulary.pad)

    def bare(self, projection_in_loop: bool = False) -> Callable[[], float]:
        """Return a bare step, whose features are in memory already, in the stored type."""
        model = self.model()
        training, batch = self.bare_training(model, projection_in_loop), self.batch(model)
        with FeatureStore.open(self.features) as store:
            features = torch.from_numpy(store.read(range(self.batch_size)))
        return lambda: training.step(features, batch.inputs, batch.targets)

    @torch.no_grad()
    def loss_difference(self) -> float:
        """Return how far our loss and the bare one are apart, relative to ours, without dropout."""
        model = self.model().eval()
        training, batch = self.bare_training(model), self.batch(model)
        training.decoder.eval()
        with FeatureStore.open(self.features) as store:
            features = torch.from_numpy(store.read(range(self.batch_size)))
        total, words = CrossEntropy()(model, model.remember(features.float()), batch)
        theirs = training.loss(features, batch.inputs, batch.targets)
        return abs(float(total / words - theirs)) / float(total / words)
