"""Drawings of the larger objects: the first ones of the pairs, and those of no pair.

Every drawing is a function of a pen, the main color, and a number in [0, 1) that varies details.
"""

from __future__ import annotations

import math

from capxai.data.scenes.categories import Color
from capxai.data.scenes.pen import OUTLINE, Pen, arc, rounded, shade

WHITE: Color = (248, 248, 244)
GLASS: Color = (186, 224, 244)
TIRE: Color = (40, 40, 44)
METAL: Color = (206, 210, 216)
WOOD: Color = (124, 78, 42)
LEAF: Color = (58, 140, 52)


def draw_car(pen: Pen, color: Color, variant: float) -> None:
    """Draw a sedan from the side, its front to the right."""
    pen.fill(
        [(-0.5, 0.12), (-0.49, -0.02), (-0.44, -0.05), (-0.3, -0.07), (-0.19, -0.23), (-0.14, -0.25), (0.1, -0.25),
         (0.15, -0.23), (0.28, -0.06), (0.43, -0.03), (0.49, 0.03), (0.5, 0.12), (0.48, 0.16), (-0.48, 0.16)],
        color,
    )  # fmt: skip
    pen.fill([(-0.49, 0.08), (0.49, 0.08), (0.48, 0.15), (-0.48, 0.15)], shade(color, 0.72), outlined=False)
    pen.fill([(-0.23, -0.06), (-0.14, -0.19), (-0.04, -0.19), (-0.04, -0.06)], GLASS)
    pen.fill([(0.01, -0.06), (0.01, -0.19), (0.09, -0.19), (0.19, -0.06)], GLASS)
    pen.stroke([(-0.015, -0.04), (-0.015, 0.12)], 0.012, shade(color, 0.5))
    pen.fill(rounded(0.43, 0.0, 0.49, 0.06, 0.02), (255, 236, 140), outlined=False)
    pen.fill(rounded(-0.49, 0.0, -0.44, 0.06, 0.02), (190, 30, 30), outlined=False)
    for x in (-0.27, 0.27):
        pen.disc((x, 0.14), 0.11, TIRE)
        pen.disc((x, 0.14), 0.055, METAL, outlined=False)


def draw_boat(pen: Pen, color: Color, variant: float) -> None:
    """Draw a sailing boat with a white mainsail and a jib in a lighter shade of the hull."""
    pen.stroke([(0.0, 0.22), (0.0, -0.47)], 0.035, WOOD, outlined=True)
    pen.fill([(0.035, -0.43), (0.16, -0.24), (0.3, -0.02), (0.42, 0.14), (0.035, 0.14)], WHITE)
    pen.stroke([(0.05, -0.1), (0.24, -0.1)], 0.014, (188, 194, 204))
    pen.stroke([(0.05, 0.03), (0.33, 0.03)], 0.014, (188, 194, 204))
    pen.fill([(-0.035, -0.36), (-0.15, -0.18), (-0.36, 0.14), (-0.035, 0.14)], shade(color, 1.3))
    pen.fill([(0.0, -0.48), (0.14, -0.445), (0.0, -0.41)], (220, 40, 40), outlined=False)
    pen.fill([(-0.49, 0.2), (0.49, 0.2), (0.42, 0.34), (0.34, 0.44), (-0.32, 0.44), (-0.4, 0.36)], color)
    pen.fill([(-0.475, 0.22), (0.48, 0.22), (0.46, 0.27), (-0.45, 0.27)], WHITE, outlined=False)
    pen.fill([(-0.39, 0.37), (0.4, 0.37), (0.34, 0.44), (-0.32, 0.44)], shade(color, 0.68), outlined=False)


def draw_fork(pen: Pen, color: Color, variant: float) -> None:
    """Draw a fork with four tines, upright."""
    tines = [rounded(x - 0.025, -0.49, x + 0.025, -0.2, 0.024) for x in (-0.126, -0.042, 0.042, 0.126)]
    bowl = [(-0.151, -0.25), (0.151, -0.25), (0.148, -0.16), (0.12, -0.1), (0.05, -0.04), (-0.05, -0.04), (-0.12, -0.1),
            (-0.148, -0.16)]  # fmt: skip
    handle = [(-0.034, -0.06), (0.034, -0.06), (0.04, 0.15), (0.06, 0.42), (0.045, 0.48), (-0.045, 0.48), (-0.06, 0.42),
              (-0.04, 0.15)]  # fmt: skip
    pen.union([*tines, bowl, handle], color)
    pen.fill(
        [(0.01, -0.06), (0.034, -0.06), (0.04, 0.15), (0.06, 0.42), (0.045, 0.48), (0.01, 0.48)],
        shade(color, 0.74),
        False,
    )
    pen.stroke([(-0.11, -0.2), (0.0, -0.15)], 0.018, shade(color, 1.5))


