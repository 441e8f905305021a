"""Which hallucinated words a page shows, the true word that each is compared with, and their explanations.

Axes: H x W pixels of the model's picture, h x w cells of a heatmap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from capxai.data.annotations import ObjectAnnotation, Picture
from capxai.data.picture_blocks import picture_blocks
from capxai.errors import ImageError
from capxai.explain.attribution import Readings, record
from capxai.explain.colors import resized, smoothed
from capxai.explain.methods import Maps, encoder_composite
from capxai.lrp.propagation import Ledger
from capxai.recipes.analysis.experiment import Experiment
from capxai.recipes.analysis.hallucination_statistics import NameWord
from capxai.recipes.analysis.stream import Look, Looking, padded
from capxai.recipes.interruption import interruption
from capxai.types import FloatArray, JsonObject

METHOD = "lrp"
HEAT_SIDE = 56
"""Longest side of a heatmap, in cells: 112 and 224 pixels are multiples of it."""

Key = tuple[int, int]
"""Image id and position: names a word."""

Boxes = Mapping[str, Sequence[tuple[float, float, float, float]]]
"""By category: left, top, right and bottom of every object, as shares of the picture's width and height."""


@dataclass(frozen=True)
class ObjectMention:
    """An object word of a caption, as the records of the analysis have it.

    Attributes:
        image_id: The picture.
        caption: What the model says about it.
        position: Place of the word that is explained, from 0: the first or the last of the name.
        last: Place of the last word of the name.
        word: The name as it stands there.
        category: The category that it names.
        present: Whether the picture has one.
        probability: Of the word at ``position``, where the records have it.
    """

    image_id: int
    caption: str
    position: int
    last: int
    word: str
    category: str
    present: bool
    probability: float | None = None

    @property
    def key(self) -> Key:
        """What names it."""
        return self.image_id, self.position

    @cached_property
    def before(self) -> frozenset[str]:
        """The words that precede it."""
        return frozenset(self.caption.split()[: self.position])


@dataclass(frozen=True)
class Case:
    """A hallucinated word, and the same object where it was named rightly.

    Attributes:
        word: The hallucinated word.
        twin: The true one, or None where no caption names such an object rightly.
    """

    word: ObjectMention
    twin: ObjectMention | None


@dataclass(frozen=True)
class ExplainedWord:
    """Why the model said a word, by layer-wise relevance. All relevance in logit units.

    Attributes:
        probability: In [0, 1].
        logit: What the parts add up to.
        inputs: (position + 1,) relevance of ``<start>`` and of every preceding word.
        parts: Sums over picture and words, and what biases, eps and other heads keep.
        heat: (h, w) mean relevance of the pixels of each cell.
        lies_on: By category of the picture's objects: the share of positive relevance inside their boxes, and the share of the picture
            that the boxes cover; both in [0, 1].
    """

    probability: float
    logit: float
    inputs: tuple[float, ...]
    parts: Mapping[str, float]
    heat: FloatArray
    lies_on: Mapping[str, tuple[float, float]]


def choose_cases(mentions: Sequence[ObjectMention], most: int) -> tuple[list[Case], int]:
    """Choose the hallucinated words that the model was surest of, and find each a true word to compare with.

    Args:
        mentions: All object words.
        most: Most cases.

    Returns:
        The cases, most probable first (where probabilities are equal or unknown in the order given), and how many were left out.
    """
    false = sorted((one for one in mentions if not one.present), key=lambda one: -(one.probability or 0.0))
    true: dict[str, list[ObjectMention]] = {}
    for one in mentions:
        if one.present:
            true.setdefault(one.category, []).append(one)
    cases = [Case(one, most_comparable(one, true.get(one.category, ()))) for one in false[:most]]
    return cases, len(false) - len(cases)


