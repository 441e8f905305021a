"""What fine-tuning changed as one HTML file without network: counts, and pictures with both captions and what the words were seen from."""

from __future__ import annotations

import base64
import io
import re
import unicodedata
from collections.abc import Sequence
from html import escape
from importlib.resources import files

import numpy as np
from PIL import Image

from capxai.explain.colors import limits, overlay, percent, resized
from capxai.recipes.evaluation_cards import JPEG_QUALITY, thumbnail
from capxai.recipes.finetune_comparison import Comparison, PictureChange, WordChange
from capxai.recipes.finetune_relevance import WordRelevance
from capxai.types import FloatArray, ImageArray

HEAT_SIDE = 224
"""Longest side of a heatmap on the page, in pixels."""
MOST_BYTES = 16 * 2**20
"""Of all pictures and heatmaps together, as they stand in the file."""

KINDS = {
    ("vanished", False): ("gone-false", "vanished, was hallucinated"),
    ("appeared", False): ("new-false", "appeared, hallucinated"),
    ("vanished", True): ("gone-true", "vanished, was true"),
    ("appeared", True): ("new-true", "appeared, true"),
}
"""Class and words of each kind of change, the most telling first."""


def render_changes(comparison: Comparison, shown: int) -> str:
    """Write the page.

    Args:
        comparison: What changed.
        shown: Pictures with another caption that are shown at most; explained ones come first.

    Returns:
        HTML with style, script and pictures inside. Every text from outside is escaped.
    """
    before, after = comparison.names
    chosen = sorted(comparison.changes, key=_order)[:shown]
    notes = list(comparison.notes)
    if len(chosen) < len(comparison.changes):
        left = len(comparison.changes) - len(chosen)
        notes.append(f"{left:,} further changed captions are left out of this page; changes.json has them.")
    fields = {
        "title": escape(f"{before} and {after} on {comparison.split} - what changed"),
        "about": escape(f"Before: {before}. After: {after}. {comparison.pictures:,} pictures of {comparison.split}."),
        "notes": "\n".join(f'<p class="note" role="note">{escape(note)}</p>' for note in notes),
        "counts": _counts(comparison),
        "categories": _categories(comparison),
        "options": "".join(f'<option value="{key}">{escape(text)}</option>' for key, text in KINDS.values()),
        "cards": _cards(chosen),
    }
    template = files("capxai.recipes").joinpath("finetune_changes_page.html").read_text(encoding="utf-8")
    return re.sub(r"@@([a-z-]+)@@", lambda found: fields[found[1]], template)


def _order(change: PictureChange) -> tuple[bool, bool]:
    return not any(word.before for word in change.words), not change.words


def _counts(comparison: Comparison) -> str:
    counts = comparison.counts()
    rows = [
        ("captions changed", f"{counts['changed_captions']:,} of {counts['pictures']:,}"),
        ("hallucinated words that vanished", f"{counts['vanished_hallucinations']:,}"),
        ("hallucinated words that appeared", f"{counts['appeared_hallucinations']:,}"),
        ("true words that vanished", f"{counts['vanished_true']:,}"),
        ("true words that appeared", f"{counts['appeared_true']:,}"),
    ]
    return "".join(f'<tr><th scope="row">{name}</th><td class="value">{value}</td></tr>' for name, value in rows)


def _categories(comparison: Comparison) -> str:
    columns = ("vanished_hallucinations", "appeared_hallucinations", "vanished_true", "appeared_true")
    rows = [
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{found.get(key, 0)}</td>" for key in columns)
        + "</tr>"
        for name, found in comparison.categories().items()
    ]
    return "".join(rows)


def _cards(changes: Sequence[PictureChange]) -> str:
    room, cards = MOST_BYTES, []
    for change in changes:
        card = _card(change, room > 0)
        room -= len(card)
        cards.append(card)
    return "\n".join(cards)


def _card(change: PictureChange, drawn: bool) -> str:
    picture = change.picture
    uri = thumbnail(picture.path) if drawn else None
    image = (
        f'<img src="{uri}" alt="Picture {picture.id}" decoding="async">'
        if uri
        else f'<div class="absent">picture {picture.id}</div>'
    )
    kinds = " ".join(dict.fromkeys(_kind(word)[0] for word in change.words))
    words = "".join(_word(word, drawn) for word in change.words)
    none = '<p class="hint">Other words, the same objects.</p>'
    return (
        f'<article class="picture" data-kinds="{kinds}" tabindex="0" aria-label="Picture {picture.id}"><div class="side">{image}'
        f'<p class="meta">image {picture.id}</p></div><div class="text">'
        f'<p class="caption"><b>before</b> {_marked(change, "vanished")}</p>'
        f'<p class="caption"><b>after</b> {_marked(change, "appeared")}</p>{words or none}</div></article>'
    )


def _kind(word: WordChange) -> tuple[str, str]:
    return KINDS[word.kind, word.true]


def _marked(change: PictureChange, kind: str) -> str:
    """Write a caption with the words marked that the other one lacks."""
    text = unicodedata.normalize("NFC", change.before if kind == "vanished" else change.after)
    pieces, place = list[str](), 0
    for word in sorted((word for word in change.words if word.kind == kind), key=lambda word: word.span):
        key, label = _kind(word)
        start, end = word.span
        mark = f'<mark class="{key}" title="{escape(label)}">{escape(text[start:end])}</mark>'
        pieces += [escape(text[place:start]), mark]
        place = end
    return "".join([*pieces, escape(text[place:])]) or "<i>(empty)</i>"


def _word(word: WordChange, drawn: bool) -> str:
    key, label = _kind(word)
    head = f'<p class="verdict"><mark class="{key}">{escape(word.text)}</mark> {escape(label)}</p>'
    if word.before is None or word.after is None:
        return head
    maps = [one.heat for one in (word.before, word.after) if one.heat is not None]
    limit = float(limits(np.stack(maps), "caption")[0]) if maps and drawn else None
    sides = "".join(_side(name, one, limit) for name, one in (("before", word.before), ("after", word.after)))
    return f'<section class="word">{head}<div class="pair">{sides}</div></section>'


def _side(name: str, found: WordRelevance, limit: float | None) -> str:
    uri = None if found.heat is None or limit is None else _heatmap(found.image, found.heat, limit)
    image = f'<img src="{uri}" alt="Relevance of the picture, {name}">' if uri else ""
    numbers = f"probability {percent(found.probability, sign=False)}"
    shares = f"picture {percent(found.picture)}, words {percent(found.words)}"
    return f"<figure>{image}<figcaption><b>{name}</b> {numbers}<br>{shares}</figcaption></figure>"


def _heatmap(image: ImageArray | None, heat: FloatArray, limit: float) -> str:
    """Draw relevance (h, w) over the picture as a JPEG data URI; both sides of a word share ``limit``."""
    shrink = HEAT_SIDE / max(heat.shape)
    size = (max(1, round(heat.shape[0] * shrink)), max(1, round(heat.shape[1] * shrink)))
    below = np.full((*size, 3), 255, np.uint8)
    if image is not None:
        below = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    stream = io.BytesIO()
    Image.fromarray(overlay(below, resized(heat, size), limit)).save(stream, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
