"""Calm textured backgrounds.

Each background has a few base colors, among which the layout chooses one that is far from the colors of the objects;
the texture then varies around that color.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from capxai.data.scenes.categories import Color
from capxai.types import FloatArray

REFERENCE_SIZE = 112
"""Side of the picture in whose pixels all lengths are stated."""

Texture = Callable[[np.random.Generator, FloatArray, FloatArray], FloatArray]
"""(generator, rows (S, 1), columns (1, S), both in reference pixels) -> relative change of brightness (S, S)."""


@dataclass(frozen=True)
class Background:
    """One kind of background: what captions say of it, its possible base colors, and its texture."""

    name: str
    phrase: str
    colors: tuple[Color, ...]
    texture: Texture


def smooth_noise(generator: np.random.Generator, size: int, cells: int) -> FloatArray:
    """Draw noise that varies over ``size / cells`` pixels.

    Returns:
        (size, size) float32, standard deviation somewhat below 1, mean about 0.
    """
    coarse = generator.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


def _grass(generator: np.random.Generator, rows: FloatArray, columns: FloatArray) -> FloatArray:
    size = rows.shape[0]
    return np.float32(0.05) * smooth_noise(generator, size, 40) + np.float32(0.04) * smooth_noise(generator, size, 6)


def _grain(generator: np.random.Generator, rows: FloatArray, columns: FloatArray) -> FloatArray:
    size = rows.shape[0]
    return 0.025 * smooth_noise(generator, size, 50) + 0.025 * smooth_noise(generator, size, 5)


def _drifts(generator: np.random.Generator, rows: FloatArray, columns: FloatArray) -> FloatArray:
    return 0.025 * smooth_noise(generator, rows.shape[0], 5)


def _waves(generator: np.random.Generator, rows: FloatArray, columns: FloatArray) -> FloatArray:
    period, sway, phase = generator.uniform(11, 17), generator.uniform(24, 40), generator.uniform(0, 6.28)
    bend = 2.2 * np.sin(2 * np.pi * columns / sway + phase)
    crest = np.sin(2 * np.pi * (rows + bend) / period)
    return np.asarray(0.07 * crest + 0.025 * smooth_noise(generator, rows.shape[0], 6), dtype=np.float32)


def _clouds(generator: np.random.Generator, rows: FloatArray, columns: FloatArray) -> FloatArray:
    cloud = np.clip(smooth_noise(generator, rows.shape[0], 5), 0, 1.5)
    return np.asarray(0.09 * cloud - 0.05 * rows / REFERENCE_SIZE, dtype=np.float32)


def _asphalt(generator: np.random.Generator, rows: FloatArray, columns: FloatArray) -> FloatArray:
    size = rows.shape[0]
    middle, shift = generator.uniform(35, 80), generator.uniform(0, 28)
    dashes = (np.abs(rows - middle) < 1.6) & ((columns + shift) % 28 < 16)
    stones = 0.03 * smooth_noise(generator, size, 56) + 0.02 * smooth_noise(generator, size, 5)
    return np.asarray(stones + 0.45 * dashes, dtype=np.float32)


def _bricks(generator: np.random.Generator, rows: FloatArray, columns: FloatArray) -> FloatArray:
    height, width = generator.uniform(11, 14), generator.uniform(24, 30)
    course = np.floor(rows / height)
    column = columns / width + 0.5 * (course % 2)
    mortar = (rows % height < 1.3) | ((column % 1.0) * width < 1.3)
    shade = generator.standard_normal((16, 16), dtype=np.float32)
    bricks = 0.04 * shade[course.astype(int) % 16, np.floor(column).astype(int) % 16]
    return np.where(mortar, np.float32(-0.2), bricks + 0.02 * smooth_noise(generator, rows.shape[0], 30))


def _planks(generator: np.random.Generator, rows: FloatArray, columns: FloatArray) -> FloatArray:
    size, width = rows.shape[0], generator.uniform(20, 28)
    plank = np.floor(rows / width).astype(int)
    tone = generator.standard_normal((8, 1), dtype=np.float32)[plank[:, 0] % 8]
    phase = generator.uniform(0, 6.28, 8)[plank[:, 0] % 8][:, None]
    grain = np.sin(rows * 1.3 + 1.8 * np.sin(columns / 16 + phase) + phase)
    return np.where(
        rows % width < 1.2, -0.2, 0.03 * tone + 0.03 * grain + 0.02 * smooth_noise(generator, size, 12)
    ).astype(np.float32)


def _tiles(generator: np.random.Generator, rows: FloatArray, columns: FloatArray) -> FloatArray:
    side, down, right = generator.uniform(24, 34), generator.uniform(0, 24), generator.uniform(0, 24)
    joint = ((rows + down) % side < 1.3) | ((columns + right) % side < 1.3)
    return np.where(joint, np.float32(-0.17), 0.02 * smooth_noise(generator, rows.shape[0], 8))


BACKGROUNDS: tuple[Background, ...] = (
    Background("grass", "on the grass", ((96, 150, 70), (120, 168, 84)), _grass),
    Background("sand", "on the sand", ((224, 200, 150), (208, 184, 140)), _grain),
    Background("snow", "in the snow", ((226, 232, 240), (214, 220, 230)), _drifts),
    Background("water", "in the water", ((74, 134, 184), (84, 156, 176)), _waves),
    Background("sky", "in the sky", ((150, 192, 232), (120, 172, 224)), _clouds),
    Background("street", "on the street", ((112, 112, 118), (92, 92, 100)), _asphalt),
    Background("wall", "by a brick wall", ((166, 92, 72), (186, 122, 96)), _bricks),
    Background("wood", "on a wooden floor", ((168, 122, 78), (190, 150, 104)), _planks),
    Background("tiles", "on a tiled floor", ((198, 200, 190), (172, 186, 178)), _tiles),
)

BACKGROUNDS_BY_NAME: dict[str, Background] = {background.name: background for background in BACKGROUNDS}


def paint_background(generator: np.random.Generator, background: Background, color: Color, size: int) -> FloatArray:
    """Paint a background.

    Args:
        generator: Source of the texture's randomness.
        background: The kind of background.
        color: Its base color.
        size: Side of the picture in pixels.

    Returns:
        (size, size, 3) float32 RGB, about [0, 255], not clipped.
    """
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * (REFERENCE_SIZE / size)).astype(np.float32)
    change = background.texture(generator, axis[:, None], axis[None, :])
    painted: FloatArray = (1.0 + change.astype(np.float32))[:, :, None] * np.asarray(color, dtype=np.float32)
    return painted
