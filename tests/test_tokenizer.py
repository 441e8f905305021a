"""The tokenizer in Python against the one in Java that the field uses."""

from __future__ import annotations

import difflib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hard_captions import HARD_CAPTIONS

from capxai.data.scenes.captions import Mention, write_captions
from capxai.evaluate.java_process import JavaLimits
from capxai.evaluate.java_tokenizer import tokenize_all_with_java
from capxai.evaluate.metrics import bleu, cider
from capxai.evaluate.tokenizer import tokenize, tokenize_all

ANNOTATIONS = Path(__file__).resolve().parents[2] / "shared" / "coco-mini" / "annotations"
REFERENCES = 5

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
needs_captions = pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="needs ../shared/coco-mini")

DISAGREEMENTS = [
    ("5p.x", "5p x"),
    ("dunkin", "dunkin'"),
    ("li'l", "li l"),
    ("ca n`t", "can t"),
    ("„", ""),
    ("-lrb-555-rrb-", "-lrb- 555 -rrb-"),
    ('<a href="x">', "< a href = x >"),
]
"""Where the tokenizers differ on the 1,000 captions, all of it in the hard ones: what Java has, what Python has instead."""


def thousand_captions() -> list[str]:
    """Return the 795 captions of coco-mini, 100 of the built-in corpus, and 105 hard ones."""
    paths = [ANNOTATIONS / f"captions_{part}2017.json" for part in ("train", "val")]
    found = [entry["caption"] for path in paths for entry in json.loads(path.read_text())["annotations"]]
    mentions = [Mention("dog", "brown"), Mention("bench", ""), Mention("umbrella", "red")]
    for seed in range(20):
        found += write_captions(np.random.default_rng(seed), mentions[: 1 + seed % 3], "on the grass")
    return [*found, *HARD_CAPTIONS]


@pytest.fixture(scope="module")
def both() -> tuple[list[str], list[str], list[str]]:
    """The thousand captions, as Java splits them, and as Python does."""
    captions = thousand_captions()
    assert len(captions) == 1000
    return captions, tokenize_all_with_java(captions, JavaLimits("512m", 120)), tokenize_all(captions)


@needs_java
@needs_captions
def test_all_disagreements_on_a_thousand_captions_are_listed(both: tuple[list[str], list[str], list[str]]) -> None:
    pairs = [(java.split(), python.split()) for java, python in zip(*both[1:], strict=True)]
    found = [difference for java, python in pairs for difference in _differences(java, python)]
    assert found == DISAGREEMENTS


def _differences(java: list[str], python: list[str]) -> list[tuple[str, str]]:
    matcher = difflib.SequenceMatcher(None, java, python, autojunk=False)
    return [
        (" ".join(java[first:last]), " ".join(python[start:stop]))
        for kind, first, last, start, stop in matcher.get_opcodes()
        if kind != "equal"
    ]


@needs_java
@needs_captions
def test_the_tokenizer_changes_cider_and_bleu_by_less_than_half_a_percent(
    both: tuple[list[str], list[str], list[str]],
) -> None:
    figures = []
    for lines in both[1:]:
        pictures = [lines[first : first + REFERENCES] for first in range(0, len(lines), REFERENCES)]
        # The candidate of a picture is the first half of one of its captions and the second half of the next picture's.
        followers = [*pictures[1:], pictures[0]]
        candidates = [_cross(one[0], other[1]) for one, other in zip(pictures, followers, strict=True)]
        figures.append((bleu(candidates, pictures)["bleu_4"].value, cider(candidates, pictures).value))
    (java_bleu, java_cider), (python_bleu, python_cider) = figures
    assert java_bleu > 0.1
    assert java_cider > 0.1
    assert python_bleu == pytest.approx(java_bleu, rel=0.005)
    assert python_cider == pytest.approx(java_cider, rel=0.005)


def _cross(one: str, other: str) -> str:
    first, second = one.split(), other.split()
    return " ".join([*first[: -(-len(first) // 2)], *second[len(second) // 2 :]])


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man doesn't like the woman's dogs' bowl.", "a man does n't like the woman 's dogs bowl"),
        ("I cannot, you can't; they're GONNA", "i can not you ca n't they 're gon na"),
        ("Mr. Smith at 5 p.m. in the U.S.", "mr. smith at 5 p.m. in the u.s."),
        ("No. 5, no. 5 - no.", "no. 5 no. 5 no"),
        ("in Mass. a mass.", "in mass. a mass"),
        ("a dog.", "a dog"),
        ("a dog., a cat", "a dog. a cat"),
        ("street.There", "street.there"),
        ("a black-and-white t-shirt -- 5-year-old", "a black-and-white t-shirt 5-year-old"),
        ("dog,two-year old dog,cat", "dog,two-year old dog cat"),
        ("and/or white/black/red/blue", "and/or white/black/red / blue"),
        ("(a man) [x] {y}", "-lrb- a man -rrb- -lsb- x -rsb- -lcb- y -rcb-"),
        ("\"stop\" 'stop' “stop” ‘stop’ ``stop''", "stop stop stop stop stop"),
        ("it’s don’t ’90s '80s 1950's", "it 's do n't ’90s '80s 1950 's"),
        ("O'Brien at 3 o'clock, ma'am", "o'brien at 3 o'clock ma'am"),
        ("rock 'n' roll, y'all", "rock 'n' roll y' all"),
        ("$5.00 50¢ £3 20% #1", "$ 5.00 50 cents # 3 20 % # 1"),
        ("1,000,000 3.14 1/2 1½ 12:30 3:45pm", "1,000,000 3.14 1/2 1 1/2 12:30 3:45 pm"),
        ("wow!! what?! yes! no?", "wow !! what ?! yes no"),
        ("wait... and… . . . end", "wait and end"),
        ("café naïve crème-brûlée", "café naïve crème-brûlée"),
        ("AT&T & R&D M&Ms a&b &amp; &quot;x&quot;", "at&t & r&d m&m s a & b & x"),
        ("www.foo.com me@foo.com. #tag @me", "www.foo.com me@foo.com #tag @me"),
        (":) <end> _under_ snake_case * ~", ":-rrb- <end> _ under _ snake_case * ~"),
        ("love \N{HEAVY BLACK HEART} \N{GRINNING FACE}", "love \N{HEAVY BLACK HEART}"),
        ("two\u00a0words\tand\nlines\u2028end", "two words and lines end"),
        ("... !", ""),
        ("", ""),
    ],
)
def test_captions_are_split_as_the_treebank_does(caption: str, expected: str) -> None:
    """What is expected is what the Java tokenizer returns."""
    assert " ".join(tokenize(caption)) == expected


def test_a_word_does_not_depend_on_its_neighbours_but_for_numbers() -> None:
    assert tokenize("no. 5") == ["no.", "5"]
    assert tokenize("no. five") == ["no", "five"]
    assert tokenize_all(["a dog", "", "cats."]) == ["a dog", "", "cats"]
