"""What a picture shows and where: everything random about a picture but its texture, its noise and its captions.

The planted bias is here. A picture holds at most one first object of a pair. Where the biased splits add its second
object, the parted splits add the second object of another pair: the number of objects, and how often each kind appears,
stay the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from capxai.data.scenes.backgrounds import BACKGROUNDS, REFERENCE_SIZE, Background
from capxai.data.scenes.categories import (
    BY_NAME,
    COLORS,
    HAZE_OPACITY,
    NEUTRALS,
    P_BIAS,
    P_HAZE,
    PAIRS,
    PARTED_SPLITS,
    SPLITS,
    Category,
    Color,
)
from capxai.data.scenes.contrast import color_distance
from capxai.errors import CorpusError, unknown_choice

P_FIRST = 0.8
"""Share of pictures with the first object of a pair."""
P_NEUTRAL = 0.65
"""Chance that a further object belongs to no pair; otherwise it is the second object of a pair, without its first."""
EXTRAS_WITH_PARTNER = (0.5, 0.5, 0.0)
EXTRAS_ALONE = (0.4, 0.45, 0.15)
COUNT_WITHOUT_FIRST = (0.0, 0.25, 0.5, 0.25)
P_OVERLAP = 0.27
P_CUT = 0.08
MINIMUM_CONTRAST = 30.0
"""Least color difference (CIE 1976) between an object's main color and its background's."""
GAP = 2.0

# A part as large as the main one that does not follow the main color must stand out too.
FIXED_PARTS: dict[str, tuple[str, ...]] = {"boat": ("white",)}


@dataclass(frozen=True)
class Placement:
    """One object to draw; lengths in pixels of a picture 112 pixels wide, angle in radians, clockwise."""

    category: Category
    color_word: str
    color: Color
    x: float
    y: float
    size: float
    angle: float
    mirrored: bool
    variant: float
    opacity: float

    def half_extent(self) -> tuple[float, float]:
        """Return half the width and half the height of the upright box around the rotated object."""
        cosine, sine = abs(math.cos(self.angle)), abs(math.sin(self.angle))
        width, height = self.category.aspect
        return self.size / 2 * (width * cosine + height * sine), self.size / 2 * (width * sine + height * cosine)


@dataclass(frozen=True)
class Layout:
    """What a picture shows.

    Attributes:
        background: The kind of background.
        color: Its base color.
        placements: The objects, none overlapping another, in the order in which they are drawn.
        overlapping: The last object once more, at a place where it covers part of another one, where that is wanted.
    """

    background: Background
    color: Color
    placements: tuple[Placement, ...]
    overlapping: Placement | None


def picture_generator(seed: int, split: str, index: int, stream: int) -> np.random.Generator:
    """Make the generator of one picture, which depends on nothing that was drawn before.

    Raises:
        CorpusError: The split is unknown, or the seed or the index is negative.
    """
    if split not in SPLITS:
        raise CorpusError(unknown_choice("split", split, SPLITS))
    if seed < 0 or index < 0:
        raise CorpusError(f"Seed {seed} and index {index} were given; both must be 0 or more. Choose other numbers.")
    return np.random.default_rng([seed, SPLITS.index(split), index, stream])


def _pick(generator: np.random.Generator, names: list[str]) -> str:
    return names[int(generator.integers(len(names)))]


def sample_objects(generator: np.random.Generator, parted: bool) -> tuple[list[str], str | None]:
    """Choose the one to three categories of a picture, without repetition.

    Args:
        generator: Source of randomness.
        parted: Whether the first object of a pair must never meet its second.

    Returns:
        The categories, and the one that is lost in haze, if any.
    """
    chosen: list[str] = []
    hazy: str | None = None
    seconds = [second for _, second in PAIRS]
    if generator.random() < P_FIRST:
        first, partner = PAIRS[int(generator.integers(len(PAIRS)))]
        chosen.append(first)
        seconds.remove(partner)
        accompanied = generator.random() < P_BIAS
        if accompanied:
            chosen.append(_pick(generator, seconds) if parted else partner)
            hazy = chosen[1] if generator.random() < P_HAZE else None
        count = len(chosen) + int(generator.choice(3, p=EXTRAS_WITH_PARTNER if accompanied else EXTRAS_ALONE))
    else:
        count = int(generator.choice(4, p=COUNT_WITHOUT_FIRST))
    while len(chosen) < count:
        pool = list(NEUTRALS) if generator.random() < P_NEUTRAL else seconds
        chosen.append(_pick(generator, [name for name in pool if name not in chosen]))
    return chosen, hazy


def _visible_colors(category: Category, background: Color) -> list[str]:
    if any(color_distance(COLORS[part], background) < MINIMUM_CONTRAST for part in FIXED_PARTS.get(category.name, ())):
        return []
    return [word for word in category.colors if color_distance(COLORS[word], background) >= MINIMUM_CONTRAST]


def _choose_background(generator: np.random.Generator, names: list[str]) -> tuple[Background, Color]:
    while True:
        background = BACKGROUNDS[int(generator.integers(len(BACKGROUNDS)))]
        color = background.colors[int(generator.integers(len(background.colors)))]
        if all(_visible_colors(BY_NAME[name], color) for name in names):
            return background, color


def _appearance(generator: np.random.Generator, category: Category, background: Color) -> Placement:
    word = _pick(generator, _visible_colors(category, background))
    red, green, blue = (int(value) for value in np.clip(np.array(COLORS[word]) + generator.integers(-6, 7, 3), 0, 255))
    tilt = math.radians(category.tilt)
    return Placement(
        category=category,
        color_word=word,
        color=(red, green, blue),
        x=0.0,
        y=0.0,
        size=float(generator.uniform(*category.sizes)),
        angle=float(generator.uniform(-tilt, tilt)),
        mirrored=bool(generator.random() < 0.5),
        variant=float(generator.random()),
        opacity=float(generator.uniform(0.85, 1.0)),
    )


def _free(candidate: Placement, others: list[Placement]) -> bool:
    width, height = candidate.half_extent()
    for other in others:
        other_width, other_height = other.half_extent()
        if (
            abs(candidate.x - other.x) < width + other_width + GAP
            and abs(candidate.y - other.y) < height + other_height + GAP
        ):
            return False
    return True


def _somewhere(generator: np.random.Generator, placement: Placement) -> Placement:
    width, height = placement.half_extent()
    x = float(generator.uniform(width + 1, REFERENCE_SIZE - width - 1))
    y = float(generator.uniform(height + 1, REFERENCE_SIZE - height - 1))
    if generator.random() < P_CUT:
        outside = float(generator.uniform(0.08, 0.2))
        near, across = bool(generator.random() < 0.5), bool(generator.random() < 0.5)
        extent = width if across else height
        edge = extent * (1 - 2 * outside) if near else REFERENCE_SIZE - extent * (1 - 2 * outside)
        x, y = (edge, y) if across else (x, edge)
    return replace(placement, x=x, y=y)


def _arrange(generator: np.random.Generator, placements: list[Placement]) -> tuple[Placement, ...]:
    # A wide object in the middle can leave no room: begin again, a little smaller.
    while True:
        arranged: list[Placement] = []
        for placement in placements:
            for _ in range(25):
                candidate = _somewhere(generator, placement)
                if _free(candidate, arranged):
                    arranged.append(candidate)
                    break
        if len(arranged) == len(placements):
            return tuple(arranged)
        placements = [replace(placement, size=0.97 * placement.size) for placement in placements]


def _overlap(generator: np.random.Generator, placements: tuple[Placement, ...]) -> Placement | None:
    """Move the last object onto the rim of another one, or return None where there is no room."""
    moved, others = placements[-1], list(placements[:-1])
    width, height = moved.half_extent()
    for _ in range(12):
        target = others[int(generator.integers(len(others)))]
        target_width, target_height = target.half_extent()
        depth, shift = generator.uniform(0.25, 0.5), generator.uniform(-0.5, 0.5)
        side = 1 if generator.random() < 0.5 else -1
        if generator.random() < 0.5:
            x = target.x + side * (target_width + width - 2 * depth * min(width, target_width))
            y = target.y + shift * target_height
        else:
            x = target.x + shift * target_width
            y = target.y + side * (target_height + height - 2 * depth * min(height, target_height))
        candidate = replace(moved, x=float(x), y=float(y))
        inside = width < x < REFERENCE_SIZE - width and height < y < REFERENCE_SIZE - height
        if inside and _free(candidate, [other for other in others if other is not target]):
            return candidate
    return None


def sample_layout(seed: int, split: str, index: int) -> Layout:
    """Sample the layout of one picture.

    Raises:
        CorpusError: The split is unknown, or the seed or the index is negative.
    """
    generator = picture_generator(seed, split, index, 0)
    names, hazy = sample_objects(generator, split in PARTED_SPLITS)
    background, color = _choose_background(generator, names)
    placements = [_appearance(generator, BY_NAME[name], color) for name in names]
    haze = float(generator.uniform(*HAZE_OPACITY))
    placements = [replace(one, opacity=haze) if one.category.name == hazy else one for one in placements]
    placements.sort(key=lambda placement: -placement.size)
    arranged = _arrange(generator, placements)
    wanted = len(arranged) > 1 and generator.random() < P_OVERLAP
    return Layout(background, color, arranged, _overlap(generator, arranged) if wanted else None)
