"""How different two colors look."""

from __future__ import annotations

import math
from functools import lru_cache

from capxai.data.scenes.categories import Color


@lru_cache(maxsize=4096)
def lab(color: Color) -> tuple[float, float, float]:
    """Convert sRGB to CIE L*a*b* under the D65 white point (IEC 61966-2-1, CIE 15)."""
    red, green, blue = (_linear(value / 255) for value in color)
    x = _cube_root((0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505)
    y = _cube_root(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    z = _cube_root((0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def _cube_root(value: float) -> float:
    return float(value ** (1 / 3)) if value > 0.008856 else 7.787 * value + 16 / 116


def color_distance(first: Color, second: Color) -> float:
    """Return the CIE 1976 difference of two sRGB colors; 2.3 is just noticeable, black and white are 100 apart."""
    return math.dist(lab(first), lab(second))
