"""The lexicon, object scores and CHAIR, against cases worked out by hand and a slow second computation."""

from __future__ import annotations

import random

import pytest

from capxai.data.scenes import CATEGORIES
from capxai.errors import ConfigError, CorpusError
from capxai.evaluate.lexicon import COCO_NAMES, Lexicon, coco_lexicon, plural
from capxai.evaluate.objects import PictureTruth, ground_truth, judge, score_objects

LEXICON = coco_lexicon()


def names(caption: str) -> list[str]:
    """Return the categories that a caption mentions."""
    return [mention.category for mention in LEXICON.mentions(caption)]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a car beside a traffic light", ["car", "traffic light"]),
        ("Two cars and three TRAFFIC LIGHTS.", ["car", "traffic light"]),
        ("a light in the traffic", []),
        ("a racket near a ball", ["tennis racket", "sports ball"]),
        ("a tennis racket and a tennis ball", ["tennis racket", "sports ball"]),
        ("knives, mice and pizzas", ["knife", "mouse", "pizza"]),
        ("a banana next to a banana", ["banana", "banana"]),
        ("a hot dog", ["hot dog"]),
        ("a toilet seat near a chair", ["chair"]),
        ("buses with men and boxes", ["bus", "person"]),
        ("an orange", ["orange"]),
        ("a carpet on a cupboard", []),
        ("", []),
    ],
)
def test_mentions_are_found(caption: str, expected: list[str]) -> None:
    assert names(caption) == expected


def test_a_mention_knows_its_place_and_length() -> None:
    mentions = LEXICON.mentions("a red car near traffic lights")
    assert [(mention.position, mention.category, mention.length) for mention in mentions] == [
        (2, "car", 1),
        (4, "traffic light", 2),
    ]


def test_every_category_is_found_by_its_name_and_its_plural() -> None:
    assert len(set(COCO_NAMES)) == 80
    for category in COCO_NAMES:
        assert names(f"there is a {category} here") == [category]
        assert names(f"there are many {plural(category)} here") == [category]


def test_what_scenes_calls_its_objects_is_in_the_lexicon() -> None:
    for category in CATEGORIES:
        assert names(f"a {category.words}") == [category.name]


@pytest.mark.parametrize(
    ("singular", "expected"),
    [
        ("bus", "buses"),
        ("knife", "knives"),
        ("man", "men"),
        ("bench", "benches"),
        ("baby", "babies"),
        ("toy", "toys"),
        ("traffic light", "traffic lights"),
        ("sheep", "sheep"),
    ],
)
def test_plurals(singular: str, expected: str) -> None:
    assert plural(singular) == expected


def test_a_form_of_two_categories_is_refused() -> None:
    with pytest.raises(ConfigError, match="gives 'ball.*' to 'sports ball' and to 'toy'"):
        Lexicon({"sports ball": ("ball",), "toy": ("ball",)})


def test_ground_truth_unites_instances_and_references() -> None:
    truth = ground_truth(7, ["car"], ["a bird over the water", "a car"], LEXICON)
    assert truth == PictureTruth(7, frozenset({"car", "bird"}))


def test_judging_a_caption() -> None:
    picture = judge("a car next to a cup and a cup", PictureTruth(1, frozenset({"car", "boat"})), LEXICON)
    assert picture.mentioned == ("car", "cup", "cup")
    assert picture.hallucinated == ("cup", "cup")
    assert picture.missed == ("boat",)


