"""What `capxai bench finetune` times: steps of the loop that trains, with the objectives of fine-tuning.

Weights, features and words are random. They change no time, as every step computes the same sums whatever the numbers are; where objects
are named is drawn, one mention in each caption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from capxai.data.feature_store import FeatureStore
from capxai.data.vocabulary import Vocabulary
from capxai.finetune.counterfactual import Counterfactual
from capxai.finetune.lrp_inference import CrossEntropy, LrpInference, Reweighting
from capxai.finetune.mentions import ObjectMentions
from capxai.finetune.stop_words import neutral_words
from capxai.models.captioner import Captioner
from capxai.recipes.bench_training import LEARNING_RATE, SPECIALS, OurSteps, Size, Workload
from capxai.recipes.finetune_objectives import Objective
from capxai.recipes.finetune_task import FinetuneTask, Rounds
from capxai.recipes.training_data import StoredRows
from capxai.train.examples import References
from capxai.train.loop import Loop, LoopSettings
from capxai.train.optimization import Numerics, Optimization
from capxai.train.processes import Processes
from capxai.train.schedule import Plateau
from capxai.train.sources import FeatureSource

CAPTIONS = 5
"""References of a picture."""
CATEGORIES = 80


@dataclass(frozen=True)
class FinetuneWorkload:
    """A decoder to fine-tune, with references of the same length.

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

    def references(self, pictures: int) -> References:
        """Draw the references of pictures: every word is one of the vocabulary's."""
        words = torch.randint(len(SPECIALS), self.size.vocabulary, (self._words(pictures),), generator=_seeded(0))
        return self._table(pictures, words, SPECIALS.index("<end>"))

    def mentions(self, pictures: int) -> ObjectMentions:
        """Let every reference name one object of a random category at a random place."""
        length, captions = self.size.words - 1, pictures * CAPTIONS
        numbers = torch.zeros(captions, length, dtype=torch.int64)
        places = torch.randint(length, (captions, 1), generator=_seeded(1))
        numbers.scatter_(1, places, torch.randint(1, CATEGORIES + 1, (captions, 1), generator=_seeded(2)))
        forms = torch.zeros(CATEGORIES + 1, self.size.vocabulary, dtype=torch.bool)
        forms[1:, len(SPECIALS) :] = (
            torch.rand(CATEGORIES, self.size.vocabulary - len(SPECIALS), generator=_seeded(3)) < 0.001
        )
        return ObjectMentions(self.references(pictures), self._table(pictures, numbers.flatten(), 0), forms)

    def _words(self, pictures: int) -> int:
        return pictures * CAPTIONS * (self.size.words - 1)

    def _table(self, pictures: int, numbers: Tensor, end: int) -> References:
        first = torch.arange(pictures + 1) * CAPTIONS
        offsets = torch.arange(pictures * CAPTIONS + 1) * (self.size.words - 1)
        return References(first, offsets, numbers.to(torch.int32), end, 0)

    def objective(self, name: str, vocabulary: Vocabulary, pictures: int) -> Objective:
        """Return the objective of that name, with the settings that fine-tuning has by default."""
        makers: dict[str, Callable[[], Objective]] = {
            "ce": CrossEntropy,
            "lrp": lambda: LrpInference(Reweighting(neutral_words(vocabulary))),
            "lrp-counterfactual": lambda: Counterfactual(self.mentions(pictures)),
        }
        return makers[name]()

    def loop(self, name: str, model: Captioner, store: FeatureStore) -> Loop:
        """Make the training loop of an objective over an epoch of the stored features."""
        source = FeatureSource(StoredRows(store, torch.arange(len(store))))
        objective = self.objective(name, model.vocabulary, len(store))
        updates = len(store) // self.batch_size
        sizes = (self.batch_size, Rounds(updates, updates))
        task = FinetuneTask(model, source, self.references(len(store)), objective, sizes)
        numerics = Numerics(torch.device("cpu"))
        optimization = Optimization([(model.decoder.parameters(), LEARNING_RATE)], Plateau(), numerics)
        return Loop(task, optimization, LoopSettings(1, 0, numerics), Processes(0, 1, numerics.device))

    @contextmanager
    def steps(self, name: str) -> Iterator[OurSteps]:
        """Start fine-tuning from the stored features, by an objective."""
        model = Workload(self.size, self.decoder, self.batch_size, self.features).model()
        with (
            torch.random.fork_rng(devices=[]),
            FeatureStore.open(self.features) as store,
            closing(OurSteps(self.loop(name, model, store))) as steps,
        ):
            yield steps


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
