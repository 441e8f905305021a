"""How relevance is shown: diverging colors, their scale, and signed numbers.

Red speaks for a word, white is nothing, blue speaks against it. Red and blue are told apart with every common color
blindness; numbers with a sign are the second cue. Everything here serves the eye only: the arrays of an explanation
stay raw.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from capxai.errors import ConfigError, unknown_choice
from capxai.types import FloatArray, ImageArray

Scale = Literal["caption", "word"]
"""What shares a color scale: all words of the caption, or each word its own."""

LEVELS = 127
"""Color steps on each side of zero; palette index ``LEVELS`` is zero itself."""

QUANTILE = 0.995
"""The quantile of absolute relevance that gets the full color: a maximum hangs on single pixels."""

DISPLAY_SIDE = 256
"""The longest side, in pixels, of a heatmap that is made for display."""

_STRENGTHS = (0.0, 0.5, 1.0)
_LIGHTNESS = (1.0, 0.66, 0.42)
_CHROMA = {"for": (0.0, 0.19, 0.165), "against": (0.0, 0.145, 0.16)}
_HUE = {"for": 26.0, "against": 256.0}  # degrees
OPACITY = 0.85
"""How opaque a heatmap is over the picture: below 1, so that the object shows through where relevance is strongest."""

_GREY_STRENGTH = 0.62  # of the picture under a heatmap; the rest is white


def checked_scale(scale: str) -> Scale:
    """Return the scale if it is known, else raise ``ConfigError`` that names the known ones."""
    if scale not in get_args(Scale):
        raise ConfigError(unknown_choice("scale", scale, get_args(Scale)))
    return cast(Scale, scale)


def _srgb(lightness: NDArray[np.float64], chroma: NDArray[np.float64], hue: float) -> NDArray[np.float64]:
    """Convert Oklch colors to sRGB in [0, 1] (Ottosson, "A perceptual color space for image processing", 2020)."""
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=-1,
    ).clip(0, 1)
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


@lru_cache(maxsize=1)
def diverging_palette() -> NDArray[np.uint8]:
    """Build the color map: equal steps of relevance are equal steps of lightness, the same for both signs.

    Returns:
        (2 LEVELS + 1, 3) uint8 RGB, from full "against" through white to full "for".
    """
    strength = np.linspace(0, 1, LEVELS + 1)
    lightness = np.interp(strength, _STRENGTHS, _LIGHTNESS)
    sides = {
        side: _srgb(lightness, np.interp(strength, _STRENGTHS, _CHROMA[side]), _HUE[side])
        for side in ("for", "against")
    }
    colors = np.concatenate([sides["against"][:0:-1], sides["for"]])
    palette = np.rint(colors * 255).astype(np.uint8)
    palette.flags.writeable = False
    return np.asarray(palette)


@lru_cache(maxsize=1)
def overlay_palette() -> NDArray[np.uint8]:
    """Build the same map as translucent colors: over white they give ``diverging_palette``, zero shows what is below.

    Returns:
        (2 LEVELS + 1, 4) uint8 RGBA.
    """
    colors = diverging_palette() / 255
    alpha = 1 - colors.min(axis=1)
    safe = np.where(alpha > 0, alpha, 1)[:, None]
    pure = np.where(alpha[:, None] > 0, 1 - (1 - colors) / safe, 1)
    palette = np.rint(255 * np.concatenate([pure.clip(0, 1), alpha[:, None]], axis=1)).astype(np.uint8)
    palette.flags.writeable = False
    return np.asarray(palette)


def levels(relevance: FloatArray, limit: float) -> NDArray[np.uint8]:
    """Map relevance in [-limit, limit] to palette indices in [0, 2 LEVELS]; what lies outside gets the full color."""
    return np.asarray(np.rint(np.clip(relevance / limit, -1, 1) * LEVELS) + LEVELS, dtype=np.uint8)


def diverging(relevance: FloatArray, limit: float = 1.0) -> NDArray[np.uint8]:
    """Color relevance of any shape: (...) becomes (..., 3) uint8 RGB."""
    return np.asarray(diverging_palette()[levels(relevance, limit)], dtype=np.uint8)


def greyed(image: ImageArray) -> NDArray[np.float64]:
    """Turn a picture (H, W, 3) into the pale grey one, (H, W, 1) in [0, 255], that heatmaps are laid over."""
    grey = image @ np.array([0.299, 0.587, 0.114])
    return np.asarray(255 - _GREY_STRENGTH * (255 - grey)[..., None])


def overlay(image: ImageArray, relevance: FloatArray, limit: float) -> ImageArray:
    """Lay relevance (H, W) over the greyed picture (H, W, 3): the stronger it is, the less shows through."""
    rgba = overlay_palette()[levels(relevance, limit)].astype(np.float64)
    alpha = rgba[..., 3:] / 255 * OPACITY
    return np.asarray(np.rint(greyed(image) * (1 - alpha) + rgba[..., :3] * alpha), dtype=np.uint8)


def ink(color: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Return near-black or white, whichever is easier to read on an RGB color."""
    linear = np.power(color / 255, 2.2) @ np.array([0.2126, 0.7152, 0.0722])
    return (255, 255, 255) if linear < 0.19 else (22, 26, 33)


