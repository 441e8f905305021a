"""A pen that draws polygons, ellipses and strokes in an object's own coordinates onto a supersampled sprite.

An object's coordinates have their origin at its center, x to the right, y down, and the longer side of the object is 1.
The pen rotates, scales and mirrors them itself, so that the drawing is resampled only once, when the sprite is reduced
to picture pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from capxai.data.scenes.categories import Color

Points = NDArray[np.float64] | Sequence[tuple[float, float]]

SUPERSAMPLING = 4
OUTLINE: Color = (24, 24, 28)
OUTLINE_WIDTH = 0.9
"""Width of the dark line around shapes, in pixels of a picture 112 pixels wide."""


@dataclass(frozen=True)
class Pose:
    """Where and how large an object is drawn, in pixels of the picture.

    Attributes:
        x: Column of the object's center.
        y: Row of the object's center.
        size: Length of the object's longer side.
        angle: Clockwise rotation in radians.
        mirrored: Whether left and right are exchanged.
        line: Width of outlines.
    """

    x: float
    y: float
    size: float
    angle: float
    mirrored: bool
    line: float


def arc(
    center: tuple[float, float], radii: tuple[float, float], start: float = 0, stop: float = 360
) -> NDArray[np.float64]:
    """List points on an ellipse, (N, 2), from ``start`` to ``stop`` degrees; 0 is right, 90 is down."""
    count = max(4, math.ceil(abs(stop - start) / 12))
    angles = np.radians(np.linspace(start, stop, count + 1))
    return np.stack([center[0] + radii[0] * np.cos(angles), center[1] + radii[1] * np.sin(angles)], axis=1)


def rounded(left: float, top: float, right: float, bottom: float, radius: float) -> NDArray[np.float64]:
    """List the points of a rectangle with rounded corners, (N, 2)."""
    corners = ((right - radius, bottom - radius), (left + radius, bottom - radius), (left + radius, top + radius))
    pieces = [arc(corner, (radius, radius), 90 * turn, 90 * turn + 90) for turn, corner in enumerate(corners)]
    pieces.append(arc((right - radius, top + radius), (radius, radius), 270, 360))
    return np.concatenate(pieces)


def shade(color: Color, factor: float) -> Color:
    """Darken (factor below 1) or lighten towards white (factor above 1) a color."""
    if factor <= 1:
        return (int(color[0] * factor), int(color[1] * factor), int(color[2] * factor))
    lift = factor - 1
    red, green, blue = (int(value + (255 - value) * lift) for value in color)
    return (red, green, blue)


class Pen:
    """Draws one object onto its own sprite."""

    def __init__(self, pose: Pose, aspect: tuple[float, float]) -> None:
        """Prepare an empty sprite that holds an object of the given aspect in the given pose."""
        cosine, sine = math.cos(pose.angle), math.sin(pose.angle)
        half_width = pose.size / 2 * (aspect[0] * abs(cosine) + aspect[1] * abs(sine)) + pose.line + 2
        half_height = pose.size / 2 * (aspect[0] * abs(sine) + aspect[1] * abs(cosine)) + pose.line + 2
        self.left, self.top = math.floor(pose.x - half_width), math.floor(pose.y - half_height)
        width, height = math.ceil(pose.x + half_width) - self.left, math.ceil(pose.y + half_height) - self.top
        # Transparent pixels carry the outline's color: what reducing mixes in at the border is then just more outline.
        self._sprite = Image.new("RGBA", (width * SUPERSAMPLING, height * SUPERSAMPLING), (*OUTLINE, 0))
        self._draw = ImageDraw.Draw(self._sprite)
        scale = pose.size * SUPERSAMPLING
        flip = -1.0 if pose.mirrored else 1.0
        self._matrix = np.array([[flip * cosine, flip * sine], [-sine, cosine]]) * scale
        self._offset = np.array([(pose.x - self.left) * SUPERSAMPLING, (pose.y - self.top) * SUPERSAMPLING])
        self._scale = scale
        self._outline = pose.line * SUPERSAMPLING

    def _place(self, points: Points) -> list[float]:
        placed: list[float] = (np.asarray(points, dtype=np.float64) @ self._matrix + self._offset).ravel().tolist()
        return placed

    def _line(self, placed: list[float], width: float, color: Color) -> None:
        joint = "curve" if len(placed) <= 40 and width > 3 else None
        self._draw.line(placed, fill=color, width=max(1, round(width)), joint=joint)

    def fill(self, points: Points, color: Color, outlined: bool = True) -> None:
        """Fill a polygon, with a dark line around it unless told otherwise."""
        placed = self._place(points)
        if outlined:
            self._line(placed + placed[:4], 2 * self._outline, OUTLINE)
        self._draw.polygon(placed, fill=color)

    def union(self, shapes: Sequence[Points], color: Color) -> None:
        """Fill several polygons as one shape: a dark line around all of them, none where they meet."""
        placed = [self._place(points) for points in shapes]
        for polygon in placed:
            self._line(polygon + polygon[:4], 2 * self._outline, OUTLINE)
        for polygon in placed:
            self._draw.polygon(polygon, fill=color)

    def disc(self, center: tuple[float, float], radius: float, color: Color, outlined: bool = True) -> None:
        """Fill a circle."""
        self.fill(arc(center, (radius, radius)), color, outlined)

    def stroke(self, points: Points, width: float, color: Color, outlined: bool = False) -> None:
        """Draw a line of a width in the object's units through points."""
        placed = self._place(points)
        if outlined:
            self._line(placed, width * self._scale + 2 * self._outline, OUTLINE)
        self._line(placed, width * self._scale, color)

    def sprite(self) -> NDArray[np.uint8]:
        """Reduce the drawing to picture pixels: (h, w, 4) uint8 RGBA whose upper left corner is (top, left)."""
        return np.asarray(self._sprite.reduce(SUPERSAMPLING))
