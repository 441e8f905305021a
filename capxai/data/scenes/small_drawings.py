"""Drawings of the smaller objects, the second ones of the pairs, and the table of all drawings.

They are bolder than the larger drawings: a detail must survive at thirty pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from capxai.data.scenes import drawings
from capxai.data.scenes.categories import Color
from capxai.data.scenes.drawings import METAL, WHITE
from capxai.data.scenes.pen import OUTLINE, Pen, arc, rounded, shade

LAMPS: tuple[tuple[float, Color], ...] = ((-0.33, (238, 52, 44)), (-0.06, (252, 206, 44)), (0.21, (52, 206, 92)))
BEAK: Color = (244, 150, 30)


def draw_traffic_light(pen: Pen, color: Color, variant: float) -> None:
    """Draw a traffic light with red, yellow and green lamps on a short post."""
    pen.fill([(-0.05, 0.34), (0.05, 0.34), (0.05, 0.49), (-0.05, 0.49)], (110, 112, 118))
    pen.fill(rounded(-0.2, -0.49, 0.2, 0.37, 0.07), color)
    for y, lamp in LAMPS:
        pen.disc((0, y), 0.135, (26, 26, 30), outlined=False)
        pen.disc((0, y), 0.112, lamp, outlined=False)


def draw_knife(pen: Pen, color: Color, variant: float) -> None:
    """Draw a table knife, its blade up and its edge to the right; ``variant`` sets the handle's color."""
    handle = ((150, 44, 36), (104, 64, 34), (40, 60, 130))[int(3 * variant)]
    pen.fill(
        [(-0.09, 0.14), (-0.09, -0.47), (-0.04, -0.49), (0.03, -0.44), (0.09, -0.32), (0.115, -0.16), (0.115, 0.14)],
        color,
    )
    edge = shade(color, 1.55) if sum(color) < 600 else shade(color, 0.78)
    pen.fill([(0.04, 0.13), (0.035, -0.38), (0.085, -0.3), (0.11, -0.16), (0.11, 0.13)], edge, outlined=False)
    pen.fill(rounded(-0.1, 0.13, 0.09, 0.49, 0.05), handle)
    for y in (0.22, 0.38):
        pen.disc((-0.005, y), 0.032, METAL, outlined=False)


def draw_ball(pen: Pen, color: Color, variant: float) -> None:
    """Draw a ball for sports: a white one for soccer, a yellow one for tennis, an orange one for basketball."""
    pen.disc((0, 0), 0.48, shade(color, 0.84))
    pen.disc((-0.05, -0.05), 0.42, color, outlined=False)
    if color[2] > 150:
        _soccer_patches(pen)
    elif color[1] > 165:
        pen.stroke(arc((0.56, 0), (0.36, 0.46), 132, 228), 0.07, WHITE)
        pen.stroke(arc((-0.56, 0), (0.36, 0.46), -48, 48), 0.07, WHITE)
    else:
        pen.stroke([(0, -0.47), (0, 0.47)], 0.05, OUTLINE)
        pen.stroke([(-0.47, 0), (0.47, 0)], 0.05, OUTLINE)
        pen.stroke(arc((0.58, 0), (0.38, 0.46), 130, 230), 0.05, OUTLINE)
        pen.stroke(arc((-0.58, 0), (0.38, 0.46), -50, 50), 0.05, OUTLINE)


def _soccer_patches(pen: Pen) -> None:
    corners = [math.radians(72 * corner - 90) for corner in range(5)]
    pen.fill([(0.17 * math.cos(angle), 0.17 * math.sin(angle)) for angle in corners], OUTLINE, outlined=False)
    for angle in corners:
        x, y = math.cos(angle), math.sin(angle)
        pen.stroke([(0.16 * x, 0.16 * y), (0.36 * x, 0.36 * y)], 0.035, OUTLINE)
        rim = [(0.46, -0.3), (0.47, 0.0), (0.46, 0.3), (0.35, 0.17), (0.33, -0.17)]
        pen.fill(
            [(reach * math.cos(angle + turn), reach * math.sin(angle + turn)) for reach, turn in rim],
            OUTLINE,
            outlined=False,
        )


