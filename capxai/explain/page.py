"""The page: an explanation as one HTML file without network, for pointer, keyboard and screen reader."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from capxai.explain.colors import (
    OPACITY,
    Scale,
    display_maps,
    diverging,
    diverging_palette,
    ink,
    levels,
    limits,
    overlay_palette,
    percent,
    signed,
)
from capxai.explain.explanation import PARTS, Explanation
from capxai.explain.wording import confidence, question, share_text, share_title, sides
from capxai.types import FloatArray, ImageArray, JsonObject

_SCALES: tuple[Scale, ...] = ("caption", "word")
_ATTENTION_COLOR = (88, 44, 168)  # neither for nor against
_PICTURE_SIDE = 512  # longest side of the picture that the page carries, in pixels
_LAYER_NAMES = {"pixels": "pixels", "regions": "regions", "attention": "attention", "plain": "picture"}
_LAYER_TEXTS = {
    "pixels": "Relevance of the pixels, in logit units. Red speaks for {one}, blue {other}.",
    "regions": "Relevance of the regions, in logit units. Red speaks for {one}, blue {other}.",
    "attention": "Attention weights, mean over the heads: where the model looked. Each word has its own scale.",
    "plain": "The picture as the model saw it.",
}


def render_page(explanation: Explanation, scale: Scale = "caption") -> str:
    """Write the page.

    Args:
        explanation: What to show. Layers that it lacks (pixels, regions, attention) are left out.
        scale: The color scale shown first; the page can switch to the other.

    Returns:
        HTML with style, script, data and pictures inside. Every text from outside is escaped.
    """
    data = _data(explanation, scale)
    height, width = explanation.image.shape[:2]
    fields = {
        "title": escape(f"{explanation.caption} - capxai explanation"),
        "notes": "\n".join(f'<p class="note" role="note">{escape(note)}</p>' for note in explanation.notes),
        "question": escape(question(explanation)),
        "buttons": "\n".join(
            [
                *(_span(token, "before") for token in explanation.before),
                *(_button(explanation, word) for word in range(len(explanation.tokens))),
                *(_span(token, "after") for token in explanation.after),
            ]
        ),
        "picture": _picture(explanation.image),
        "size": f"{width} × {height}",
        "gradient": ", ".join(_css(color) for color in diverging_palette()[::6]),
        "layers": "".join(_radio(name) for name in data["layers"]),
        "opacity": str(round(100 * OPACITY)),
        "share-title": share_title(explanation),
        "share-text": escape(share_text(explanation)),
        "tables": _shares_table(explanation) + _words_table(explanation),
        "about": _about(explanation),
        "data": json.dumps(data, allow_nan=False)
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026"),
    }
    template = files("capxai.explain").joinpath("page_template.html").read_text(encoding="utf-8")
    return re.sub(r"@@([a-z-]+)@@", lambda found: fields[found[1]], template)


def _span(token: str, place: str) -> str:
    return f'<span class="word {place}">{escape(token)}</span>'


def _data(explanation: Explanation, scale: Scale) -> JsonObject:
    """Gather what the script needs: heatmaps by layer, scale and word, and the texts of each word."""
    heatmaps = _heatmaps(explanation)
    one, other = sides(explanation)
    return {
        "scale": scale,
        "scaled": any(name in heatmaps for name in ("pixels", "regions")) or explanation.word_relevance is not None,
        "layers": [*heatmaps, "plain"],
        "texts": {name: text.format(one=one, other=other) for name, text in _LAYER_TEXTS.items()},
        "heatmaps": heatmaps,
        "words": [_word(explanation, word) for word in range(len(explanation.tokens))],
    }


def _heatmaps(explanation: Explanation) -> JsonObject:
    """Draw every layer that the explanation has; regions and attention need a grid and stay as small as it is."""
    layers: JsonObject = {}
    grid = explanation.grid
    pixels = display_maps(explanation.pixel_relevance, None, None, explanation.image.shape[:2])
    if pixels is not None:
        layers["pixels"] = _relevance_layer(pixels)
    if explanation.region_relevance is not None and grid is not None:
        layers["regions"] = _relevance_layer(explanation.region_relevance.reshape(-1, *grid))
    if explanation.attention is not None and grid is not None:
        weights = explanation.attention
        weights = weights.mean(axis=1) if weights.ndim == 3 else weights
        layers["attention"] = {"word": [_attention_map(one.reshape(grid)) for one in weights]}
    return layers


def _relevance_layer(maps: FloatArray) -> JsonObject:
    """Draw (T, h, w) relevance on both scales, with the ends of the scale in words."""
    layer: JsonObject = {"limits": {}}
    for scale in _SCALES:
        ends = limits(maps, scale)
        layer[scale] = [_palette_png(levels(one, end), overlay_palette()) for one, end in zip(maps, ends, strict=True)]
        layer["limits"][scale] = [[signed(-end), signed(end)] for end in ends]
    return layer


def _attention_map(weights: FloatArray) -> str:
    """Draw attention weights (rows, columns) in one hue, from nothing to the largest weight."""
    steps = np.rint(255 * weights / max(float(weights.max()), 1e-12)).clip(0, 255).astype(np.uint8)
    palette = np.tile(np.array([*_ATTENTION_COLOR, 0], np.uint8), (256, 1))
    palette[:, 3] = np.arange(256)
    return _palette_png(steps, palette)


def _palette_png(indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> str:
    """Encode palette indices (h, w) with a translucent palette (n, 4) as a PNG data URI."""
    image = Image.fromarray(indices).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(palette[:, :3].tobytes())
    return _data_uri(lambda stream: image.save(stream, "PNG", optimize=True, transparency=palette[:, 3].tobytes()))


def _picture(image: ImageArray) -> str:
    """Encode the picture as a PNG data URI, at most ``_PICTURE_SIDE`` large."""
    picture = Image.fromarray(image)
    picture.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    return _data_uri(lambda stream: picture.save(stream, "PNG", optimize=True))


def _data_uri(write: Callable[[io.BytesIO], Any]) -> str:
    stream = io.BytesIO()
    write(stream)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _css(color: NDArray[np.uint8] | tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(channel) for channel in color))


def _word(explanation: Explanation, word: int) -> JsonObject:
    """Describe one word: its numbers, its preceding words with their colors, its parts with their places in the bar."""
    parts, zero = _parts(explanation, word)
    token, probability = explanation.tokens[word], percent(float(explanation.probability[word]), sign=False)
    description: JsonObject = {
        "token": token,
        "confidence": confidence(explanation, word),
        "contrast": explanation.contrast is not None,
        "sides": [f"“{token}”", "against"] if explanation.contrast is None else list(sides(explanation)),
        "parts": parts,
        "zero": zero,
        "title": explanation.title(word),
        "spoken": f"{explanation.title(word)}, probability {probability}. "
        + ", ".join(f"{part['name']} {part['share']}" for part in parts),
    }
    if explanation.word_relevance is not None:
        ends = {scale: float(limits(explanation.word_relevance, scale, quantile=1)[word]) for scale in _SCALES}
        description["limit"] = {scale: signed(end).lstrip("+") for scale, end in ends.items()}
        row = explanation.word_relevance[word]
        description["preceding"] = [
            _input(text, row[column], ends) for column, text in enumerate(explanation.inputs(word))
        ]
    return description


def _input(token: str, relevance: np.float32, ends: dict[Scale, float]) -> JsonObject:
    """Describe one preceding word: its signed relevance, and background and ink on both scales."""
    backgrounds = {scale: diverging(np.asarray(relevance), end) for scale, end in ends.items()}
    return {
        "token": token,
        "text": signed(float(relevance)),
        "sign": "for" if relevance > 0 else "against" if relevance < 0 else "",
        "colors": {scale: [_css(color), _css(ink(color))] for scale, color in backgrounds.items()},
    }


def _parts(explanation: Explanation, word: int) -> tuple[list[JsonObject], float]:
    """Return the parts of one word and the place of the zero line, places and widths in percent of the bar.

    Negative parts are stacked to the left of the zero line, positive ones to the right; a length is the absolute total.
    """
    totals, shares = explanation.totals(word).present(), explanation.shares(word)
    whole = sum(abs(value) for value in totals.values()) or 1.0
    zero = left = right = 100 * sum(-value for value in totals.values() if value < 0) / whole
    parts = []
    for name, value in totals.items():
        width = 100 * abs(value) / whole
        start = right if value >= 0 else left - width
        left, right = (left, right + width) if value >= 0 else (left - width, right)
        share = percent(getattr(shares, name))
        parts.append(
            {"name": name, "left": round(start, 3), "width": round(width, 3), "share": share, "total": signed(value)}
        )
    return parts, round(zero, 3)


def _button(explanation: Explanation, word: int) -> str:
    token = explanation.tokens[word]
    before, after = len(explanation.before), len(explanation.after)
    label = f"{token}, word {before + word + 1} of {before + len(explanation.tokens) + after}"
    attributes = f'type="button" data-word="{word}" aria-pressed="false" aria-label="{escape(label)}"'
    return f"<button {attributes}>{escape(token)}</button>"


def _radio(layer: str) -> str:
    return f'<label><input type="radio" name="layer" value="{layer}"> {_LAYER_NAMES[layer]}</label>'


def _shares_table(explanation: Explanation) -> str:
    """Write the shares of all words as a table."""
    names = [name for name in PARTS if name != "other_heads" or explanation.other_heads_relevance is not None]
    other = explanation.contrast
    compared = [] if other is None else [percent(other.probability, sign=False), signed(other.logit)]
    rows = []
    for word in range(len(explanation.tokens)):
        totals, shares = explanation.totals(word).present(), explanation.shares(word)
        cells = [percent(float(explanation.probability[word]), sign=False), signed(float(explanation.logits[word]))]
        cells += compared + ([signed(explanation.explained(word))] if compared else [])
        cells += [
            f"{signed(totals[name])} ({percent(getattr(shares, name))})" if name in totals else "–" for name in names
        ]
        rows.append(_row(explanation.title(word), cells))
    caption = "Signed relevance of each part in logit units, and its share."
    columns = (
        [] if other is None else [f"probability of {other.token}", f"logit of {other.token}", "difference of logits"]
    )
    return _table(caption, ["word", "probability", "logit", *columns, *names], rows)


def _words_table(explanation: Explanation) -> str:
    """Write the relevance of every preceding word for every word as a table."""
    relevance = explanation.word_relevance
    if relevance is None:
        return ""
    last = len(explanation.tokens) - 1
    before, inputs = len(explanation.before), explanation.inputs(last)
    rows = [
        _row(
            explanation.title(word),
            [signed(float(number)) if column <= before + word else "" for column, number in enumerate(relevance[word])],
        )
        for word in range(last + 1)
    ]
    caption = "Relevance of each preceding word (column) for each word (row), in logit units."
    return _table(caption, ["word", *inputs], rows)


def _table(caption: str, columns: list[str], rows: list[str]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in columns)
    parts = (f"<caption>{caption}</caption>", f"<thead><tr>{head}</tr></thead>", f"<tbody>{''.join(rows)}</tbody>")
    return f'<div class="scroll" tabindex="0"><table>{"".join(parts)}</table></div>'


def _row(head: str, cells: list[str]) -> str:
    return f'<tr><th scope="row">{escape(head)}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _about(explanation: Explanation) -> str:
    height, width = explanation.image.shape[:2]
    about = (
        explanation.source,
        f"{width} × {height} pixels",
        f"method {explanation.method}",
        f"model {explanation.model}",
    )
    return " · ".join(escape(text) for text in about if text)
