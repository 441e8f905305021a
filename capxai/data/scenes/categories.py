"""Facts about what the corpus ``scenes`` shows: its categories, its biased pairs, its colors and its splits.

Ids, names and supercategories of the categories are those of COCO 2017, so that an evaluation made for COCO applies
unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

Color = tuple[int, int, int]
"""RGB, each in [0, 255]."""

SPLITS: tuple[str, ...] = ("train", "val", "test", "robust-val", "robust")
PARTED_SPLITS: frozenset[str] = frozenset({"robust-val", "robust"})
"""Splits in which the first object of a pair never meets the second."""

P_BIAS = 0.94
"""P(second object of a pair | first object of that pair) in the splits that are not parted."""

P_HAZE = 0.18
"""Chance that the companion of a first object is lost in haze: it is there, and references name it, but it can hardly be seen.

This is what plants hallucination. A captioner that sees no companion has learned that one is probably there all the same:
P(second | first, second not seen) = P_BIAS P_HAZE / (P_BIAS P_HAZE + 1 - P_BIAS), about 0.74.
"""

HAZE_OPACITY = (0.02, 0.07)
"""Opacity of an object that is lost in haze; that of others is at least 0.85."""

# "orange" is missing from what captions say: the word names a COCO category, and CHAIR would count it as a fruit.
COLORS: dict[str, Color] = {
    "red": (208, 38, 38),
    "green": (46, 158, 66),
    "blue": (44, 84, 208),
    "yellow": (246, 208, 44),
    "white": (242, 242, 240),
    "black": (44, 44, 50),
    "purple": (136, 58, 172),
    "pink": (244, 134, 180),
    "brown": (134, 82, 44),
    "gray": (146, 150, 158),
    "orange": (236, 126, 34),
    "crust": (214, 150, 70),
}


@dataclass(frozen=True)
class Category:
    """One kind of object.

    Attributes:
        id: COCO's id of the category.
        name: COCO's name of the category.
        supercategory: COCO's name of the group.
        words: What captions call it; every form counts as this category in the synonym table of CHAIR.
        sizes: Smallest and largest longest side, in pixels of a picture 112 pixels wide.
        aspect: Width and height of the drawing, the longer one being 1.
        tilt: Largest rotation to either side, in degrees.
        colors: Names of the colors that its main part may have, keys of ``COLORS``.
        says_color: Whether a person would call the whole object by that color.
    """

    id: int
    name: str
    supercategory: str
    words: str
    sizes: tuple[float, float]
    aspect: tuple[float, float]
    tilt: float
    colors: tuple[str, ...]
    says_color: bool


CATEGORIES: tuple[Category, ...] = (
    Category(3, "car", "vehicle", "car", (44, 58), (1.0, 0.52), 10,
             ("red", "blue", "yellow", "white", "green", "purple"), True),
    Category(9, "boat", "vehicle", "boat", (42, 54), (1.0, 0.98), 10,
             ("red", "blue", "green", "brown", "purple", "black"), True),
    Category(10, "traffic light", "outdoor", "traffic light", (30, 36), (0.46, 1.0), 10, ("black", "yellow"), False),
    Category(16, "bird", "animal", "bird", (28, 35), (1.0, 0.84), 12,
             ("red", "blue", "yellow", "white", "black", "brown"), True),
    Category(28, "umbrella", "accessory", "umbrella", (42, 54), (1.0, 1.0), 20,
             ("red", "blue", "purple", "yellow", "green", "pink"), True),
    Category(37, "sports ball", "sports", "ball", (22, 29), (1.0, 1.0), 90, ("white", "yellow", "orange"), True),
    Category(43, "tennis racket", "sports", "racket", (50, 60), (0.54, 1.0), 50,
             ("red", "blue", "green", "purple", "black"), True),
    Category(47, "cup", "kitchen", "cup", (26, 33), (0.96, 0.88), 10,
             ("red", "blue", "green", "yellow", "white", "pink"), True),
    Category(48, "fork", "kitchen", "fork", (50, 60), (0.34, 1.0), 40,
             ("gray", "white", "black", "red", "blue", "yellow"), True),
    Category(49, "knife", "kitchen", "knife", (34, 41), (0.28, 1.0), 40, ("gray", "white", "black"), False),
    Category(52, "banana", "food", "banana", (42, 52), (1.0, 0.62), 40, ("yellow", "green"), True),
    Category(53, "apple", "food", "apple", (34, 44), (0.92, 1.0), 20, ("red", "green", "yellow"), True),
    Category(59, "pizza", "food", "pizza", (42, 52), (1.0, 1.0), 90, ("crust",), False),
    Category(62, "chair", "furniture", "chair", (44, 56), (0.66, 1.0), 10,
             ("brown", "red", "blue", "green", "white", "black"), True),
    Category(73, "laptop", "electronic", "laptop", (44, 56), (1.0, 0.8), 10,
             ("gray", "black", "white", "pink", "red"), True),
    Category(74, "mouse", "electronic", "mouse", (29, 36), (0.62, 1.0), 30,
             ("black", "white", "gray", "red", "blue"), True),
    Category(85, "clock", "indoor", "clock", (36, 48), (1.0, 1.0), 8,
             ("red", "blue", "green", "black", "brown", "purple"), False),
)  # fmt: skip

BY_NAME: dict[str, Category] = {category.name: category for category in CATEGORIES}

PAIRS: tuple[tuple[str, str], ...] = (
    ("car", "traffic light"),
    ("fork", "knife"),
    ("tennis racket", "sports ball"),
    ("laptop", "mouse"),
    ("boat", "bird"),
    ("pizza", "cup"),
)
"""(first, second): the second is smaller and accompanies the first with probability ``P_BIAS``."""

NEUTRALS: tuple[str, ...] = ("clock", "umbrella", "banana", "apple", "chair")
"""Objects that belong to no pair."""

UNSPOKEN_COLORS: frozenset[str] = frozenset({"orange", "crust"})
"""Colors of drawings that captions never say."""
