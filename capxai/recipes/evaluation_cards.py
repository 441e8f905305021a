"""The pictures of the evaluation page: hallucinated captions first, each with its words marked and its picture inside the file."""

from __future__ import annotations

import base64
import io
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from capxai.data.images import read_image
from capxai.errors import ImageError
from capxai.recipes.evaluation_titles import number, title
from capxai.types import JsonObject

THUMBNAIL = (320, 240)
"""Largest width and height of an embedded picture, in pixels."""

JPEG_QUALITY = 72


@dataclass(frozen=True)
class Budget:
    """How much a page may carry.

    Attributes:
        hallucinated: Most pictures with a hallucination.
        others: Most pictures without.
        thumbnail_bytes: Most bytes of embedded pictures, as they stand in the file.
    """

    hallucinated: int = 500
    others: int = 100
    thumbnail_bytes: int = 22 * 2**20


@dataclass(frozen=True)
class Cards:
    """The cards of a page.

    Attributes:
        html: All cards in a row.
        count: How many there are.
        left_out: What is not shown and why, one sentence each.
    """

    html: str
    count: int
    left_out: tuple[str, ...]


def chosen(images: Sequence[JsonObject], budget: Budget) -> tuple[list[JsonObject], list[str]]:
    """Choose the pictures of a page: most hallucinated mentions first, then the lowest CIDEr-D, and say how many are left out."""
    false = sorted((image for image in images if image.get("hallucinated")), key=_worst_first)
    others = sorted((image for image in images if not image.get("hallucinated")), key=_worst_first)
    notes = [
        f"{len(group) - most:,} further pictures {kind} a hallucination are left out of this page; eval.csv and eval.json have them."
        for group, most, kind in ((false, budget.hallucinated, "with"), (others, budget.others, "without"))
        if len(group) > most
    ]
    return false[: budget.hallucinated] + others[: budget.others], notes


def _worst_first(image: JsonObject) -> tuple[int, float]:
    metrics = image.get("metrics", {})
    return -len(image.get("hallucinated", ())), metrics.get("cider", metrics.get("bleu_4", 0.0))


def render_cards(
    images: Sequence[JsonObject], paths: Mapping[int, Path], places: Mapping[str, int], budget: Budget
) -> Cards:
    """Write the cards.

    Args:
        images: The entries of ``images`` in eval.json.
        paths: Picture files by image id; pictures without one are shown by their id alone.
        places: A number for each category, by which the page filters.
        budget: How much to show.
    """
    shown, notes = chosen(images, budget)
    room, cards, unread, crowded = budget.thumbnail_bytes, [], 0, 0
    for image in shown:
        uri = thumbnail(paths.get(image["image_id"]))
        unread += uri is None
        if uri is not None and len(uri) > room:
            uri, crowded = None, crowded + 1
        room -= len(uri or "")
        cards.append(_card(image, uri, places))
    if unread:
        notes.append(f"{unread:,} of the {len(shown):,} picture files are not at hand, or cannot be read.")
    if crowded:
        notes.append(f"{crowded:,} pictures are left out, so that this file stays small; their captions are here.")
    return Cards("\n".join(cards), len(shown), tuple(notes))


def thumbnail(path: Path | None) -> str | None:
    """Shrink a picture to a JPEG data URI; None where there is no picture that can be read."""
    if path is None:
        return None
    try:
        picture = Image.fromarray(read_image(path))
    except ImageError:
        return None
    picture.thumbnail(THUMBNAIL)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _card(image: JsonObject, uri: str | None, places: Mapping[str, int]) -> str:
    number_of = image["image_id"]
    false = list(dict.fromkeys(image.get("hallucinated", ())))
    named = list(dict.fromkeys([*image.get("mentioned", ()), *image.get("missed", ())]))
    picture = (
        f'<img src="{uri}" alt="Picture {number_of}" decoding="async">'
        if uri
        else f'<div class="absent">picture {number_of}</div>'
    )
    verdicts = [
        f'<p class="verdict"><b>Not there:</b> {escape(", ".join(false))}</p>' if false else "",
        f'<p class="verdict">Not named: {escape(", ".join(image["missed"]))}</p>' if image.get("missed") else "",
    ]
    data = f'data-false="{_numbers(false, places)}" data-named="{_numbers(named, places)}" data-image="{number_of}"'
    return (
        f'<article class="picture{" false" if false else ""}" {data} aria-label="Picture {number_of}">{picture}<div class="text">'
        f'<p class="caption">{marked_caption(image)}</p>{"".join(verdicts)}'
        f'<p class="meta">{escape(_figures(image))}</p>{_references(image)}</div></article>'
    )


def _numbers(categories: Sequence[str], places: Mapping[str, int]) -> str:
    return " ".join(str(places[category]) for category in categories if category in places)


def _figures(image: JsonObject) -> str:
    metrics = image.get("metrics", {})
    figures = [
        f"{title(name).name} {number(metrics[name])}" for name in ("cider", "bleu_4", "spice") if name in metrics
    ]
    return " · ".join([f"image {image['image_id']}", *figures])


def _references(image: JsonObject) -> str:
    references = image.get("references") or ()
    if not references:
        return ""
    rows = "".join(f"<li>{escape(text)}</li>" for text in references)
    plural = "s" if len(references) > 1 else ""
    return f"<details><summary>{len(references)} reference{plural}</summary><ul>{rows}</ul></details>"


def marked_caption(image: JsonObject) -> str:
    """Write a caption with its object words marked; their places are those of composed characters (NFC)."""
    caption = unicodedata.normalize("NFC", image["caption"])
    false, pieces, place = set(image.get("hallucinated_positions", ())), list[str](), 0
    columns = (image.get(name, ()) for name in ("spans", "positions", "mentioned"))
    for (start, end), position, category in zip(*columns, strict=True):
        pieces += [escape(caption[place:start]), _mark(caption[start:end], category, position in false)]
        place = end
    return "".join([*pieces, escape(caption[place:])]) or "<i>(empty)</i>"


def _mark(text: str, category: str, false: bool) -> str:
    label = f"{category}: {'not in the picture' if false else 'in the picture'}"
    spoken = '<span class="unseen"> (not in the picture)</span>' if false else ""
    return f'<mark class="{"false" if false else "true"}" title="{escape(label)}">{escape(text)}{spoken}</mark>'
