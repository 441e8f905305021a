"""Which words name which COCO category, and where a caption mentions one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from capxai.data.vocabulary import tokenize
from capxai.errors import ConfigError

NO_OBJECT = ""
"""The "category" of a phrase that names no object although a word of it would, as "toilet seat" is no chair."""

COCO_NAMES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant",
    "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe",
    "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat",
    "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl",
    "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave",
    "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 categories of COCO 2017, in the order of their ids."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "person": ("man", "woman", "boy", "girl", "child", "kid", "people", "guy", "lady", "player", "skier", "surfer"),
    "bicycle": ("bike",),
    "motorcycle": ("motorbike",),
    "airplane": ("plane", "jet", "aircraft"),
    "car": ("automobile",),
    "boat": ("sailboat", "ship"),
    "traffic light": ("stoplight", "traffic signal"),
    "sports ball": ("ball", "tennis ball", "soccer ball", "baseball", "basketball"),
    "tennis racket": ("racket", "racquet", "tennis racquet"),
    "cup": ("mug",),
    "laptop": ("laptop computer",),
    "mouse": ("computer mouse",),
    "couch": ("sofa",),
    "dining table": ("table",),
    "tv": ("television",),
    "cell phone": ("cellphone", "phone"),
    "refrigerator": ("fridge",),
    "donut": ("doughnut",),
    "bird": ("seagull", "duck", "parrot"),
    "clock": ("clock tower",),
    "dog": ("puppy",),
    "cat": ("kitten",),
    "cow": ("calf", "bull"),
    "sheep": ("lamb",),
    NO_OBJECT: ("toilet seat", "car seat", "mouse pad", "baseball cap", "train station", "bus stop", "bird house"),
}
"""Further words, in the singular, by category."""

IRREGULAR_PLURALS: dict[str, str] = {
    "person": "persons",
    "man": "men",
    "woman": "women",
    "child": "children",
    "people": "people",
    "knife": "knives",
    "mouse": "mice",
    "sheep": "sheep",
    "calf": "calves",
    "aircraft": "aircraft",
    "skis": "skis",
    "scissors": "scissors",
    "broccoli": "broccoli",
}
"""Plurals that `plural` would get wrong; the released code of CHAIR and of the paper stripped endings and lost such words."""


class Mention(NamedTuple):
    """A place of a caption that names an object: ``length`` words from ``position`` (from 0) on."""

    position: int
    category: str
    length: int


def plural(name: str) -> str:
    """Return the plural of an English noun; of several words the last one changes."""
    *before, last = name.split()
    if last in IRREGULAR_PLURALS:
        last = IRREGULAR_PLURALS[last]
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join([*before, last])


class Lexicon:
    """A table from surface forms, singular and plural, to categories.

    Attributes:
        categories: The categories that can be mentioned, in the order of the table.
    """

    def __init__(self, forms: Mapping[str, Iterable[str]]) -> None:
        """Take the table over.

        Args:
            forms: Of each category, its words in the singular; the plurals are added.

        Raises:
            ConfigError: A form belongs to two categories.
        """
        self.categories = tuple(category for category in forms if category != NO_OBJECT)
        self._forms: dict[tuple[str, ...], str] = {}
        for category, names in forms.items():
            for name in names:
                self._add(name, category)
        self._longest = max(map(len, self._forms), default=1)

    def _add(self, name: str, category: str) -> None:
        for form in {name, plural(name)}:
            words = tuple(tokenize(form))
            known = self._forms.setdefault(words, category)
            if known != category:
                raise ConfigError(
                    f"The lexicon gives '{form}' to '{known}' and to '{category}'. Expected one category for each form. "
                    "Take it from one of them."
                )

    def mentions(self, caption: str) -> list[Mention]:
        """Find the objects that a caption names, from left to right, the longest form first; a word counts once.

        "a hot dog near traffic lights" mentions a hot dog (no dog) and a traffic light.
        """
        words = tokenize(caption)
        found: list[Mention] = []
        position = 0
        while position < len(words):
            length, category = self._match(words, position)
            if category:
                found.append(Mention(position, category, length))
            position += length
        return found

    def _match(self, words: list[str], position: int) -> tuple[int, str]:
        """Return the length of the longest form at a position and its category; (1, NO_OBJECT) where there is none."""
        for length in range(min(self._longest, len(words) - position), 0, -1):
            category = self._forms.get(tuple(words[position : position + length]))
            if category is not None:
                return length, category
        return 1, NO_OBJECT


def coco_lexicon() -> Lexicon:
    """Return the lexicon of the 80 COCO categories; every category is named by its own name and by `SYNONYMS`."""
    forms = {name: (name, *SYNONYMS.get(name, ())) for name in COCO_NAMES}
    return Lexicon({**forms, NO_OBJECT: SYNONYMS[NO_OBJECT]})
