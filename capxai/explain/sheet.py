"""The sheet: one picture of a whole explanation, a tile for each word, drawn with Pillow and its bundled font."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from capxai.explain.colors import (
    Scale,
    display_maps,
    diverging,
    diverging_palette,
    ink,
    limits,
    overlay,
    percent,
    resized,
    signed,
)
from capxai.explain.explanation import Explanation, Parts
from capxai.explain.wording import contrast_line, legend, short_title

PART_COLORS = {
    "picture": (16, 145, 129),
    "words": (214, 150, 24),
    "bias": (118, 126, 138),
    "eps": (190, 196, 204),
    "other_heads": (143, 123, 181),
}

_TILE = 240  # width of a tile in pixels
_MARGIN, _GAP = 32, 28
_MOST_COLUMNS, _FEWEST_COLUMNS = 5, 3
_INK, _MUTED, _RULE, _CARD, _PAPER = (22, 26, 33), (98, 106, 118), (222, 226, 232), (255, 255, 255), (244, 245, 247)
_NOTE_PAPER, _NOTE_INK = (255, 243, 214), (105, 66, 0)
_CHIP_HEIGHT, _CHIP_GAP = 38, 5
_PLAIN = {"−": "-", "–": "-", "—": "-", "×": "x", "’": "'", "ß": "ss"}  # the bundled font has little beyond ASCII


@dataclass(frozen=True)
class _Chip:
    """A preceding word, laid out: where it stands below its tile, what it says, its color."""

    x: int
    y: int
    width: int
    word: str
    number: str
    color: NDArray[np.uint8]


@dataclass(frozen=True)
class _Drawing:
    """What all tiles share."""

    explanation: Explanation
    maps: NDArray[np.float32] | None
    map_limits: NDArray[np.float64]
    word_limits: NDArray[np.float64]
    scale: Scale
    picture_size: tuple[int, int]  # (height, width) in a tile


def render_sheet(explanation: Explanation, scale: Scale = "caption") -> Image.Image:
    """Draw the sheet: the picture and a legend first, then a tile for each word, wrapped over rows.

    Args:
        explanation: What to draw: pixel relevance, else region relevance, else the picture alone.
        scale: Whether all words share a color scale.

    Returns:
        An RGB picture, at least three tiles wide.
    """
    drawing = _prepare(explanation, scale)
    count = len(explanation.tokens) + 1
    rows = -(-count // _MOST_COLUMNS)
    columns = max(_FEWEST_COLUMNS, -(-count // rows))
    width = 2 * _MARGIN + columns * _TILE + (columns - 1) * _GAP
    chips = [_layout_chips(drawing, word) for word in range(count - 1)]
    below = [_legend_height(drawing), *(74 + _chips_height(row) for row in chips)]
    heights = [
        40 + drawing.picture_size[0] + max(below[k * columns : (k + 1) * columns]) for k in range(-(-count // columns))
    ]
    top = _draw_header(None, explanation, width)
    sheet = Image.new("RGB", (width, top + sum(heights) + _GAP * len(heights) + _MARGIN - _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _draw_header(pen, explanation, width)
    for k in range(count):
        row, column = divmod(k, columns)
        corner = (_MARGIN + column * (_TILE + _GAP), top + sum(heights[:row]) + row * _GAP)
        card = (corner[0] - 12, corner[1] - 10, corner[0] + _TILE + 11, corner[1] + heights[row] + 3)
        pen.rounded_rectangle(card, 10, fill=_CARD, outline=_RULE)
        if k == 0:
            _draw_first_tile(sheet, drawing, corner)
        else:
            _draw_word_tile(sheet, drawing, k - 1, corner)
            _draw_chips(pen, chips[k - 1], (corner[0], corner[1] + 40 + drawing.picture_size[0] + 74))
    return sheet


def _prepare(explanation: Explanation, scale: Scale) -> _Drawing:
    height, width = explanation.image.shape[:2]
    maps = display_maps(explanation.pixel_relevance, explanation.region_relevance, explanation.grid, (height, width))
    nothing = np.ones(len(explanation.tokens))
    words = explanation.word_relevance
    grow = _TILE / max(height, width)
    return _Drawing(
        explanation=explanation,
        maps=maps,
        map_limits=nothing if maps is None else limits(maps, scale),
        word_limits=nothing if words is None else limits(words, scale, quantile=1),
        scale=scale,
        picture_size=(max(8, round(height * grow)), max(8, round(width * grow))),
    )


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _plain(text: str) -> str:
    """Write text with the characters that the bundled font has; what has no equivalent becomes "?"."""
    replaced = "".join(_PLAIN.get(character, character) for character in text)
    letters = (letter for letter in unicodedata.normalize("NFKD", replaced) if not unicodedata.combining(letter))
    return "".join(
        letter if " " <= letter <= "~" or letter in "·±" else " " if letter.isspace() else "?" for letter in letters
    )


def _fit(text: str, size: int, width: float) -> str:
    """Cut text with an ellipsis so that it is at most ``width`` pixels wide."""
    text = _plain(text)
    if _font(size).getlength(text) <= width:
        return text
    while text and _font(size).getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _wrap(text: str, size: int, width: float, most: int) -> list[str]:
    """Break text into at most ``most`` lines of at most ``width`` pixels; what does not fit is cut."""
    lines = [""]
    for word in _plain(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if _font(size).getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    return [_fit(line, size, width) for line in lines]


def _draw_header(pen: ImageDraw.ImageDraw | None, explanation: Explanation, width: int) -> int:
    """Draw (or, without a pen, only measure) caption, method, model and notes; return where the tiles begin."""
    inner, y = width - 2 * _MARGIN, _MARGIN - 6
    about = f"{explanation.method}  ·  {explanation.model}" + (
        f"  ·  {explanation.source}" if explanation.source else ""
    )
    for line in _wrap(explanation.caption, 30, inner, 2):
        if pen:
            pen.text((_MARGIN, y), line, _INK, _font(30))
        y += 38
    for line in _wrap(contrast_line(explanation), 18, inner, 2):
        if pen and line:
            pen.text((_MARGIN, y + 4), line, _INK, _font(18))
        y += 26 if line else 0
    if pen:
        pen.text((_MARGIN, y + 5), _fit(about, 16, inner), _MUTED, _font(16))
    y += 34
    for note in explanation.notes:
        lines = _wrap(note, 16, inner - 32, 4)
        if pen:
            pen.rounded_rectangle(
                (_MARGIN - 12, y, width - _MARGIN + 11, y + 22 * len(lines) + 14), 8, _NOTE_PAPER, (235, 201, 120)
            )
            for k, line in enumerate(lines):
                pen.text((_MARGIN + 4, y + 8 + 22 * k), line, _NOTE_INK, _font(16))
        y += 22 * len(lines) + 22
    return y + 18


def _place(sheet: Image.Image, pixels: NDArray[np.uint8], corner: tuple[int, int], smooth: bool = True) -> None:
    """Paste a picture at the size it has been prepared for, framed."""
    picture = Image.fromarray(pixels)
    x = corner[0] + (_TILE - picture.width) // 2
    sheet.paste(picture, (x, corner[1]))
    ImageDraw.Draw(sheet).rectangle(
        (x - 1, corner[1] - 1, x + picture.width, corner[1] + picture.height), outline=_RULE
    )


def _enlarged(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _draw_first_tile(sheet: Image.Image, drawing: _Drawing, corner: tuple[int, int]) -> None:
    """Draw the picture as the model saw it, and the legend below it."""
    pen, (x, y), (height, width) = ImageDraw.Draw(sheet), corner, drawing.explanation.image.shape[:2]
    pen.text((x, y), "the picture", _INK, _font(22))
    pen.text((x + _TILE, y + 7), f"{width} x {height} pixels", _MUTED, _font(14), anchor="ra")
    _place(sheet, _enlarged(drawing.explanation.image, drawing.picture_size), (x, y + 36))
    y += 36 + drawing.picture_size[0] + 12
    kind = "pixels" if drawing.explanation.pixel_relevance is not None else "regions"
    bars = [(kind, drawing.map_limits[0])] if drawing.maps is not None else []
    bars += [("preceding words", drawing.word_limits[0])] if drawing.explanation.word_relevance is not None else []
    for k, (title, limit) in enumerate(bars):
        _draw_color_bar(sheet, title, limit if drawing.scale == "caption" else None, (x, y + 58 * k))
    y += 58 * len(bars)
    shared = "one scale for all words." if drawing.scale == "caption" else "each word its own scale."
    for line in (f"In logit units; {shared}", *legend(drawing.explanation)):
        pen.text((x, y), _fit(line, 12, _TILE), _MUTED, _font(12))
        y += 17


def _legend_height(drawing: _Drawing) -> int:
    bars = (drawing.maps is not None) + (drawing.explanation.word_relevance is not None)
    return 12 + 58 * bars + 3 * 17 + 8


def _draw_color_bar(sheet: Image.Image, title: str, limit: float | None, corner: tuple[int, int]) -> None:
    """Draw the color map and name its ends; ``limit`` has the full color, None where words differ in it."""
    pen, (x, y) = ImageDraw.Draw(sheet), corner
    bar = np.broadcast_to(diverging_palette()[None], (12, *diverging_palette().shape)).copy()
    sheet.paste(Image.fromarray(bar).resize((_TILE, 12)), (x, y + 18))
    pen.rectangle((x, y + 18, x + _TILE - 1, y + 30), outline=_RULE)
    pen.text((x, y), title, _INK, _font(13))
    ends = ("against", "for") if limit is None else (f"{_plain(signed(-limit))} against", f"for {signed(limit)}")
    pen.text((x, y + 33), ends[0], _MUTED, _font(13))
    pen.text((x + _TILE // 2, y + 33), "0", _MUTED, _font(13), anchor="ma")
    pen.text((x + _TILE, y + 33), ends[1], _MUTED, _font(13), anchor="ra")


def _draw_word_tile(sheet: Image.Image, drawing: _Drawing, word: int, corner: tuple[int, int]) -> None:
    """Draw one word: its name and probability, its heatmap over the picture, and where its logit comes from."""
    pen, (x, y), explanation = ImageDraw.Draw(sheet), corner, drawing.explanation
    probability = percent(float(explanation.probability[word]), sign=False) if explanation.contrast is None else ""
    room = _TILE - _font(15).getlength(probability) - 12
    pen.text((x, y), _fit(short_title(explanation, word), 22, room), _INK, _font(22))
    pen.text((x + _TILE, y + 6), probability, _MUTED, _font(15), anchor="ra")
    image = _enlarged(explanation.image, drawing.picture_size)
    relevance = np.zeros(drawing.picture_size, np.float32)
    if drawing.maps is not None:
        relevance = resized(drawing.maps[word], drawing.picture_size)
    _place(sheet, overlay(image, relevance, drawing.map_limits[word]), (x, y + 36))
    y += 36 + drawing.picture_size[0]
    if drawing.maps is not None and drawing.scale == "word":
        label = f"±{signed(drawing.map_limits[word]).lstrip('+')}"
        pen.rectangle((x, y - 19, x + _font(12).getlength(label) + 9, y - 1), fill=_CARD)
        pen.text((x + 5, y - 17), label, _MUTED, _font(12))
    _draw_parts(pen, explanation.totals(word), explanation.shares(word), (x, y + 12))


def _draw_parts(pen: ImageDraw.ImageDraw, totals: Parts, shares: Parts, corner: tuple[int, int]) -> None:
    """Draw the parts as one bar, negative ones left of the zero line, and their shares in numbers."""
    x, y = corner
    present = totals.present()
    whole = sum(abs(value) for value in present.values()) or 1.0
    zero = x + _TILE * sum(-value for value in present.values() if value < 0) / whole
    left = right = zero
    for name, value in present.items():
        length = _TILE * abs(value) / whole
        start = right if value >= 0 else left - length
        if length >= 0.5:
            pen.rectangle(
                (round(start), y, max(round(start), round(start + length) - 1), y + 9), fill=PART_COLORS[name]
            )
        left, right = (left, right + length) if value >= 0 else (left - length, right)
    pen.line((min(round(zero), x + _TILE - 1), y - 3, min(round(zero), x + _TILE - 1), y + 12), fill=_INK, width=1)
    for k, name in enumerate(present):
        left_edge, line = x + (k % 2) * (_TILE // 2 + 4), y + 19 + 18 * (k // 2)
        pen.rectangle((left_edge, line + 3, left_edge + 8, line + 11), fill=PART_COLORS[name])
        pen.text((left_edge + 14, line), name, _MUTED, _font(13))
        pen.text(
            (left_edge + _TILE // 2 - 8, line), _plain(percent(getattr(shares, name))), _INK, _font(13), anchor="ra"
        )


def _layout_chips(drawing: _Drawing, word: int) -> list[_Chip]:
    """Lay out the preceding words of one word, wrapped to the width of a tile."""
    relevance = drawing.explanation.word_relevance
    if relevance is None:
        return []
    chips: list[_Chip] = []
    x = y = 0
    for column, text in enumerate(drawing.explanation.inputs(word)):
        value = relevance[word, column]
        label, number = _fit(text, 14, 120), _plain(signed(float(value)))
        width = round(max(_font(14).getlength(label), _font(12).getlength(number))) + 12
        if x and x + width > _TILE:
            x, y = 0, y + _CHIP_HEIGHT + _CHIP_GAP
        chips.append(_Chip(x, y, width, label, number, diverging(value, drawing.word_limits[word])))
        x += width + _CHIP_GAP
    return chips


def _chips_height(chips: list[_Chip]) -> int:
    return chips[-1].y + _CHIP_HEIGHT + 10 if chips else 0


def _draw_chips(pen: ImageDraw.ImageDraw, chips: list[_Chip], corner: tuple[int, int]) -> None:
    """Draw the preceding words in their colors, the signed relevance under each."""
    for chip in chips:
        x, y, color = corner[0] + chip.x, corner[1] + chip.y, ink(chip.color)
        pen.rounded_rectangle((x, y, x + chip.width, y + _CHIP_HEIGHT), 6, tuple(int(c) for c in chip.color), _RULE)
        pen.text((x + chip.width / 2, y + 3), chip.word, color, _font(14), anchor="ma")
        pen.text((x + chip.width / 2, y + 21), chip.number, color, _font(12), anchor="ma")
