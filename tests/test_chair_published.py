"""With the original word list, what the package finds on real captions equals a slow reading of the published rules."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest
from published_chair import PublishedChair

from capxai.evaluate.lexicon import Lexicon
from capxai.evaluate.lexicon_file import read_lexicon
from capxai.evaluate.objects import ObjectReport, ground_truth, score_objects

MINI = Path(__file__).parents[2] / "shared" / "coco-mini"
WORD_LIST = MINI / "chair_synonyms.txt"
pytestmark = pytest.mark.skipif(not WORD_LIST.is_file(), reason="needs ../shared/coco-mini")


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return read_lexicon(WORD_LIST)


@pytest.fixture(scope="module")
def published() -> PublishedChair:
    return PublishedChair(WORD_LIST)


@pytest.fixture(scope="module")
def references() -> dict[int, list[str]]:
    found = defaultdict(list)
    for split in ("train", "val"):
        content = json.loads((MINI / "annotations" / f"captions_{split}2017.json").read_text())
        for entry in content["annotations"]:
            found[entry["image_id"]].append(entry["caption"])
    return dict(found)


@pytest.fixture(scope="module")
def instances(references: dict[int, list[str]]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {number: set() for number in references}
    for split in ("train", "val"):
        content = json.loads((MINI / "annotations" / f"instances_{split}2017.json").read_text())
        names = {entry["id"]: entry["name"] for entry in content["categories"]}
        for entry in content["annotations"]:
            found[entry["image_id"]].add(names[entry["category_id"]])
    return found


def test_every_caption_mentions_the_same_objects(
    lexicon: Lexicon, published: PublishedChair, references: dict[int, list[str]]
) -> None:
    captions = [text for texts in references.values() for text in texts]
    assert len(captions) == 795
    for caption in captions:
        expected = [category for _, category in published.objects(caption)]
        assert [mention.category for mention in lexicon.mentions(caption)] == expected, caption


def _rotated(references: dict[int, list[str]], by: int, which: int) -> dict[int, str]:
    """Give each picture a caption of another one."""
    ids = sorted(references)
    return {number: references[ids[(place + by) % len(ids)]][which] for place, number in enumerate(ids)}


def _report(
    lexicon: Lexicon, references: dict[int, list[str]], instances: dict[int, set[str]], captions: dict[int, str]
) -> ObjectReport:
    truths = [ground_truth(number, instances[number], references[number], lexicon) for number in captions]
    return score_objects(captions, truths, lexicon)


@pytest.mark.parametrize("which", range(5))
def test_hallucinations_equal_the_published_ones_caption_by_caption(
    which: int,
    lexicon: Lexicon,
    published: PublishedChair,
    references: dict[int, list[str]],
    instances: dict[int, set[str]],
) -> None:
    captions = _rotated(references, by=1 + which, which=which)
    report = _report(lexicon, references, instances, captions)
    mentions = wrong = sentences = 0
    for picture in report.images:
        number = picture.image_id
        there = set(instances[number]) | {
            category for text in references[number] for _, category in published.objects(text)
        }
        assert picture.objects == there
        said = published.objects(captions[number])
        false = [(word, category) for word, category in said if category not in there]
        assert list(picture.hallucinated) == [category for _, category in false], captions[number]
        # The published words are singular, and of some pairs the second word only: "jet" of "passenger jets".
        for mention, (word, _) in zip(picture.false_mentions, false, strict=True):
            last = mention.text.lower().removesuffix("'s").split()[-1]
            assert published.singular(last) == word.split()[-1]
        mentions, wrong, sentences = mentions + len(said), wrong + len(false), sentences + bool(false)
    assert wrong > 100
    assert report.values()["chair_i"] == pytest.approx(wrong / mentions, abs=1e-12)
    assert report.values()["chair_s"] == pytest.approx(sentences / len(captions), abs=1e-12)


def test_captions_of_their_own_pictures_hallucinate_nothing(
    lexicon: Lexicon, references: dict[int, list[str]], instances: dict[int, set[str]]
) -> None:
    report = _report(lexicon, references, instances, _rotated(references, by=0, which=2))
    assert report.values()["chair_i"] == report.values()["chair_s"] == 0
    assert report.counts["mentions"] > 200


def test_bus_is_found_where_the_published_singular_lost_it(lexicon: Lexicon) -> None:
    for caption in ("a bus", "two buses", "A BUS.", "bus", "a double decker bus on a street"):
        assert "bus" in [mention.category for mention in lexicon.mentions(caption)]


def test_the_original_list_has_80_categories_and_no_conflict(lexicon: Lexicon) -> None:
    assert len(lexicon.categories) == 80
    assert lexicon.notes == ()
    assert lexicon.category("couch") == "couch" and lexicon.category("sofa") == "couch"
