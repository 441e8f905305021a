"""Tables of the objects that the references of a corpus name, and of their boxes, for counterfactual fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from capxai.data.corpus import Split
from capxai.data.feature_store import FeatureStore
from capxai.data.vocabulary import Vocabulary, tokenize
from capxai.errors import CorpusError
from capxai.evaluate.lexicon import Lexicon
from capxai.finetune.boxes import ObjectBoxes, RegionsOf, grid_regions
from capxai.finetune.mentions import ObjectMentions
from capxai.recipes.training_data import Examples
from capxai.train.examples import References
from capxai.types import Reporter

Numbers = NDArray[np.int64]


def read_mentions(
    examples: Examples, vocabulary: Vocabulary, lexicon: Lexicon, reporter: Reporter, only: ObjectBoxes | None = None
) -> ObjectMentions:
    """Find where the references name objects. A text that occurs several times is looked at once.

    Args:
        examples: The training split.
        vocabulary: Of the model.
        lexicon: Which words name what.
        reporter: Where progress is shown.
        only: Leave out mentions of objects that have no box in their picture; None keeps all.

    Raises:
        CorpusError: No reference names an object, or the references are not those of the split.
    """
    references, split = examples.references, examples.split
    texts = [text for picture in split.pictures for text in split.captions[picture.id]]
    if len(texts) != len(references.offsets) - 1:
        raise CorpusError(
            f"The split '{split.name}' has {len(texts)} captions, and {len(references.offsets) - 1} encoded ones. Expected as many. Make "
            "the corpus again with 'capxai prepare'."
        )
    captions, positions, categories = _mentions(texts, references, lexicon, reporter)
    if only is not None:
        kept = _boxed(captions, categories, references, only)
        captions, positions, categories = captions[kept], positions[kept], categories[kept]
    if not len(captions):
        raise CorpusError(_nothing_named(len(texts), split, lexicon, only is not None))
    begins = np.zeros(len(references.words), dtype=np.int16)
    places = references.offsets.numpy()[captions] + positions
    begins[places] = categories
    forms = torch.zeros(len(lexicon.categories) + 1, len(vocabulary), dtype=torch.bool)
    forms[torch.from_numpy(categories), references.words[torch.from_numpy(places)].long()] = True
    forms[:, list(vocabulary.specials)] = False
    table = replace(references, words=torch.from_numpy(begins), end=0, pad=0)
    return ObjectMentions(references, table, forms)


def _nothing_named(texts: int, split: Split, lexicon: Lexicon, boxed: bool) -> str:
    there = " that has a box in its picture" if boxed else ""
    return (
        f"None of the {texts} references of the split '{split.name}' names an object{there}. Expected captions that name objects of the "
        f"lexicon ({', '.join(lexicon.categories[:3])}, ...). Name the lexicon of the corpus with --set lexicon=FILE, or choose another "
        "objective, as lrp."
    )


def _mentions(
    texts: Sequence[str], references: References, lexicon: Lexicon, reporter: Reporter
) -> tuple[Numbers, Numbers, Numbers]:
    """Return the caption, the position in it and the category (from 1) of every mention."""
    numbers: dict[str, int] = {}
    which = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), dtype=np.int64, count=len(texts))
    place = {category: number for number, category in enumerate(lexicon.categories, start=1)}
    found: list[tuple[int, int]] = []
    counts, lengths = np.zeros(len(numbers), dtype=np.int64), np.zeros(len(numbers), dtype=np.int64)
    with reporter.track("Finding objects in captions", len(numbers)) as advance:
        for text, number in numbers.items():
            mentions = lexicon.mentions(text)
            found += [(mention.position, place[mention.category]) for mention in mentions]
            counts[number], lengths[number] = len(mentions), len(tokenize(text))
            advance(1)
    # Captions that were split into other words than ours, by whoever prepared them, have other positions.
    same = lengths[which] == references.offsets.diff().numpy()
    if not same.all():
        reporter.warn(
            f"{int((~same).sum())} of {len(texts)} references are split into other words, and left as they are."
        )
    times = np.where(same, counts[which], 0)
    starts = np.cumsum(counts) - counts
    within = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    table = np.array(found, dtype=np.int64).reshape(-1, 2)[np.repeat(starts[which], times) + within]
    return np.repeat(np.arange(len(texts)), times), table[:, 0], table[:, 1]


def _boxed(captions: Numbers, categories: Numbers, references: References, boxes: ObjectBoxes) -> NDArray[np.bool_]:
    """Tell of which mentions the object has a box in the picture."""
    kinds = int(max(categories.max(initial=0), boxes.categories.numpy().max(initial=0))) + 1
    pictures = np.repeat(np.arange(len(references)), references.counts.numpy())[captions]
    owners = np.repeat(np.arange(len(references)), boxes.first.diff().numpy())
    return np.isin(pictures * kinds + categories, owners * kinds + boxes.categories.numpy())


def read_boxes(split: Split, lexicon: Lexicon) -> ObjectBoxes:
    """Collect the boxes of the objects of a split that the lexicon knows.

    Raises:
        CorpusError: The split has no objects.
    """
    place = {category: number for number, category in enumerate(lexicon.categories, start=1)}
    number_of = {name: place.get(lexicon.category(name) or "", 0) for name in set(split.categories.values())}
    boxes: list[tuple[float, ...]] = []
    categories: list[int] = []
    first = [0]
    for picture in split.pictures:
        for item in split.objects[picture.id]:
            if number_of[item.category]:
                x, y, width, height = item.bbox
                sides = (x / picture.width, y / picture.height)
                boxes.append((*sides, sides[0] + width / picture.width, sides[1] + height / picture.height))
                categories.append(number_of[item.category])
        first.append(len(boxes))
    if not boxes:
        raise CorpusError(
            f"The split '{split.name}' has no boxes of objects that the lexicon knows. Expected an instance file in the corpus: this "
            "objective hides true boxes. Add the instances, or choose lrp-counterfactual, which needs none."
        )
    return ObjectBoxes(torch.tensor(first), torch.tensor(boxes, dtype=torch.float32), torch.tensor(categories))


def regions_of_grid(regions: int, grid: tuple[int, int] | None) -> RegionsOf:
    """Return where the cells of a grid are, which is the same in every picture.

    Args:
        regions: K.
        grid: Rows and columns; None for a square.
    """
    rows, columns = grid or (round(regions**0.5),) * 2
    cells = grid_regions(rows, columns)
    return lambda pictures: cells.expand(len(pictures), -1, -1)


def regions_of_store(store: FeatureStore, image_ids: Sequence[int]) -> RegionsOf:
    """Return the boxes of stored regions, in shares of the picture."""
    places = store.rows_of(image_ids)

    def regions_of(pictures: torch.Tensor) -> torch.Tensor:
        rows = places[pictures.numpy()]
        boxes = store.boxes(rows)
        assert boxes is not None
        sizes = torch.from_numpy(store.sizes[rows].astype(np.float32))  # height, width
        return torch.from_numpy(boxes) / sizes[:, [1, 0, 1, 0]][:, None]

    return regions_of
