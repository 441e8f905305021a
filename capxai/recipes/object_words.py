"""Words of captions that name an object of the picture, and where that object is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from capxai.data.annotations import ObjectAnnotation, Picture
from capxai.data.corpus import Split
from capxai.errors import CorpusError
from capxai.evaluate.correctness import box_area, resize_nearest
from capxai.evaluate.lexicon import Lexicon, coco_lexicon


@dataclass(frozen=True)
class ObjectWord:
    """A word of a caption that names an object of the picture.

    Attributes:
        image_id: The picture.
        caption: The caption.
        position: Place of the word in the caption, from 0. Of a name of several words it is the last one, with which the name is whole:
            "traffic" alone could still become a traffic jam.
        word: The word.
        category: The category that it names.
    """

    image_id: int
    caption: str
    position: int
    word: str
    category: str


class ObjectArea(NamedTuple):
    """Where the objects of a category are on the model's input, (S, S) bool each: their visible parts, and their boxes."""

    mask: NDArray[np.bool_]
    boxes: NDArray[np.bool_]


def seen_categories(split: Split, picture: Picture, lexicon: Lexicon | None = None) -> frozenset[str]:
    """Return the categories of which a picture has an instance, as the lexicon names them.

    Being named in a reference is not enough: without an instance nobody knows where the object is.
    """
    return frozenset(_instances(split, picture, lexicon))


def object_area(
    split: Split, picture: Picture, category: str, size: int, lexicon: Lexicon | None = None
) -> ObjectArea | None:
    """Draw all objects of a category at the model's size; None where they vanish in resizing.

    Raises:
        CorpusError: The picture has no object of the category, or a mask is missing or damaged.
    """
    objects = _instances(split, picture, lexicon).get(category)
    if not objects:
        raise CorpusError(
            f"Picture {picture.id} has no instance of '{category}'. Expected at least one. Ask for a category that is there."
        )
    mask = np.logical_or.reduce([split.mask(item) for item in objects])  # (H, W)
    boxes = box_area([item.bbox for item in objects], picture.height, picture.width)
    area = ObjectArea(resize_nearest(mask, size, size), resize_nearest(boxes, size, size))
    return area if area.mask.any() and area.boxes.any() else None


def _instances(split: Split, picture: Picture, lexicon: Lexicon | None) -> dict[str, list[ObjectAnnotation]]:
    """Sort the instances of a picture by category; those that the lexicon cannot name are left out."""
    names = lexicon or coco_lexicon()
    found: dict[str, list[ObjectAnnotation]] = {}
    for item in split.objects[picture.id]:
        if category := names.category(item.category):
            found.setdefault(category, []).append(item)
    return found
