"""Measures whether the relevance of object words lies on the objects: the planted truth of `scenes`, or any corpus with masks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from capxai.errors import CapxaiError, ConfigError, CorpusError
from capxai.types import SILENT, JsonObject, Reporter

if TYPE_CHECKING:
    from capxai.data.annotations import Picture
    from capxai.data.corpus import Split
    from capxai.evaluate.correctness import MethodScore, Placement
    from capxai.explain.attribution import Reading
    from capxai.models.captioner import Captioner
    from capxai.recipes.object_words import ObjectWord
    from capxai.types import FloatArray

SCHEMA = 1
REPORT_FILE = "correctness.json"
WORDS_FILE = "correctness.csv"
ALL = "all"
CONTROLS = ("random", "attention")
"""What a method must beat to be worth its name."""

Level = Literal["pixels", "regions"]


@dataclass(frozen=True)
class CorrectnessConfig:
    """Settings of ``capxai analyze correctness``.

    Attributes:
        model: Model folder; None for the bundled model.
        corpus: Corpus folder with instances; None for the built-in corpus ``scenes``.
        size: Training pictures of the built-in corpus; the other splits are parts of that.
        corpus_seed: Seed of the built-in corpus.
        split: The split whose pictures are explained.
        method: Names of the methods, or "all". Every method explains the same captions.
        level: "pixels" scores pixel relevance; "regions" scores the relevance of the regions, spread bilinearly over the pixels.
        pictures: The first so many pictures of the split.
        beam: Captions kept while searching for the model's caption.
        eps: Stabilizer of the epsilon rule of "lrp".
        seed: Seed of the bootstrap and of the method "random".
        device: Name of the device.
        out: Folder for the report; None writes nothing.
        force: Replace a report that is already there.
    """

    model: Path | None = None
    corpus: Path | None = None
    size: int = 5000
    corpus_seed: int = 0
    split: str = "test"
    method: tuple[str, ...] = (ALL,)
    level: tuple[Level, ...] = ("pixels", "regions")
    pictures: int = 200
    beam: int = 3
    eps: float = 0.01
    seed: int = 0
    device: str = "auto"
    out: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        problems = [
            f"{name} is {getattr(self, name)}. Expected 1 or more."
            for name in ("pictures", "beam")
            if getattr(self, name) < 1
        ]
        missing = [name for name in ("method", "level") if not getattr(self, name)]
        problems += [f"No {name} was named. Expected at least one." for name in missing]
        if problems:
            raise ConfigError("These settings of the analysis cannot be used:\n  " + "\n  ".join(problems))


@dataclass(frozen=True)
class CorrectnessReport:
    """What was measured.

    Attributes:
        model: The model folder, or "bundled".
        corpus: Name of the corpus.
        split: The split.
        pictures: Pictures that were looked at.
        pictures_with_words: Those of them whose caption names an object that is there.
        words: The words that were measured.
        unseen_words: Words that were left out, because their object is smaller than a pixel at the model's size.
        methods: Scores by method; at the level of regions the name ends in " (regions)".
        placements: By method, one for each of ``words``.
        provenance: Settings, versions and a hash of the picture list.
    """

    model: str
    corpus: str
    split: str
    pictures: int
    pictures_with_words: int
    words: tuple[ObjectWord, ...]
    unseen_words: int
    methods: dict[str, MethodScore]
    placements: dict[str, tuple[Placement, ...]]
    provenance: JsonObject

    def to_json(self) -> JsonObject:
        """Return the report as JSON, without the single words, which are in ``correctness.csv``."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "corpus": self.corpus,
            "split": self.split,
            "pictures": self.pictures,
            "pictures_with_words": self.pictures_with_words,
            "words": len(self.words),
            "unseen_words": self.unseen_words,
            "methods": {name: score.to_json() for name, score in self.methods.items()},
            "provenance": self.provenance,
        }

    def to_csv(self) -> str:
        """Return one row for each word and method."""
        from capxai.evaluate.correctness import THRESHOLDS

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        plain = ("mask_share", "mask_area", "box_area", "points_at_mask", "points_at_box", "positive")
        words = ("image_id", "position", "word", "category", "caption")
        writer.writerow([*words, "method", *plain, *(f"box_share_{t:g}" for t in THRESHOLDS)])
        for name, placements in self.placements.items():
            for word, found in zip(self.words, placements, strict=True):
                cells = [_cell(value) for value in (*(getattr(found, key) for key in plain), *found.box_shares)]
                writer.writerow([*(getattr(word, key) for key in words), name, *cells])
        return text.getvalue()


def _cell(value: float | bool) -> str:
    return str(int(value)) if isinstance(value, bool) else f"{value:.6g}"