def draw_racket(pen: Pen, color: Color, variant: float) -> None:
    """Draw a tennis racket, its head up."""
    for side in (-1, 1):
        pen.stroke([(side * 0.17, 0.0), (side * 0.1, 0.1), (0.0, 0.22)], 0.045, color, outlined=True)
    pen.fill(rounded(-0.042, 0.18, 0.042, 0.49, 0.03), (58, 46, 44))
    for y in (0.26, 0.32, 0.38, 0.44):
        pen.stroke([(-0.04, y), (0.04, y - 0.03)], 0.014, (150, 130, 120))
    pen.fill(arc((0, -0.2), (0.26, 0.29)), color)
    pen.fill(arc((0, -0.2), (0.205, 0.235)), (240, 238, 220))
    for step in range(-3, 4):
        x = step * 0.058
        reach = 0.235 * math.sqrt(1 - (x / 0.205) ** 2)
        pen.stroke([(x, -0.2 - reach), (x, -0.2 + reach)], 0.012, (120, 120, 116))
        y = step * 0.064
        reach = 0.205 * math.sqrt(1 - (y / 0.235) ** 2)
        pen.stroke([(-reach, -0.2 + y), (reach, -0.2 + y)], 0.012, (120, 120, 116))


def draw_laptop(pen: Pen, color: Color, variant: float) -> None:
    """Draw an open laptop from the front."""
    pen.fill(rounded(-0.41, -0.4, 0.41, 0.13, 0.035), color)
    pen.fill([(-0.36, -0.35), (0.36, -0.35), (0.36, 0.08), (-0.36, 0.08)], (58, 128, 206))
    pen.fill([(-0.36, -0.35), (0.02, -0.35), (-0.22, 0.08), (-0.36, 0.08)], (116, 178, 234), outlined=False)
    pen.fill(rounded(-0.04, -0.2, 0.26, -0.04, 0.02), WHITE, outlined=False)
    pen.fill([(-0.41, 0.15), (0.41, 0.15), (0.5, 0.36), (0.49, 0.39), (-0.49, 0.39), (-0.5, 0.36)], shade(color, 0.88))
    dark = shade(color, 0.4) if sum(color) > 240 else shade(color, 1.45)
    pen.fill([(-0.35, 0.18), (0.35, 0.18), (0.385, 0.27), (-0.385, 0.27)], dark, outlined=False)
    for y in (0.21, 0.24):
        pen.stroke([(-0.37, y), (0.37, y)], 0.01, shade(color, 0.88))
    pen.fill([(-0.1, 0.295), (0.1, 0.295), (0.11, 0.345), (-0.11, 0.345)], dark, outlined=False)


def draw_pizza(pen: Pen, color: Color, variant: float) -> None:
    """Draw a pizza from above, one of its eight slices gone."""
    pen.fill([(0.0, 0.0), *arc((0, 0), (0.5, 0.5), 22, 338).tolist()], color)
    pen.fill([(0.02, 0.0), *arc((0, 0), (0.43, 0.43), 25, 335).tolist()], (250, 212, 100), outlined=False)
    for turn in range(1, 7):
        angle = math.radians(22 + 45.1 * turn)
        pen.stroke([(0, 0), (0.44 * math.cos(angle), 0.44 * math.sin(angle))], 0.014, (196, 136, 56))
    for turn in range(7):
        angle = math.radians(45 + 45 * turn)
        reach = 0.3 if turn % 2 else 0.25
        pen.disc((reach * math.cos(angle), reach * math.sin(angle)), 0.085, (196, 44, 34), outlined=False)
        other = angle + 0.36
        pen.disc((0.34 * math.cos(other), 0.34 * math.sin(other)), 0.03, (66, 126, 50), outlined=False)


def draw_clock(pen: Pen, color: Color, variant: float) -> None:
    """Draw a wall clock; ``variant`` sets its time."""
    pen.disc((0, 0), 0.49, color)
    pen.disc((0, 0), 0.39, WHITE)
    for hour in range(12):
        angle = math.radians(30 * hour)
        inner = 0.28 if hour % 3 == 0 else 0.32
        x, y = math.cos(angle), math.sin(angle)
        pen.stroke([(inner * x, inner * y), (0.36 * x, 0.36 * y)], 0.035 if hour % 3 == 0 else 0.02, OUTLINE)
    minute = 2 * math.pi * (12 * variant % 1) - math.pi / 2
    hour_angle = 2 * math.pi * variant - math.pi / 2
    pen.stroke([(0, 0), (0.19 * math.cos(hour_angle), 0.19 * math.sin(hour_angle))], 0.06, OUTLINE)
    pen.stroke([(0, 0), (0.3 * math.cos(minute), 0.3 * math.sin(minute))], 0.036, OUTLINE)
    pen.disc((0, 0), 0.05, (200, 40, 40), outlined=False)


