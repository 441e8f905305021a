"""Captions pictures, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capxai.errors import ConfigError, ImageError
from capxai.recipes.failures import Failure
from capxai.recipes.flagging import Flag, Flagger, marked, open_flagger
from capxai.recipes.grounding import Vetoed
from capxai.types import SILENT, ImageArray, JsonObject, Reporter

if TYPE_CHECKING:
    from capxai.models.captioner import Captioner
    from capxai.recipes.grounding_veto import EvidenceVeto


@dataclass(frozen=True)
class CaptionConfig:
    """Settings of ``capxai caption``.

    Attributes:
        images: Picture files.
        model: Model folder; None for the bundled model.
        beam: Captions kept while searching; 1 is greedy.
        maximum_length: Longest caption, in words.
        batch_size: Pictures captioned at a time.
        device: Name of the device.
        grounded: Let an object word with too little evidence give way to the next best word; needs the model's ``grounding.json``.
        flag: Say of each object word how probable it is that it is hallucinated; needs the model's ``detector.json``.
        detector: A detector elsewhere, for ``flag``.
    """

    images: tuple[Path, ...] = ()
    model: Path | None = None
    beam: int = 3
    maximum_length: int = 20
    batch_size: int = 16
    device: str = "auto"
    grounded: bool = False
    flag: bool = False
    detector: Path | None = None


@dataclass(frozen=True)
class CaptionedPicture:
    """One captioned picture.

    Attributes:
        image: Its path as it was given.
        caption: The caption.
        vetoed: The object words that gave way in it, step by step; None if captions are not grounded.
        flags: Its object words with their probabilities of being hallucinated; None if they were not asked for.
    """

    image: str
    caption: str
    vetoed: tuple[Vetoed, ...] | None = None
    flags: tuple[Flag, ...] | None = None

    @property
    def text(self) -> str:
        """The caption, with doubtful words in brackets if they were asked for."""
        return marked(self.caption, self.flags or ())

    def to_json(self) -> JsonObject:
        """Return the picture's part of the report as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class CaptionReport:
    """What was captioned.

    Attributes:
        model: Path of the model folder, or "bundled".
        device: Where it was computed.
        pictures: The captioned pictures, in the order given.
        failures: The pictures that could not be read.
        domain_note: What kind of pictures the model knows; empty where its lineage does not say.
    """

    model: str
    device: str
    pictures: tuple[CaptionedPicture, ...]
    failures: tuple[Failure, ...]
    domain_note: str = ""

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        return {
            "model": self.model,
            "device": self.device,
            "domain_note": self.domain_note,
            "pictures": [picture.to_json() for picture in self.pictures],
            "failures": [failure.to_json() for failure in self.failures],
        }


def run(config: CaptionConfig, reporter: Reporter = SILENT) -> CaptionReport:
    """Caption every picture. One that cannot be read is left out and reported; the others are done.

    Raises:
        ConfigError: No picture is named, or a size is below 1.
        CapxaiError: The model or the device cannot be used.
    """
    _check(config)
    from capxai.models.folder import load
    from capxai.recipes.device import choose_device

    device = choose_device(config.device)
    model = load(config.model, device)
    name = "bundled" if config.model is None else str(config.model)
    veto = _veto(model, config.model, name) if config.grounded else None
    flagger = open_flagger(model, config.model, name, config.detector) if config.flag else None
    if config.grounded and config.flag:
        reporter.warn(
            "The detector was calibrated on plain captions; in grounded ones its probabilities are less sure."
        )
    reporter.note(f"Model: {name}; device: {device}")
    pictures: list[CaptionedPicture] = []
    failures: list[Failure] = []
    with reporter.track("Captioning", len(config.images)) as advance:
        for begin in range(0, len(config.images), config.batch_size):
            batch = config.images[begin : begin + config.batch_size]
            readable = _read(model, batch, failures)
            if readable:
                captions = _caption(model, list(readable.values()), config, veto, flagger)
                places = (str(batch[place]) for place in readable)
                pictures += [CaptionedPicture(place, *found) for place, found in zip(places, captions, strict=True)]
            advance(len(batch))
    note = str(model.lineage.get("domain_note", ""))
    return CaptionReport(name, str(device), tuple(pictures), tuple(failures), note)


def _check(config: CaptionConfig) -> None:
    problems = [
        f"{name} is {getattr(config, name)}; expected 1 or more."
        for name in ("beam", "maximum_length", "batch_size")
        if getattr(config, name) < 1
    ]
    if not config.images:
        problems.append("No picture was named. Name at least one picture file: capxai caption image.jpg")
    if config.detector is not None and not config.flag:
        problems.append("A detector was named, but no flags were asked for. Add --flag, or leave --detector out.")
    if problems:
        raise ConfigError(" ".join(problems))


def _read(model: Captioner, images: Sequence[Path], failures: list[Failure]) -> dict[int, ImageArray]:
    """Read pictures and squeeze them to (S, S, 3), by their place in ``images``; note the ones that cannot be read."""
    from capxai.data.images import read_image

    readable = {}
    for place, image in enumerate(images):
        try:
            readable[place] = model.preprocessing.resize(read_image(image))
        except ImageError as error:
            failures.append(Failure(str(image), str(error)))
    return readable


def _veto(model: Captioner, folder: Path | None, name: str) -> EvidenceVeto:
    """Read the thresholds beside a model and build the veto.

    Raises:
        ModelError: There are none, or they belong to other weights.
    """
    from capxai.evaluate.lexicon import coco_lexicon
    from capxai.models.folder import bundled_folder
    from capxai.recipes.grounding import read_grounding
    from capxai.recipes.grounding_veto import grounded_veto

    weights = str(model.lineage.get("weights_sha256", ""))
    place, lexicon = bundled_folder() if folder is None else folder, coco_lexicon()
    grounding = read_grounding(place, weights, lexicon.sha256, name)
    return grounded_veto(model.decoder.word_head, model.vocabulary, lexicon, grounding)


def _caption(
    model: Captioner,
    images: Sequence[ImageArray],
    config: CaptionConfig,
    veto: EvidenceVeto | None,
    flagger: Flagger | None,
) -> list[tuple[str, tuple[Vetoed, ...] | None, tuple[Flag, ...] | None]]:
    """Caption pictures that have the model's size, in one batch: each caption, what a veto kept out of it, and its flags."""
    import numpy as np
    import torch

    from capxai.models.decoding import DecodingOptions, decode
    from capxai.recipes.grounding_veto import vetoed_words

    options = DecodingOptions(beam=config.beam, maximum_length=config.maximum_length)
    with torch.inference_mode():
        stacked = torch.from_numpy(np.stack(images)).to(model.device)  # (B, S, S, 3)
        memory = model.encode(model.preprocessing.normalize(stacked))
        decoded = decode(model, memory, options, veto)
        vetoed = [None] * len(decoded) if veto is None else vetoed_words(model, memory, decoded, veto)
    ids = [found.token_ids for found in decoded]
    flags = [None] * len(ids) if flagger is None else flagger.flags(memory.features, ids)
    return list(zip(map(model.vocabulary.decode, ids), vetoed, flags, strict=True))