def run(config: CorrectnessConfig, reporter: Reporter = SILENT) -> CorrectnessReport:
    """Caption pictures, explain every true object word with every method, and compare the maps with the objects.

    Raises:
        CapxaiError: The model, the corpus or the device cannot be used, or there is a report already.
        CorpusError: The split has no instances, or no caption names an object that is there.
        RelevanceError: There is no such method, or the model cannot give it.
    """
    from capxai.evaluate.correctness import score_methods
    from capxai.models.folder import load
    from capxai.recipes.builtin_corpus import open_corpus
    from capxai.recipes.device import choose_device

    names = _methods(config.method)
    _refuse_occupied(config)
    model = load(config.model, choose_device(config.device))
    name = "bundled" if config.model is None else str(config.model)
    reporter.note(f"Model: {name}; device: {model.device}.")
    corpus = open_corpus(config.corpus, config.size, config.corpus_seed, reporter)
    split = _with_objects(corpus.split(config.split))
    pictures = split.pictures[: config.pictures]
    words: list[ObjectWord] = []
    placements: dict[str, list[Placement]] = {}
    unseen = 0
    with reporter.track("Explaining", len(pictures)) as advance:
        for picture in pictures:
            found = _measure(model, split, picture, names, config)
            words += found.words
            unseen += found.unseen
            for key, values in found.placements.items():
                placements.setdefault(key, []).extend(values)
            advance(1)
    report = CorrectnessReport(
        model=name,
        corpus=corpus.name,
        split=split.name,
        pictures=len(pictures),
        pictures_with_words=len({word.image_id for word in words}),
        words=tuple(words),
        unseen_words=unseen,
        methods=score_methods([word.image_id for word in words], placements, CONTROLS, config.seed),
        placements={key: tuple(values) for key, values in placements.items()},
        provenance=_provenance(config, model, pictures),
    )
    if config.out is not None:
        _write(config.out, report, config)
    return report


def _methods(names: Sequence[str]) -> tuple[str, ...]:
    from capxai.explain.methods import METHODS, find_method

    if ALL in names:
        return tuple(METHODS)
    for name in names:
        find_method(name)
    return tuple(dict.fromkeys(names))


def _refuse_occupied(config: CorrectnessConfig) -> None:
    """Refuse a taken folder before the work rather than after it."""
    if config.out is not None and not config.force and (config.out / REPORT_FILE).exists():
        raise CapxaiError(
            f"{config.out} already holds a report, and it was kept. Expected a folder without one. Replace it with --force, or "
            "choose another folder with --out."
        )


def _with_objects(split: Split) -> Split:
    if split.has_objects:
        return split
    raise CorpusError(
        f"The split '{split.name}' has no instance file, so nobody knows where its objects are. Expected instances with masks and "
        "boxes. Choose a corpus with instances, such as scenes or coco."
    )


class _Found(NamedTuple):
    """What one picture adds."""

    words: list[ObjectWord]
    placements: dict[str, list[Placement]]
    unseen: int


def _measure(
    model: Captioner, split: Split, picture: Picture, names: Sequence[str], config: CorrectnessConfig
) -> _Found:
    from capxai.evaluate.correctness import place
    from capxai.recipes.object_words import object_area, read_own_caption, true_object_words

    reading = read_own_caption(model, picture, config.beam)
    if reading is None:
        return _Found([], {}, 0)
    said = true_object_words(reading, split, picture)
    areas = [object_area(split, picture, word.category, model.preprocessing.image_size) for word in said]
    seen = [(word, area) for word, area in zip(said, areas, strict=True) if area is not None]
    placements = {
        name: [place(maps[word.position], *area) for word, area in seen]
        for name, maps in _maps(reading, names if seen else (), config, picture.id)
    }
    return _Found([word for word, _ in seen], placements, len(said) - len(seen))


def _maps(
    reading: Reading, names: Sequence[str], config: CorrectnessConfig, image_id: int
) -> Iterator[tuple[str, FloatArray]]:
    """Explain a caption with every method, one at a time: the name of a row of the report, and (T, H, W).

    A method whose pixels are nothing but its regions, spread, has one row.
    """
    import torch

    from capxai.explain.methods import Options, Request, find_method, upsample

    options = Options(eps=config.eps, seed=config.seed)
    for name in names:
        # The control draws other noise for every picture.
        chosen = replace(options, seed=config.seed + image_id) if name == "random" else options
        maps = find_method(name)(Request.of(reading, chosen))
        spread = None if maps.regions is None else upsample(reading, maps.regions)
        pixels = maps.pixels if maps.pixels is not None else spread
        is_spread = pixels is None or (spread is not None and torch.equal(pixels, spread))
        if pixels is not None and ("pixels" in config.level or is_spread):
            yield name, pixels.detach().cpu().numpy()
        if spread is not None and "regions" in config.level and not is_spread:
            yield f"{name} (regions)", spread.detach().cpu().numpy()


def _provenance(config: CorrectnessConfig, model: Captioner, pictures: Sequence[Picture]) -> JsonObject:
    import hashlib

    from capxai.config import run_record

    ids = "\n".join(str(picture.id) for picture in pictures)
    return run_record(
        config,
        verb="analyze correctness",
        device=str(model.device),
        weights_sha256=str(model.lineage.get("weights_sha256", "")),
        image_list_sha256=hashlib.sha256(ids.encode()).hexdigest(),
    )


def _write(out: Path, report: CorrectnessReport, config: CorrectnessConfig) -> None:
    from capxai.files import write_atomically, write_json_atomically
    from capxai.recipes.record import write_record

    write_atomically(out / WORDS_FILE, report.to_csv())
    write_record(out, "analyze correctness", config)
    write_json_atomically(out / REPORT_FILE, report.to_json())