def most_comparable(word: ObjectMention, candidates: Iterable[ObjectMention]) -> ObjectMention | None:
    """Return the word that was said after the most similar words; None if there is no candidate.

    Similar are sets of preceding words A and B by 2 |A and B| / (|A| + |B|) (Dice 1945); then the nearer place counts, then the order.
    """
    own = word.before

    def likeness(other: ObjectMention) -> tuple[float, int]:
        theirs = other.before
        size = len(own) + len(theirs)
        return (2 * len(own & theirs) / size if size else 1.0), -abs(word.position - other.position)

    return max(candidates, key=likeness, default=None)


def explain_mentions(experiment: Experiment, mentions: Iterable[ObjectMention]) -> dict[Key, ExplainedWord]:
    """Explain words in the captions of the records, a batch of pictures at a time; the same in every process.

    Raises:
        ImageError: A picture cannot be read any more.
        KeyboardInterrupt: The run was interrupted between two batches.
    """
    wanted: dict[int, dict[Key, ObjectMention]] = {}
    for one in mentions:
        wanted.setdefault(one.image_id, {})[one.key] = one
    pictures = [picture for picture in experiment.pictures if picture.id in wanted]
    size = Looking(experiment.model, 1, (), experiment.options).batch_size(experiment.config.batch_size)
    blocks = [(start, pictures[start : start + size]) for start in range(0, len(pictures), size)]
    group, own = experiment.group, dict[Key, ExplainedWord]()
    mine = blocks[group.rank :: group.world]
    total = sum(len(block) for _, block in mine)
    with experiment.reporter.track("Explaining for the page", total) as advance, interruption() as wish:
        for look in _looks(experiment, mine, wanted):
            chosen = [one for picture in look.pictures for one in wanted[picture.id].values()]
            own |= _explained(experiment, look, chosen)
            advance(len(look.pictures))
            wish.check()
    return {key: found for share in group.gather(own) for key, found in share.items()}


def _looks(
    experiment: Experiment,
    blocks: Sequence[tuple[int, list[Picture]]],
    wanted: Mapping[int, Mapping[Key, ObjectMention]],
) -> Iterator[Look]:
    """Let the model look at pictures again and read its own captions of them."""
    model = experiment.model
    paths = [(number, [picture.path for picture in pictures]) for number, pictures in blocks]
    arriving = picture_blocks(paths, model.preprocessing.resize, experiment.config.workers)
    for (_, pictures), block in zip(blocks, arriving, strict=True):
        if block.unreadable:
            raise ImageError("\n".join(message for _, message in block.unreadable))
        assert isinstance(block.images, torch.Tensor)
        captions = [next(iter(wanted[picture.id].values())).caption for picture in pictures]
        composite = encoder_composite(METHOD, model, experiment.options)
        with torch.no_grad():
            images = model.preprocessing.normalize(block.images.to(model.device)).to(model.dtype)
            tape = None if composite is None or model.encoder is None else record(model, images, composite)
            features = model.features(images) if tape is None else tape.features.detach()
        tokens = padded([_token_ids(experiment, text) for text in captions], model)
        yield Look(tuple(pictures), tuple(captions), Readings(model, images, features, *tokens, tape))


def _token_ids(experiment: Experiment, caption: str) -> list[int]:
    """Turn a caption that the model wrote back into its words."""
    vocabulary = experiment.model.vocabulary
    found = [vocabulary.id_of(word) for word in caption.split()]
    known = [number for number in found if number is not None]
    return known if len(known) == len(found) else vocabulary.encode(caption)


def _explained(experiment: Experiment, look: Look, mentions: Sequence[ObjectMention]) -> dict[Key, ExplainedWord]:
    places = {picture.id: row for row, picture in enumerate(look.pictures)}
    words = look.words([places[one.image_id] for one in mentions], [one.position for one in mentions])
    ((_, maps),) = look.maps(words, (METHOD,), experiment.options)
    logits = look.facts.logits[words.rows, words.places]  # (W, V)
    each = torch.arange(len(words), device=logits.device)
    numbers = zip(
        torch.softmax(logits, 1)[each, words.tokens].tolist(), logits[each, words.tokens].tolist(), strict=True
    )
    found = {}
    for place, (one, (probability, logit)) in enumerate(zip(mentions, numbers, strict=True)):
        picture = look.pictures[places[one.image_id]]
        found[one.key] = _word(maps, place, one.position, (probability, logit), _boxes(experiment, picture))
    return found


