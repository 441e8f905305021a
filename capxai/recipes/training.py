"""The stages of training: read the corpus, train the encoder, train the captioner, keep its best epoch, measure it once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from capxai.config import run_record
from capxai.data.corpus import Corpus, Split
from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.errors import CorpusError, ModelError
from capxai.evaluate.lexicon import Lexicon, coco_lexicon
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions
from capxai.models.encoders import build_encoder, load_pretrained
from capxai.models.folder import DESCRIPTION_FILE, save_model
from capxai.models.specification import Specification
from capxai.recipes.builtin_corpus import open_corpus
from capxai.recipes.corpus_arrays import read_coverage, read_pictures
from capxai.recipes.object_scores import figures, score_captions
from capxai.recipes.record import write_record
from capxai.recipes.train import TrainConfig, TrainReport
from capxai.train.cross_entropy import (
    CaptionSettings,
    Remember,
    train_captions,
    validation_loss,
    write_captions,
)
from capxai.train.examples import encode_references
from capxai.train.localization import CellExamples, LocalizationSettings, train_encoder
from capxai.train.optimization import Epoch
from capxai.types import JsonObject, Reporter

TRAIN, VALIDATION = "train", "val"
LOG_FILE = "train.jsonl"
COMPACT = "compact"
IMAGE_SIZES = {COMPACT: 112}
OTHER_IMAGE_SIZE = 224
EVALUATION_BATCH = 128
DOMAIN_NOTE = (
    "This model was trained on the synthetic pictures of the built-in corpus 'scenes' alone: flat drawings of 17 kinds of objects. "
    "What it says about a photograph means nothing; for photographs import a published checkpoint (capxai import-checkpoint) and "
    "pass its folder with --model."
)


@dataclass(frozen=True)
class Examples:
    """A split in memory.

    Attributes:
        split: Its annotations.
        images: (N, S, S, 3) uint8.
        tokens: (N, R, L) int64, see `encode_references`.
    """

    split: Split
    images: Tensor
    tokens: Tensor


@dataclass
class _Best:
    """The best epoch so far; the score is F1 of object words, and where that is equal, less loss."""

    score: tuple[float, float] = (float("-inf"), float("-inf"))
    epoch: int = 0
    figures: dict[str, float] | None = None


def train(config: TrainConfig, reporter: Reporter) -> TrainReport:
    """Run all stages; see `capxai.recipes.train.run`."""
    begun = time.perf_counter()
    out = _output_folder(config)
    config = replace(config, out=out)
    corpus = open_corpus(config.corpus, config.size, config.corpus_seed, reporter)
    reporter.note(f"Training {config.decoder} with the encoder {config.encoder}; the model goes to {out}.")
    with _torch_state(config):
        training = _Training(config, corpus, reporter)
        training.train_encoder()
        training.train_decoder()
        training.train_jointly()
        training.measure()
    seconds = time.perf_counter() - begun
    assert training.best.figures is not None
    return TrainReport(out, config.command(), training.best.epoch, training.best.figures, training.figures, seconds)


def _output_folder(config: TrainConfig) -> Path:
    """Choose the model folder and refuse to overwrite a model before any time is spent."""
    if config.out is None:
        number = 1
        while Path("runs", f"{config.decoder}-{number}").exists():
            number += 1
        return Path("runs", f"{config.decoder}-{number}")
    if (config.out / DESCRIPTION_FILE).exists() and not config.force:
        raise ModelError(
            f"'{config.out}' already holds a model, and it was kept. Choose another --out, or replace it with --force."
        )
    return config.out


@contextmanager
def _torch_state(config: TrainConfig) -> Iterator[None]:
    """Seed torch and set its threads, and give both back afterwards."""
    threads = torch.get_num_threads()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            yield
    finally:
        torch.set_num_threads(threads)


class _Training:
    """One training: what its stages share."""

    def __init__(self, config: TrainConfig, corpus: Corpus, reporter: Reporter) -> None:
        self.config = config
        self.corpus = corpus
        self.reporter = reporter
        self.lexicon: Lexicon = coco_lexicon()
        self.preprocessing = Preprocessing(IMAGE_SIZES.get(config.encoder, OTHER_IMAGE_SIZE))
        splits = {name: corpus.split(name) for name in (TRAIN, VALIDATION)}
        self.vocabulary = Vocabulary.build(
            (text for texts in splits[TRAIN].captions.values() for text in texts), config.minimum_count
        )
        self.examples = {name: self._read(split) for name, split in splits.items()}
        self.model = self._build()
        self.best = _Best()
        self.figures: dict[str, dict[str, float]] = {}
        self.history: list[JsonObject] = []
        assert config.out is not None
        self.out = config.out
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / LOG_FILE).write_text("", encoding="utf-8")
        write_record(self.out, "train", config, threads=torch.get_num_threads())

    def _read(self, split: Split) -> Examples:
        bare = [picture.id for picture in split.pictures if not split.captions[picture.id]]
        if bare:
            raise CorpusError(
                f"{len(bare)} pictures of the split '{split.name}' have no caption (ids {bare[:3]}). Expected one or more each. "
                "Leave these pictures out."
            )
        images = read_pictures(split, self.preprocessing, self.reporter)
        references = [split.captions[picture.id] for picture in split.pictures]
        return Examples(split, images, encode_references(references, self.vocabulary))

    def _build(self) -> Captioner:
        config = self.config
        encoder = build_encoder(config.encoder)
        assert encoder is not None
        specification = Specification(
            encoder=config.encoder,
            decoder=config.decoder,
            channels=encoder.channels,
            regions=(self.preprocessing.image_size // encoder.stride) ** 2,
            hidden_size=config.hidden_size,
            embedding_size=config.embedding_size,
            vocabulary_size=len(self.vocabulary),
            heads=config.heads if config.decoder == "mh-fc" else 1,
        )
        torch.manual_seed(config.seed)  # the encoder is built first: it is the same for every decoder
        return build_captioner(specification, self.vocabulary, self.preprocessing)

    def record(self, line: JsonObject) -> None:
        """Append a line to the log."""
        self.history.append(line)
        with (self.out / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def train_encoder(self) -> None:
        """Train the compact encoder on cell labels, or fill another one with its published weights."""
        config, encoder = self.config, self.model.encoder
        assert encoder is not None
        if config.encoder != COMPACT:
            self.reporter.note(f"Encoder weights: {load_pretrained(encoder, config.encoder, config.encoder_weights)}.")
        elif config.encoder_epochs:
            train_split = self.examples[TRAIN]
            if not train_split.split.has_objects:
                raise CorpusError(
                    f"The corpus '{self.corpus.folder}' has no objects. Expected boxes or masks, from which the compact encoder "
                    "learns. Add the instances, or take a pretrained encoder (--encoder vgg16)."
                )
            categories = sorted(train_split.split.categories.values())
            cells = self.preprocessing.image_size // encoder.stride
            coverage = read_coverage(train_split.split, categories, cells)
            settings = LocalizationSettings(
                config.encoder_epochs,
                config.encoder_batch_size,
                config.encoder_learning_rate,
                config.seed,
                config.precision == "bfloat16",
            )
            with self.reporter.track("Training the encoder", config.encoder_epochs * len(coverage)) as advance:
                cell_examples = CellExamples(train_split.images, coverage)
                for epoch in train_encoder(encoder, self.preprocessing, cell_examples, settings, advance):
                    self.record({"stage": "encoder", "epoch": epoch.number, "loss": epoch.loss})

    @torch.inference_mode()
    def _features(self, examples: Examples) -> Tensor:
        """Encode all pictures of a split: (N, K, C) float16."""
        batches = []
        with self.reporter.track(f"Encoding {examples.split.name} pictures", len(examples.images)) as advance:
            for images in examples.images.split(EVALUATION_BATCH):
                batches.append(self.model.features(self.preprocessing.normalize(images)).to(torch.float16))
                advance(len(images))
        return torch.cat(batches)

    def _from_features(self, examples: Examples) -> Remember:
        features = self._features(examples)
        return lambda rows: self.model.remember(features[rows].float())

    def _from_pictures(self, examples: Examples) -> Remember:
        return lambda rows: self.model.encode(self.preprocessing.normalize(examples.images[rows]))

    def train_decoder(self) -> None:
        """Train the decoder on features of the encoder as it is."""
        config = self.config
        if config.decoder_epochs:
            sources = {name: self._from_features(examples) for name, examples in self.examples.items()}
            settings = CaptionSettings(config.decoder_epochs, config.batch_size, config.learning_rate, 0.0, config.seed)
            self._train_captions("decoder", settings, sources)

    def train_jointly(self) -> None:
        """Train the decoder and the encoder together, from the best epoch so far on."""
        config = self.config
        if config.joint_epochs:
            sources = {name: self._from_pictures(examples) for name, examples in self.examples.items()}
            settings = CaptionSettings(
                config.joint_epochs,
                config.batch_size,
                config.joint_learning_rate,
                config.joint_encoder_learning_rate,
                config.seed + 1,
            )
            self._train_captions("joint", settings, sources)

    def _train_captions(self, stage: str, settings: CaptionSettings, sources: dict[str, Remember]) -> None:
        tokens = self.examples[TRAIN].tokens
        best = {name: value.clone() for name, value in self.model.state_dict().items()}
        with self.reporter.track(f"Training the {stage}", settings.epochs * len(tokens)) as advance:
            for epoch in train_captions(self.model, sources[TRAIN], tokens, settings, advance):
                if self._validate(stage, epoch, sources[VALIDATION]):
                    best = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(best)

    def _validate(self, stage: str, epoch: Epoch, remember: Remember) -> bool:
        """Measure the model after an epoch; save it and return True where it is the best so far."""
        examples = self.examples[VALIDATION]
        loss = validation_loss(self.model, remember, examples.tokens, EVALUATION_BATCH)
        found = {"loss": round(loss, 4)}
        score = (0.0, -loss)
        if examples.split.has_objects:
            captions = self._captions(examples, remember, DecodingOptions(strategy="greedy"))
            found |= figures(score_captions(captions, examples.split, self.lexicon))
            score = (found["macro_f1"], -loss)
        self.record({"stage": stage, "epoch": epoch.number, "loss": epoch.loss, "validation": found})
        self.reporter.note(
            f"{stage} epoch {epoch.number}: " + ", ".join(f"{key} {value:g}" for key, value in found.items())
        )
        if score <= self.best.score:
            return False
        captioned_epochs = sum("validation" in line for line in self.history)
        self.best = _Best(score, captioned_epochs, found)
        self._save()
        return True

    def _captions(self, examples: Examples, remember: Remember, options: DecodingOptions) -> list[str]:
        return write_captions(self.model, remember, len(examples.images), EVALUATION_BATCH, options)

    def measure(self) -> None:
        """Measure the finished model on the splits asked for, with the default beam, and save it with these figures."""
        for name in self.config.figure_splits:
            if name not in self.corpus.splits:
                continue
            examples = self._read(self.corpus.split(name))
            if examples.split.has_objects:
                captions = self._captions(examples, self._from_features(examples), DecodingOptions())
                self.figures[name] = figures(score_captions(captions, examples.split, self.lexicon))
        self._save()

    def _save(self) -> None:
        manifest, record = self.corpus.manifest, run_record(self.config)
        self.model.lineage = {
            "command": self.config.command(),
            "config": record["config"],
            "versions": record["versions"],
            "threads": torch.get_num_threads(),
            "corpus": {key: manifest[key] for key in ("name", "seed", "size", "p_bias", "p_haze") if key in manifest},
            "epoch": self.best.epoch,
            "validation": self.best.figures,
            "figures": self.figures,
        }
        if self.corpus.name == "scenes":
            self.model.lineage |= {"domain": "scenes", "domain_note": DOMAIN_NOTE}
        save_model(self.model, self.out, force=True)
