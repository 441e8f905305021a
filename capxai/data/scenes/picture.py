"""Renders one picture with its masks and captions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capxai.data.scenes.backgrounds import REFERENCE_SIZE, paint_background
from capxai.data.scenes.captions import Mention, write_captions
from capxai.data.scenes.categories import HAZE_OPACITY, UNSPOKEN_COLORS
from capxai.data.scenes.layout import Layout, Placement, picture_generator, sample_layout
from capxai.data.scenes.pen import OUTLINE_WIDTH, Pen, Pose
from capxai.data.scenes.small_drawings import DRAWINGS
from capxai.errors import CorpusError
from capxai.types import FloatArray, ImageArray

LEAST_VISIBLE = 2 / 3
"""Share of an object's pixels that must stay visible where objects overlap."""
NOISE = (4.0, 7.0)
"""Range of the standard deviation of the noise of a picture, in [0, 255]."""
SMALLEST_IMAGE = 32


@dataclass(frozen=True)
class PlacedObject:
    """One object as it is seen.

    Attributes:
        category: COCO's name of its category.
        color: Name of the color of its main part.
        bbox: (x, y, width, height) in pixels, the smallest box around its visible pixels.
        mask: (H, W) bool, its visible pixels.
        visible: Share of its pixels that are neither covered nor outside of the picture, in (0, 1].
    """

    category: str
    color: str
    bbox: tuple[float, float, float, float]
    mask: NDArray[np.bool_]
    visible: float


@dataclass(frozen=True)
class Scene:
    """A picture and everything that is known about it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        objects: The objects, the largest drawing first; the later ones lie on top.
        background: What captions say of the background.
        captions: Five sentences.
    """

    image: ImageArray
    objects: tuple[PlacedObject, ...]
    background: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class _Drawn:
    placement: Placement
    color: FloatArray  # (h, w, 3)
    alpha: FloatArray  # (h, w), in [0, 1]
    rows: slice
    columns: slice
    mask: NDArray[np.bool_]  # (H, W)
    pixels: int  # before anything is cut off or covered


def _draw(placement: Placement, image_size: int) -> _Drawn:
    scale = image_size / REFERENCE_SIZE
    pose = Pose(
        placement.x * scale,
        placement.y * scale,
        placement.size * scale,
        placement.angle,
        placement.mirrored,
        OUTLINE_WIDTH * scale,
    )
    pen = Pen(pose, placement.category.aspect)
    DRAWINGS[placement.category.name](pen, placement.color, placement.variant)
    sprite = pen.sprite()
    top, left = max(pen.top, 0), max(pen.left, 0)
    bottom, right = min(pen.top + sprite.shape[0], image_size), min(pen.left + sprite.shape[1], image_size)
    inside = sprite[top - pen.top : bottom - pen.top, left - pen.left : right - pen.left]
    mask = np.zeros((image_size, image_size), dtype=np.bool_)
    mask[top:bottom, left:right] = inside[:, :, 3] > 127
    return _Drawn(
        placement,
        inside[:, :, :3].astype(np.float32),
        inside[:, :, 3].astype(np.float32) / np.float32(255),
        slice(top, bottom),
        slice(left, right),
        mask,
        int(np.count_nonzero(sprite[:, :, 3] > 127)),
    )


def _visible_masks(drawn: list[_Drawn]) -> list[NDArray[np.bool_]]:
    """Take from every mask what the later drawings cover."""
    covered = np.zeros_like(drawn[0].mask)
    visible = []
    for sprite in reversed(drawn):
        visible.append(sprite.mask & ~covered)
        covered |= sprite.mask
    return visible[::-1]


def _draw_all(layout: Layout, image_size: int) -> tuple[list[_Drawn], list[NDArray[np.bool_]]]:
    """Draw the objects, the last one overlapping another if the layout wants it and the other one stays visible."""
    drawn = [_draw(placement, image_size) for placement in layout.placements]
    if layout.overlapping is not None:
        overlapping = [*drawn[:-1], _draw(layout.overlapping, image_size)]
        masks = _visible_masks(overlapping)
        shares = [np.count_nonzero(mask) / sprite.pixels for mask, sprite in zip(masks, overlapping, strict=True)]
        if min(shares) >= LEAST_VISIBLE:
            return overlapping, masks
    return drawn, _visible_masks(drawn)


def _compose(layout: Layout, drawn: list[_Drawn], generator: np.random.Generator, image_size: int) -> ImageArray:
    canvas = paint_background(generator, layout.background, layout.color, image_size)
    for sprite in drawn:
        cover = (sprite.alpha * np.float32(sprite.placement.opacity))[:, :, None]
        region = canvas[sprite.rows, sprite.columns]
        canvas[sprite.rows, sprite.columns] = region + cover * (sprite.color - region)
    brightness = np.float32(generator.uniform(0.94, 1.06))
    noise = generator.standard_normal(canvas.shape, dtype=np.float32)
    canvas = canvas * brightness + np.float32(generator.uniform(*NOISE)) * noise
    image: ImageArray = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return image


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] - columns[0] + 1), float(rows[-1] - rows[0] + 1)


def _mention(placement: Placement) -> Mention:
    seen = placement.opacity > HAZE_OPACITY[1]  # nobody can tell the color of what is lost in haze
    spoken = seen and placement.category.says_color and placement.color_word not in UNSPOKEN_COLORS
    return Mention(placement.category.words, placement.color_word if spoken else "")


def render_picture(seed: int, split: str, index: int, image_size: int = REFERENCE_SIZE) -> Scene:
    """Render one picture.

    It depends on the four arguments alone: pictures can be rendered in any order, and a larger corpus begins with the
    pictures of a smaller one.

    Args:
        seed: Seed of the corpus.
        split: One of ``SPLITS``.
        index: Number of the picture in its split, from 0.
        image_size: Side in pixels.

    Raises:
        CorpusError: The split is unknown, the seed or the index is negative, or the picture would be too small to show
            anything.
    """
    if image_size < SMALLEST_IMAGE:
        raise CorpusError(
            f"Pictures of {image_size} pixels were asked for; {SMALLEST_IMAGE} is the least. Choose a larger size."
        )
    layout = sample_layout(seed, split, index)
    drawn, masks = _draw_all(layout, image_size)
    image = _compose(layout, drawn, picture_generator(seed, split, index, 1), image_size)
    objects = tuple(
        PlacedObject(
            sprite.placement.category.name,
            sprite.placement.color_word,
            _bounding_box(mask),
            mask,
            np.count_nonzero(mask) / sprite.pixels,
        )
        for sprite, mask in zip(drawn, masks, strict=True)
    )
    mentions = [_mention(sprite.placement) for sprite in drawn]
    captions = write_captions(picture_generator(seed, split, index, 2), mentions, layout.background.phrase)
    return Scene(image, objects, layout.background.phrase, captions)
