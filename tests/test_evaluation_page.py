"""The evaluation page as a file: order, escaping, size, and what it says where something is missing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from capxai.recipes.evaluation_cards import Budget, marked_caption, thumbnail
from capxai.recipes.evaluation_page import render_page

EVIL = "<script>alert('a \"dog\"')</script> & <img src=x onerror=alert(1)> dog"


def picture(image_id: int, caption: str = "a dog and a cat", false: tuple[str, ...] = ()) -> dict[str, Any]:
    """Describe a picture as eval.json does; the caption's words "dog" and "cat" are its mentions."""
    found = [(match.start(), match.end(), match[0]) for match in re.finditer("dog|cat", caption)]
    words = [word for _, _, word in found]
    return {
        "image_id": image_id,
        "caption": caption,
        "references": ["a dog", "two cats"],
        "metrics": {"cider": image_id / 1000},
        "objects": ["person", *sorted({"cat", "dog"} - set(false))],
        "words": words,
        "positions": list(range(len(found))),
        "spans": [[start, end] for start, end, _ in found],
        "mentioned": words,
        "hallucinated": [word for word in words if word in false],
        "hallucinated_positions": [place for place, word in enumerate(words) if word in false],
        "missed": ["person"],
    }


def make_report(images: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Put pictures into a report."""
    score = {
        "precision": 0.5,
        "recall": None,
        "f1": 0.5,
        "pictures": 3,
        "mentioned": 2,
        "mentions": 2,
        "hallucinations": 1,
    }
    return {
        "schema": 2,
        "model": "a model",
        "corpus": "scenes",
        "split": "test",
        "overall": {
            "bleu_4": {"value": 0.25, "low": 0.2, "high": 0.3},
            "cider": {"value": 1.25, "low": 1.0, "high": 1.5},
            "chair_i": {"value": 0.125, "low": 0.1, "high": 0.15},
        },
        "categories": {"cat": score, "dog": {**score, "hallucinations": 7}},
        "confusions": [{"hallucinated": "dog", "other": "cat", "pictures": 3, "share": 0.5, "base_share": 0.1}],
        "images": images,
        "provenance": {"image_list_sha256": "abc", "versions": {"capxai": "1", "java": None}},
        **more,
    }


class _Checker(HTMLParser):
    """Collects tags, and attributes that would reach for the network."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs), (tag, attrs)


def check(page: str) -> _Checker:
    """Parse a page and return what was found."""
    checker = _Checker()
    checker.feed(page)
    return checker


def order(page: str) -> list[int]:
    """Return the image ids of the cards in their order."""
    return [int(number) for number in re.findall(r'data-image="(\d+)"', page)]


def test_figures_have_intervals_and_hallucinations_come_first() -> None:
    images = [
        picture(1),
        picture(2, false=("dog",)),
        picture(3),
        picture(4, false=("dog", "cat")),
        picture(5, false=("cat",)),
    ]
    page = render_page(make_report(images), {})
    assert order(page) == [4, 2, 5, 1, 3]  # most false mentions, then the lowest CIDEr-D
    for text in ("0.1250", "0.1000 – 0.1500", "CHAIRi", "lower is better", "BLEU-4", "CIDEr-D", "1.2500", "abc"):
        assert text in page
    assert page.index('data-category="1"') < page.index('data-category="0"')  # dog has more hallucinations than cat
    assert "Confusions" in page
    assert "Not there:</b> dog, cat" in page


def test_all_text_is_escaped_and_nothing_is_fetched() -> None:
    report = make_report(
        [{**picture(1, EVIL, ("dog",)), "references": [EVIL], "missed": [EVIL]}],
        model=EVIL,
        corpus=EVIL,
        notes=[EVIL],
        skipped={"spice": EVIL},
        comparison={
            "other": EVIL,
            "overall": {EVIL: {"this": 1.0, "other": 0.5, "difference": 0.5, "low": 0.1, "high": 0.9, "p": 0.01}},
        },
        categories={EVIL: {"precision": 1.0, EVIL: EVIL}},
        confusions=[{"hallucinated": EVIL, "other": EVIL, "pictures": 1}],
        provenance={EVIL: EVIL, "more": {EVIL: EVIL}},
    )
    page = render_page(report, {})
    plain, found = check(render_page(make_report([picture(1)]), {})), check(page)
    assert found.tags.count("script") == plain.tags.count("script") == 1
    assert "img" not in found.tags
    assert found.links == []
    assert "@@" not in page
    assert "default-src 'none'" in page


def test_pictures_are_inside_and_small(tmp_path: Path) -> None:
    Image.new("RGB", (1600, 800), (200, 30, 30)).save(tmp_path / "1.png")
    uri = thumbnail(tmp_path / "1.png")
    assert uri is not None
    page = render_page(make_report([picture(1), picture(2)]), {1: tmp_path / "1.png", 2: tmp_path / "none.png"})
    assert check(page).links == [uri]
    assert uri.startswith("data:image/jpeg;base64,")
    assert "1 of the 2 picture files are not at hand" in page
    assert "picture 2</div>" in page


def test_five_hundred_hallucinations_stay_below_thirty_megabytes(tmp_path: Path) -> None:
    """Noise is the worst that JPEG can meet; what does not fit is left out, and the page says so."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.bmp")
    long = "a dog and a cat with " + "a long caption of many words " * 4
    images = [{**picture(number, long, ("dog",)), "references": [long] * 5} for number in range(600)] + [
        picture(number) for number in range(600, 900)
    ]
    page = render_page(make_report(images), dict.fromkeys(range(900), tmp_path / "noise.bmp"))
    assert len(page.encode()) < 30e6
    assert len(order(page)) == 600
    assert "100 further pictures with a hallucination are left out" in page
    assert "200 further pictures without a hallucination are left out" in page
    assert "pictures are left out, so that this file stays small" in page
    assert page.count("data:image/jpeg") > 200


def test_the_budget_of_pictures_is_kept(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (1, 2, 3)).save(tmp_path / "p.png")
    uri = thumbnail(tmp_path / "p.png")
    assert uri is not None
    budget = Budget(hallucinated=2, others=2, thumbnail_bytes=3 * len(uri))
    images = [picture(number, false=("dog",) if number < 5 else ()) for number in range(9)]
    page = render_page(make_report(images), dict.fromkeys(range(9), tmp_path / "p.png"), budget)
    assert len(order(page)) == 4
    assert page.count(uri) == 3
    assert "1 pictures are left out, so that" in page


def test_a_report_without_objects_or_pictures_is_a_page_too() -> None:
    bare = {"image_id": 1, "caption": "a dog", "references": [], "metrics": {"cider": 0.5}}
    report = make_report([bare])
    for name in ("categories", "confusions"):
        del report[name]
    del report["overall"]["chair_i"]
    page = render_page(report, {})
    assert "Captions against references" in page
    assert "<h2>Objects</h2>" not in page
    assert 'id="category"' not in page
    assert 'id="only"' not in page
    assert order(page) == [1]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog, a CAT.", ["dog"]),
        ("e\u0301t\u00e9 <b>dog</b>", ["dog"]),  # composed: the places are those after composition
        ("", []),
    ],
)
def test_marks_stand_where_the_words_are(caption: str, expected: list[str]) -> None:
    import unicodedata

    image = picture(1, unicodedata.normalize("NFC", caption), ("dog",)) | {"caption": caption}
    marked = marked_caption(image)
    assert re.findall(r"<mark[^>]*>(\w+)<", marked) == expected
    assert "<b>" not in marked
    if not caption:
        assert "empty" in marked
