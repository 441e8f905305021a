"""Explains pictures: for every word of a caption, what spoke for and against it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from capxai.errors import CapxaiError, ConfigError
from capxai.recipes.failures import Failure, failure_of
from capxai.recipes.record import write_record
from capxai.types import SILENT, JsonObject, Reporter

if TYPE_CHECKING:
    from capxai.explain.methods import Options
    from capxai.models.captioner import Captioner


@dataclass(frozen=True)
class ExplainConfig:
    """Settings of ``capxai explain``.

    Attributes:
        images: Picture files.
        model: Model folder; None for the bundled model.
        method: Name of the method.
        caption: The caption to explain; None for the one that the model gives.
        why: Explain this word of the caption alone; None explains all words.
        against: A word of the vocabulary: explain why it is ``why`` rather than this one.
        head: Number of the attention head whose relevance is kept, from 0, or "all".
        out: Folder of the explanations; each picture gets a folder of its own in it.
        beam: Captions kept while searching for the model's caption.
        scale: What shares a color scale: all words of the "caption", or each "word" its own.
        force: Replace explanations that are already there.
        device: Name of the device.
        precision: "float32", or "float64" to check by how much rounding matters.
        seed: Seed of the method "random".
        eps: Stabilizer of the epsilon rule of "lrp".
        alpha: Weight of positive contributions in the encoder, "lrp".
        beta: Weight of negative contributions in the encoder, "lrp"; alpha - beta = 1.
        gamma: Use the gamma rule in the encoder instead of alpha-beta, "lrp".
        z_box: Use the z-box rule for the encoder's first convolution, "lrp".
    """

    images: tuple[Path, ...] = ()
    model: Path | None = None
    method: str = "lrp"
    caption: str | None = None
    why: str | None = None
    against: str | None = None
    head: str = "all"
    out: Path = Path("explanations")
    beam: int = 3
    scale: Literal["caption", "word"] = "caption"
    force: bool = False
    device: str = "auto"
    precision: Literal["float32", "float64"] = "float32"
    seed: int = 0
    eps: float = 0.01
    alpha: float = 1.0
    beta: float = 0.0
    gamma: float | None = None
    z_box: bool = False


@dataclass(frozen=True)
class ExplainedPicture:
    """One explained picture.

    Attributes:
        image: Its path as it was given.
        folder: Where its explanation was written.
        explanation: What ``explanation.json`` holds.
    """

    image: str
    folder: Path
    explanation: JsonObject

    def to_json(self) -> JsonObject:
        """Return the picture's part of the report as JSON."""
        return {"image": self.image, "folder": str(self.folder), "explanation": self.explanation}


@dataclass(frozen=True)
class ExplainReport:
    """What was explained.

    Attributes:
        model: Path of the model folder, or "bundled".
        method: Name of the method.
        device: Where it was computed.
        pictures: The explained pictures, in the order given.
        failures: The pictures that could not be explained.
        domain_note: What kind of pictures the model knows; empty where its lineage does not say.
    """

    model: str
    method: str
    device: str
    pictures: tuple[ExplainedPicture, ...]
    failures: tuple[Failure, ...]
    domain_note: str = ""

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        return {
            "model": self.model,
            "method": self.method,
            "device": self.device,
            "domain_note": self.domain_note,
            "pictures": [picture.to_json() for picture in self.pictures],
            "failures": [failure.to_json() for failure in self.failures],
        }


def run(config: ExplainConfig, reporter: Reporter = SILENT) -> ExplainReport:
    """Explain every picture and write one folder for each.

    A picture that cannot be read, or whose folder is taken, is left out and reported; the others are done.

    Raises:
        ConfigError: No picture is named, or a setting cannot be used.
        CapxaiError: The model, the device, the method or the caption cannot be used.
    """
    if not config.images:
        raise ConfigError("No picture was named. Expected at least one picture file. Name it: capxai explain image.jpg")
    from capxai.explain.methods import Options, find_method
    from capxai.explain.question import asked
    from capxai.models.folder import load
    from capxai.recipes.device import choose_device

    find_method(config.method)
    options = Options(
        _head(config.head), config.eps, config.alpha, config.beta, config.gamma, config.z_box, config.seed
    )
    device = choose_device(config.device)
    model = load(config.model, device)
    if config.precision == "float64":
        model.double()
    if config.caption is not None:
        model.vocabulary.encode(config.caption)
    asked(model.vocabulary, config.method, config.why, config.against)
    name = "bundled" if config.model is None else str(config.model)
    reporter.note(f"Model: {name}; method: {config.method}; device: {device}")
    pictures: list[ExplainedPicture] = []
    failures: list[Failure] = []
    with reporter.track("Explaining", len(config.images)) as advance:
        for image, folder in zip(config.images, picture_folders(config.images, config.out), strict=True):
            try:
                pictures.append(_explain_one(model, image, folder, config, options))
            except CapxaiError as error:
                failures.append(failure_of(image, error))
            advance(1)
    note = str(model.lineage.get("domain_note", ""))
    return ExplainReport(name, config.method, str(device), tuple(pictures), tuple(failures), note)


def picture_folders(images: tuple[Path, ...], out: Path) -> list[Path]:
    """Return a folder for each picture: ``out/<stem>``, and ``<stem>-2``, ``<stem>-3`` where a stem is taken."""
    taken: set[str] = set()
    folders = []
    for image in images:
        stem, number = image.stem or "image", 1
        name = stem
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        folders.append(out / name)
    return folders


def _head(text: str) -> int | None:
    """Return the number of a head, or None for all of them."""
    if text == "all":
        return None
    if not text.isdecimal():
        raise ConfigError(
            f"The head '{text}' was asked for. Expected 'all' or the number of a head, from 0. Use --head all."
        )
    return int(text)


def _explain_one(
    model: Captioner, image: Path, folder: Path, config: ExplainConfig, options: Options
) -> ExplainedPicture:
    from capxai.explain.explainer import explain
    from capxai.explain.files import describe

    _refuse_occupied(folder, config.force)
    explanation = explain(
        model, image, config.method, config.caption,
        beam=config.beam, options=options, why=config.why, against=config.against,
    )  # fmt: skip
    explanation.save(folder, scale=config.scale, force=config.force)
    write_record(folder, "explain", config, image=str(image), device=str(model.device))
    return ExplainedPicture(str(image), folder, describe(explanation, config.scale))


def _refuse_occupied(folder: Path, force: bool) -> None:
    """Refuse a taken folder before the work rather than after it.

    Raises:
        CapxaiError: There is an explanation already.
    """
    from capxai.explain.files import FILES

    if not force and any((folder / name).exists() for name in FILES):
        raise CapxaiError(
            f"{folder} already holds an explanation, and it was kept. Expected a folder without one. "
            "Replace it with --force, or choose another folder with --out."
        )
