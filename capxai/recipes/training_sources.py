"""Where the pictures of every split come from while a captioner learns: stored features, features in memory, or picture files."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from capxai.data.corpus import Corpus
from capxai.data.feature_store import FeatureStore
from capxai.errors import CorpusError
from capxai.models.captioner import Captioner
from capxai.recipes.train import TrainConfig
from capxai.recipes.training_choices import Choices
from capxai.recipes.training_data import Examples, choose_workers, picture_source, read_examples, stored_source
from capxai.recipes.training_model import COMPACT, Eye
from capxai.train.optimization import Numerics
from capxai.train.sources import FeatureSource, PictureSource, Reader, Rows, Source
from capxai.types import Reporter

EVALUATION_BATCH = 128
FLOAT16_BYTES = 2


@dataclass(frozen=True)
class Setting:
    """What a training works on.

    Attributes:
        config: Its settings.
        choices: What they left open.
        corpus: The corpus.
        store: Stored features, or None.
        eye: What the model sees with.
    """

    config: TrainConfig
    choices: Choices
    corpus: Corpus
    store: FeatureStore | None
    eye: Eye


class Sources:
    """Opens a source when it is first needed, and keeps it as long as it is valid."""

    def __init__(self, setting: Setting, model: Captioner, numerics: Numerics, reporter: Reporter) -> None:
        """Remember what to open."""
        self._setting, self._model, self._numerics, self._reporter = setting, model, numerics, reporter
        self._examples: dict[str, Examples] = {}
        self._pictures: dict[str, PictureSource] = {}
        self._frozen: dict[str, Source] = {}
        self._encoder_learns = False
        self._encoder_changed = False

    def examples(self, name: str) -> Examples:
        """Return a split with its references."""
        if name not in self._examples:
            self._examples[name] = read_examples(self._setting.corpus, name, self._model.vocabulary)
        return self._examples[name]

    def has_features(self, name: str) -> bool:
        """Tell whether the features of a split are stored, or can be computed when they are needed."""
        config, store = self._setting.config, self._setting.store
        if store is None or config.joint_epochs:
            return True
        try:
            store.rows_of(self.examples(name).image_ids)
        except CorpusError:
            return False
        return True

    def refuse_impossible(self, *names: str) -> None:
        """See, before time is spent, that the encoder can learn if it is to, and that the splits have features.

        Raises:
            CorpusError: They have not, or there is no encoder.
        """
        if self._setting.config.joint_epochs and self._model.encoder is None:
            raise CorpusError(
                "Joint training was asked for, and the model has no encoder: it works on stored features. Expected the encoder's weights "
                "beside the features. Use --set joint_epochs=0, or train without --features."
            )
        if self._setting.store is not None and self._setting.choices.decoder_epochs:
            for name in names:
                self._setting.store.rows_of(self.examples(name).image_ids)

    def pictures(self, name: str) -> PictureSource:
        """Return the pictures of a split, for an encoder that learns."""
        if name not in self._pictures:
            config = self._setting.config
            workers = choose_workers(config.workers)
            self._pictures[name] = picture_source(
                self.examples(name), self._model.preprocessing, config.memory, workers, self._reporter
            )
        return self._pictures[name]

    def learning(self, name: str) -> PictureSource:
        """Return the pictures of a split, and from now on let no feature be kept."""
        self._encoder_learns = True
        self.forget_features()
        return self.pictures(name)

    def forget_features(self) -> None:
        """Note that the encoder is another one than that of all features so far."""
        self._encoder_changed = True
        self._frozen.clear()

    def frozen(self, name: str) -> Source:
        """Return the features of a split by the encoder as it is now, which learns no more.

        Raises:
            CorpusError: They do not fit into memory; the message says how to store them.
        """
        self._encoder_learns = False
        if name not in self._frozen:
            self._frozen[name] = self._open_frozen(name)
        return self._frozen[name]

    def current(self, name: str) -> Source:
        """Return a source that is right at the moment: pictures while the encoder learns, features otherwise."""
        if self._encoder_learns:
            return replace(self.pictures(name), frozen=True)
        return self.frozen(name)

    def _open_frozen(self, name: str) -> Source:
        store, eye, config = self._setting.store, self._setting.eye, self._setting.config
        if store is not None and not self._encoder_changed:
            return stored_source(self.examples(name), store)
        size = len(self.examples(name)) * eye.regions * eye.channels * FLOAT16_BYTES
        if size <= config.memory:
            return FeatureSource(Rows(self._encode(name)))
        if self._encoder_changed or eye.trained_here or (eye.encoder == COMPACT and config.encoder_weights is not None):
            self._reporter.note(
                f"The features of the {name} pictures would take {size / 2**30:.1f} GiB, more than memory={config.memory / 2**30:.1f} GiB: "
                "every picture is encoded again whenever it is needed."
            )
            return replace(self.pictures(name), frozen=True)
        raise CorpusError(self._store_them(name, size))

    def _store_them(self, name: str, size: int) -> str:
        config, corpus = self._setting.config, self._setting.corpus
        weights = "" if config.encoder_weights is None else f" --encoder-weights {config.encoder_weights}"
        out = corpus.folder / f"{config.encoder}.h5"
        return (
            f"The features of the {name} pictures would take {size / 2**30:.1f} GiB of memory. Expected at most "
            f"{config.memory / 2**30:.1f} GiB (the setting memory, in bytes). Store them first:\n"
            f"  capxai extract-features --corpus {corpus.folder} --encoder {config.encoder}{weights} --out {out}\n"
            f"  capxai train --corpus {corpus.folder} --features {out}"
        )

    @torch.no_grad()
    def _encode(self, name: str) -> Tensor:
        """Encode all pictures of a split: (N, K, C) float16, on the CPU."""
        pictures, model, device = self.pictures(name), self._model.eval(), self._numerics.device
        count = len(self.examples(name))
        plan = list(torch.arange(count).split(EVALUATION_BATCH))
        features = torch.empty((count, self._setting.eye.regions, self._setting.eye.channels), dtype=torch.float16)
        with self._reporter.track(f"Encoding {name} pictures", count) as advance:
            for rows, found in zip(plan, Reader(pictures.read, pictures.workers).batches(plan), strict=True):
                images = model.preprocessing.normalize(found.to(device)).contiguous(memory_format=torch.channels_last)
                features[rows] = model.features(images).to("cpu", torch.float16)
                advance(len(rows))
        return features