def draw_mouse(pen: Pen, color: Color, variant: float) -> None:
    """Draw a computer mouse from above, with its cable."""
    cable = [(0.0, -0.18), (-0.01, -0.29), (0.04, -0.37), (0.14, -0.39), (0.23, -0.42), (0.26, -0.49)]
    pen.stroke(cable, 0.045, (70, 72, 78), outlined=True)
    line = shade(color, 0.45) if sum(color) > 240 else (196, 198, 204)
    pen.fill(arc((0, 0.13), (0.28, 0.36)), color)
    pen.fill(
        [*arc((0, 0.13), (0.27, 0.35), 0, 180).tolist(), *arc((0, 0.1), (0.27, 0.22), 180, 0).tolist()],
        shade(color, 0.8),
        False,
    )
    pen.stroke(arc((0, -0.06), (0.26, 0.12), 15, 165), 0.032, line)
    pen.stroke([(0, -0.21), (0, 0.06)], 0.032, line)
    pen.fill(rounded(-0.055, -0.16, 0.055, 0.0, 0.05), (64, 160, 226))


def draw_bird(pen: Pen, color: Color, variant: float) -> None:
    """Draw a small bird from the side, its beak to the right."""
    for x in (-0.04, 0.1):
        pen.stroke([(x, 0.2), (x, 0.39), (x + 0.08, 0.39)], 0.045, BEAK, outlined=True)
    tail = [(-0.2, -0.06), (-0.49, -0.16), (-0.47, -0.04), (-0.49, 0.06), (-0.2, 0.14)]
    pen.fill([(0.4, -0.27), (0.53, -0.19), (0.4, -0.12)], BEAK)
    pen.union([tail, arc((0.0, 0.06), (0.32, 0.23)), arc((0.26, -0.2), (0.18, 0.18))], color)
    dark = shade(color, 0.66) if sum(color) > 240 else shade(color, 1.4)
    pen.fill(arc((0.06, 0.14), (0.22, 0.13)), shade(color, 1.5), outlined=False)
    pen.fill([(0.14, -0.04), (0.1, 0.1), (-0.06, 0.17), (-0.36, 0.14), (-0.22, 0.0), (-0.05, -0.09)], dark)
    pen.disc((0.3, -0.22), 0.065, WHITE, outlined=False)
    pen.disc((0.315, -0.22), 0.04, OUTLINE, outlined=False)


def draw_cup(pen: Pen, color: Color, variant: float) -> None:
    """Draw a mug of coffee, its handle to the right."""
    handle = arc((0.22, 0.04), (0.2, 0.2), -80, 80)
    pen.stroke(handle, 0.085, shade(color, 0.8), outlined=True)
    pen.fill(
        [(-0.43, -0.3), (0.25, -0.3), (0.21, 0.32), *arc((-0.09, 0.32), (0.3, 0.1), 0, 180).tolist(), (-0.39, 0.32)],
        color,
    )
    pen.fill([(0.1, -0.28), (0.24, -0.28), (0.2, 0.33), (0.08, 0.38)], shade(color, 0.76), outlined=False)
    pen.fill(arc((-0.09, -0.3), (0.34, 0.11)), shade(color, 1.4))
    pen.fill(arc((-0.09, -0.28), (0.27, 0.07)), (92, 54, 28), outlined=False)


DRAWINGS: dict[str, Callable[[Pen, Color, float], None]] = {
    "car": drawings.draw_car,
    "boat": drawings.draw_boat,
    "traffic light": draw_traffic_light,
    "bird": draw_bird,
    "umbrella": drawings.draw_umbrella,
    "sports ball": draw_ball,
    "tennis racket": drawings.draw_racket,
    "cup": draw_cup,
    "fork": drawings.draw_fork,
    "knife": draw_knife,
    "banana": drawings.draw_banana,
    "apple": drawings.draw_apple,
    "pizza": drawings.draw_pizza,
    "chair": drawings.draw_chair,
    "laptop": drawings.draw_laptop,
    "mouse": draw_mouse,
    "clock": drawings.draw_clock,
}
"""How each category, by name, is drawn."""