def _word(maps: Maps, place: int, position: int, numbers: tuple[float, float], boxes: Boxes) -> ExplainedWord:
    assert maps.pixels is not None and maps.words is not None and maps.kept is not None
    pixels = maps.pixels[place].detach().to("cpu", torch.float32).numpy()
    kept = dict(zip(Ledger.COLUMNS, maps.kept[place].tolist(), strict=True))
    inputs = maps.words[place, : position + 1].tolist()
    parts = {"picture": float(pixels.sum(dtype=np.float64)), "words": sum(inputs), **kept}
    if not parts.get("other heads"):
        parts.pop("other heads", None)
    return ExplainedWord(numbers[0], numbers[1], tuple(inputs), parts, heat_of(pixels), shares_in(pixels, boxes))


def heat_of(pixels: FloatArray) -> FloatArray:
    """Shrink relevance (H, W) to at most `HEAT_SIDE` cells a side, each about the mean of its pixels, after the blur of all heatmaps."""
    shrink = min(1.0, HEAT_SIDE / max(pixels.shape))
    size = max(1, round(pixels.shape[0] * shrink)), max(1, round(pixels.shape[1] * shrink))
    blurred = smoothed(pixels[None])[0]
    return blurred if size == pixels.shape else resized(blurred, size)


def _boxes(experiment: Experiment, picture: Picture) -> Boxes:
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    for item in experiment.split.objects[picture.id]:
        category = experiment.lexicon.category(item.category)
        if category is not None:
            found.setdefault(category, []).append(_box(item, picture))
    return found


def _box(item: ObjectAnnotation, picture: Picture) -> tuple[float, float, float, float]:
    left, top, width, height = item.bbox
    return (
        left / picture.width,
        top / picture.height,
        (left + width) / picture.width,
        (top + height) / picture.height,
    )


def shares_in(pixels: FloatArray, boxes: Boxes) -> dict[str, tuple[float, float]]:
    """Measure how much of the positive relevance lies inside the boxes of each category, the most first.

    Args:
        pixels: (H, W) relevance. A pixel is inside a box if its center is.
        boxes: Of each category; they may overlap.

    Returns:
        By category: the share of positive relevance, and the share of the picture that the boxes cover.
    """
    positive = np.clip(pixels, 0, None).astype(np.float64)
    total = positive.sum()
    rows = (np.arange(pixels.shape[0])[:, None] + 0.5) / pixels.shape[0]
    columns = (np.arange(pixels.shape[1])[None] + 0.5) / pixels.shape[1]
    found = {}
    for category, some in boxes.items():
        inside = np.zeros(pixels.shape, dtype=bool)
        for left, top, right, bottom in some:
            inside |= (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        found[category] = (float(positive[inside].sum() / total) if total > 0 else 0.0, float(inside.mean()))
    return dict(sorted(found.items(), key=lambda item: (-item[1][0], item[0])))


def mentions_in(records: Iterable[JsonObject], name_word: NameWord = "first") -> list[ObjectMention]:
    """Read the object words of all captions from the records of the analysis, picture by picture.

    Args:
        records: Each with ``image_id``, ``caption`` and, where the caption names objects, ``mentions``.
        name_word: The word of a name that is explained, where the name has several.
    """
    return [
        ObjectMention(
            record["image_id"],
            record["caption"],
            mention["position" if name_word == "first" else "last"],
            mention["last"],
            mention["word"],
            mention["category"],
            mention["present"],
            mention["statistics"].get("probability"),
        )
        for record in records
        for mention in record.get("mentions", ())
    ]