def draw_umbrella(pen: Pen, color: Color, variant: float) -> None:
    """Draw an open umbrella from the side."""
    pen.stroke(
        [(0.0, -0.47), (0.0, 0.38), *arc((0.075, 0.38), (0.075, 0.085), 180, 0).tolist()], 0.034, WOOD, outlined=True
    )
    # Degrees of an arc run clockwise from the right: the scallops are upper halves of small ellipses, right to left.
    dome = arc((0, 0.02), (0.5, 0.44), 180, 360).tolist()
    scallops = [
        point for x in (0.375, 0.125, -0.125, -0.375) for point in arc((x, 0.02), (0.125, 0.07), 0, -180).tolist()
    ]
    pen.fill([*dome, *scallops], color)
    for left, right in ((-0.25, 0.0), (0.25, 0.5)):
        edge = arc((0, 0.02), (abs(left), 0.44), 180 if left < 0 else 360, 270).tolist()
        back = arc((0, 0.02), (abs(right), 0.44), 270, 360).tolist()
        scallop = arc(((left + right) / 2, 0.02), (0.125, 0.07), 0, -180).tolist()
        pen.fill([*edge, *back, *scallop], shade(color, 0.68), outlined=False)


def draw_banana(pen: Pen, color: Color, variant: float) -> None:
    """Draw a banana that bends downward in its middle."""
    outer = arc((0, -0.3), (0.48, 0.58), 165, 15).tolist()
    inner = arc((0, -0.36), (0.41, 0.38), 20, 160).tolist()
    pen.fill([*outer, *inner], color)
    pen.fill([*arc((0, -0.3), (0.48, 0.58), 150, 30).tolist(), *arc((0, -0.33), (0.45, 0.52), 30, 150).tolist()],
             shade(color, 0.76), outlined=False)  # fmt: skip
    pen.stroke(arc((0, -0.33), (0.44, 0.47), 140, 40), 0.016, shade(color, 0.66))
    pen.fill([(-0.48, -0.2), (-0.47, -0.29), (-0.41, -0.29), (-0.38, -0.22)], (96, 66, 30))
    pen.fill([(0.46, -0.16), (0.48, -0.2), (0.42, -0.27), (0.37, -0.22)], (60, 44, 26))


def draw_apple(pen: Pen, color: Color, variant: float) -> None:
    """Draw an apple with a stem and a leaf."""
    pen.stroke([(0.0, -0.16), (0.02, -0.32), (0.08, -0.46)], 0.05, WOOD, outlined=True)
    pen.fill([(0.06, -0.3), (0.14, -0.42), (0.28, -0.47), (0.38, -0.43), (0.34, -0.33), (0.22, -0.26)], LEAF)
    lobes = [arc((side * 0.17, 0.06), (0.28, 0.3)) for side in (-1, 1)]
    feet = [arc((side * 0.12, 0.2), (0.24, 0.28)) for side in (-1, 1)]
    pen.union([*lobes, *feet], color)
    pen.fill([*arc((0.05, 0.12), (0.37, 0.36), -50, 80).tolist(), *arc((-0.02, 0.1), (0.32, 0.33), 80, -50).tolist()],
             shade(color, 0.74), outlined=False)  # fmt: skip
    pen.fill(arc((-0.22, -0.06), (0.07, 0.11)), shade(color, 1.65), outlined=False)
    pen.stroke(arc((0.0, -0.23), (0.12, 0.07), 20, 160), 0.03, shade(color, 0.5))


def draw_chair(pen: Pen, color: Color, variant: float) -> None:
    """Draw a wooden chair from the front and a little from the side."""
    dark = shade(color, 0.68) if sum(color) > 200 else shade(color, 1.25)
    for x, bottom in ((-0.24, 0.36), (0.14, 0.36)):
        pen.stroke([(x, 0.05), (x, bottom)], 0.055, dark, outlined=True)
    for x in (-0.25, 0.15):
        pen.stroke([(x, -0.48), (x, 0.08)], 0.06, color, outlined=True)
    for y in (-0.42, -0.27, -0.12):
        pen.fill([(-0.25, y - 0.04), (0.15, y - 0.04), (0.15, y + 0.04), (-0.25, y + 0.04)], color)
    for x in (-0.18, 0.27):
        pen.stroke([(x, 0.15), (x, 0.49)], 0.06, color, outlined=True)
    pen.fill([(-0.29, 0.03), (0.17, 0.03), (0.31, 0.16), (-0.21, 0.16)], shade(color, 1.25))
    pen.fill([(-0.21, 0.16), (0.31, 0.16), (0.31, 0.22), (-0.21, 0.22)], dark)