def test_figures_by_hand() -> None:
    truths = [
        PictureTruth(1, frozenset({"car", "traffic light"})),
        PictureTruth(2, frozenset({"car"})),
        PictureTruth(3, frozenset({"cup"})),
    ]
    captions = {1: "a car near a traffic light", 2: "a car, a traffic light and a traffic light", 3: "a car"}
    report = score_objects(captions, truths, LEXICON)
    values = report.values()
    assert values["chair_i"] == pytest.approx(3 / 6)  # six mentions, of which two lights and the last car are not there
    assert values["chair_s"] == pytest.approx(2 / 3)
    assert values["objects_per_caption"] == pytest.approx(6 / 3)
    assert values["recall"] == pytest.approx((2 / 2 + 1 / 1 + 0) / 3)  # car, traffic light, cup
    assert values["precision"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert values["f1"] == pytest.approx((4 / 5 + 2 / 3 + 0) / 3)
    assert report.categories["cup"].precision is None
    assert report.categories["cup"].recall == 0
    assert report.categories["car"].pictures == 2
    assert report.categories["car"].mentioned == 3


def test_a_category_that_is_nowhere_does_not_count_in_the_macro_mean() -> None:
    report = score_objects({1: "a car and a dog"}, [PictureTruth(1, frozenset({"car"}))], LEXICON)
    assert report.values()["f1"] == 1
    assert report.values()["chair_i"] == 0.5
    assert report.categories["dog"].recall is None


def test_without_mentions_chair_is_zero() -> None:
    values = score_objects({1: "the grass"}, [PictureTruth(1, frozenset({"car"}))], LEXICON).values()
    assert values["chair_i"] == values["chair_s"] == values["objects_per_caption"] == 0


def random_case(seed: int) -> tuple[dict[int, str], list[PictureTruth]]:
    """Return random captions and truths over the words of scenes."""
    generator = random.Random(seed)
    words = {category.name: category.words for category in CATEGORIES}
    truths, captions = [], {}
    for number in range(60):
        there = generator.sample(sorted(words), generator.randint(1, 3))
        said = [name for name in there if generator.random() < 0.7] + generator.sample(sorted(words), 1)
        truths.append(PictureTruth(number, frozenset(there)))
        captions[number] = " and ".join(f"a {words[name]}" for name in said)
    return captions, truths


def test_figures_equal_a_slow_second_computation() -> None:
    captions, truths = random_case(3)
    values = score_objects(captions, truths, LEXICON).values()
    # Two words are cut into one token first, then plain counting.
    mentions = wrong = sentences = 0
    by_category: dict[str, list[int]] = {}
    for truth in truths:
        text = captions[truth.image_id].replace("traffic light", "traffic_light")
        table = {category.words.replace(" ", "_"): category.name for category in CATEGORIES}
        said = [table[token] for token in text.split() if token in table]
        mentions += len(said)
        false = [name for name in said if name not in truth.objects]
        wrong += len(false)
        sentences += bool(false)
        for name in set(said) | truth.objects:
            hit, spoken, there = by_category.setdefault(name, [0, 0, 0])
            by_category[name] = [
                hit + (name in said and name in truth.objects),
                spoken + (name in said),
                there + (name in truth.objects),
            ]
    present = [counts for counts in by_category.values() if counts[2]]
    assert values["chair_i"] == pytest.approx(wrong / mentions)
    assert values["chair_s"] == pytest.approx(sentences / len(truths))
    assert values["recall"] == pytest.approx(sum(hit / there for hit, _, there in present) / len(present))
    assert values["f1"] == pytest.approx(sum(2 * hit / (said + there) for hit, said, there in present) / len(present))


def test_intervals_hold_the_value_and_repeat() -> None:
    captions, truths = random_case(5)
    first, second = (score_objects(captions, truths, LEXICON, seed=1).overall for _ in range(2))
    assert first == second
    for estimate in first.values():
        assert estimate.low <= estimate.value <= estimate.high
    assert first["chair_i"].high - first["chair_i"].low > 0.01


def test_the_interval_of_a_share_is_about_the_normal_one() -> None:
    # 400 captions of one mention each, a quarter of them wrong: standard error sqrt(0.25 * 0.75 / 400) = 0.0217.
    truths = [PictureTruth(number, frozenset({"car"})) for number in range(400)]
    captions = {number: "a car" if number % 4 else "a cup" for number in range(400)}
    estimate = score_objects(captions, truths, LEXICON).overall["chair_i"]
    assert estimate.value == 0.25
    assert estimate.low == pytest.approx(0.25 - 1.96 * 0.0217, abs=0.008)
    assert estimate.high == pytest.approx(0.25 + 1.96 * 0.0217, abs=0.008)


def test_captions_and_pictures_must_belong_together() -> None:
    truths = [PictureTruth(1, frozenset({"car"}))]
    with pytest.raises(CorpusError, match=r"1 of 1 pictures have no caption \[1\], and 1 captions belong to none"):
        score_objects({2: "a car"}, truths, LEXICON)
    with pytest.raises(CorpusError, match="no picture"):
        score_objects({}, [], LEXICON)