def resized(values: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Resize one map (H, W) to ``size`` = (height, width): averaged downwards, interpolated upwards."""
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR), dtype=np.float32)


def display_size(height: int, width: int) -> tuple[int, int]:
    """Return (height, width) with the longest side at most ``DISPLAY_SIDE`` and the aspect kept."""
    shrink = min(1.0, DISPLAY_SIDE / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def smoothed(maps: FloatArray) -> FloatArray:
    """Blur maps (T, H, W) a little for display: by about one pixel (standard deviation) at 112, more in larger ones.

    Each pass averages with weights 1/4, 1/2, 1/4 along both axes, the border repeated, so a sum of zero stays zero.
    """
    passes = max(1, round(2 * max(maps.shape[1:]) / 112))
    for _ in range(passes):
        for axis in (1, 2):
            padding = [(1, 1) if other == axis else (0, 0) for other in range(3)]
            padded = np.pad(maps, padding, mode="edge")
            below, middle, above = (np.take(padded, np.arange(k, k + maps.shape[axis]), axis=axis) for k in range(3))
            maps = np.asarray((below + 2 * middle + above) / 4, dtype=np.float32)
    return maps


def display_maps(
    pixels: FloatArray | None, regions: FloatArray | None, grid: tuple[int, int] | None, size: tuple[int, int]
) -> FloatArray | None:
    """Prepare the heatmaps of all words for display.

    Args:
        pixels: (T, H, W) relevance, or None; blurred a little and at most ``DISPLAY_SIDE`` large.
        regions: (T, K) relevance, drawn instead where there are no pixels and the regions are a grid.
        grid: (rows, columns) of the regions.
        size: (H, W) of the picture.

    Returns:
        (T, h, w) float32 in logit units, None where there is nothing to draw.
    """
    shown = display_size(*size)
    if pixels is not None:
        blurred = smoothed(pixels)
        return blurred if shown == size else np.stack([resized(one, shown) for one in blurred])
    if regions is not None and grid is not None:
        return np.stack([resized(one.reshape(grid), shown) for one in regions])
    return None


def limits(maps: FloatArray, scale: Scale, quantile: float = QUANTILE) -> NDArray[np.float64]:
    """Choose, for each word, the absolute relevance that gets the full color.

    Args:
        maps: (T, ...) relevance in logit units.
        scale: ``"caption"`` takes one quantile over all words, ``"word"`` one for each.
        quantile: In [0, 1]; 1 is the maximum.

    Returns:
        (T,) positive float64: the quantile, the maximum where that is zero (sparse maps), 1 where a map is all zero.
    """
    rows = np.abs(maps.reshape(len(maps), -1)).astype(np.float64)
    rows = rows.reshape(1, -1) if scale == "caption" else rows
    found, most = np.quantile(rows, quantile, axis=1), rows.max(axis=1)
    found = np.where(found > 0, found, np.where(most > 0, most, 1.0))
    return np.broadcast_to(found, (len(maps),)).copy()


def signed(value: float) -> str:
    """Write a number of logit units with its sign, in about three digits: "+0.42", "−1.30", "0"."""
    if value == 0:
        return "0"
    size = abs(value)
    text = f"{value:+.0f}" if size >= 100 else f"{value:+.2f}" if size >= 0.095 else f"{value:+.2g}"
    return text.replace("-", "−")


def percent(share: float | None, sign: bool = True) -> str:
    """Write a share in percent, with its sign or without: "+62 %", "−0.4 %"; a dash where there is none."""
    if share is None:
        return "–"
    if abs(share) < 0.0005:
        return "0 %"
    digits = 0 if abs(share) >= 0.00995 else 1
    mark = "+" if sign else ""
    return f"{100 * share:{mark}.{digits}f} %".replace("-", "−")
