"""Object scores and CHAIR, against cases worked out by hand and a slow second computation."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from capxai.data.annotations import ObjectAnnotation, Picture
from capxai.data.corpus import Split
from capxai.data.scenes import CATEGORIES
from capxai.errors import ConfigError, CorpusError
from capxai.evaluate.bootstrap import draws
from capxai.evaluate.lexicon import Lexicon, coco_lexicon
from capxai.evaluate.objects import PictureTruth, ground_truth, judge, score_objects
from capxai.recipes.object_scores import figures, score_captions, split_truths, unmentionable

LEXICON = coco_lexicon()


def test_ground_truth_unites_instances_and_references() -> None:
    truth = ground_truth(7, ["car"], ["a bird over the water", "a car"], LEXICON)
    assert truth == PictureTruth(7, frozenset({"car", "bird"}))


@pytest.mark.parametrize(
    ("truth", "expected"),
    [("instances", {"car"}), ("references", {"bird"}), ("both", {"car", "bird"})],
)
def test_ground_truth_of_one_source(truth: str, expected: set[str]) -> None:
    assert ground_truth(7, ["car"], ["a bird"], LEXICON, truth).objects == expected


def test_instances_are_put_in_the_categories_of_the_lexicon() -> None:
    lexicon = Lexicon({"vehicle": ("car", "bus")})
    assert ground_truth(1, ["car", "bus", "dog"], ["a cat"], lexicon).objects == {"vehicle"}


def test_judging_a_caption() -> None:
    picture = judge("a car next to a cup and a cup", PictureTruth(1, frozenset({"car", "boat"})), LEXICON)
    assert picture.mentioned == ("car", "cup", "cup")
    assert picture.hallucinated == ("cup", "cup")
    assert picture.missed == ("boat",)


def test_the_report_of_a_picture_says_where_it_hallucinates() -> None:
    caption = "Two CARS near wine glasses, a cup & the dog's bowl"
    written = judge(caption, PictureTruth(3, frozenset({"car", "bowl", "boat"})), LEXICON).to_json()
    assert written == {
        "image_id": 3,
        "caption": caption,
        "objects": ["boat", "bowl", "car"],
        "words": ["CARS", "wine glasses", "cup", "dog's", "bowl"],
        "positions": [1, 3, 6, 8, 9],
        "spans": [[4, 8], [14, 26], [30, 33], [40, 45], [46, 50]],
        "mentioned": ["car", "wine glass", "cup", "dog", "bowl"],
        "hallucinated": ["wine glass", "cup", "dog"],
        "hallucinated_words": ["wine glasses", "cup", "dog's"],
        "hallucinated_positions": [3, 6, 8],
        "hallucinated_spans": [[14, 26], [30, 33], [40, 45]],
        "missed": ["boat"],
    }
    assert [caption[start:end] for start, end in written["hallucinated_spans"]] == written["hallucinated_words"]


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
    assert (report.categories["car"].mentions, report.categories["car"].hallucinations) == (3, 1)
    lights = report.categories["traffic light"]
    assert (lights.pictures, lights.mentioned, lights.mentions, lights.hallucinations) == (1, 2, 3, 2)
    assert report.counts == {
        "pictures": 3,
        "mentions": 6,
        "hallucinations": 3,
        "hallucinated_captions": 2,
        "captions_without_objects": 0,
    }


def test_a_caption_without_objects_counts_as_a_caption() -> None:
    truths = [PictureTruth(number, frozenset({"car"})) for number in (1, 2)]
    report = score_objects({1: "the grass", 2: "a cup"}, truths, LEXICON)
    assert report.values()["chair_i"] == 1
    assert report.values()["chair_s"] == 0.5
    assert report.counts["captions_without_objects"] == 1
    assert report.images[0].to_json()["words"] == []
    # Half of the draws' pictures are without mentions; a draw of only these has no CHAIRi, and is left out.
    assert np.isnan(report.resampled(np.array([[2, 0]], dtype=np.int32))["chair_i"]).all()
    assert report.overall["chair_i"].low == 1


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
    with pytest.raises(CorpusError, match=r"1 pictures are there twice \[1\]"):
        score_objects({1: "a car"}, truths * 2, LEXICON)


def test_confusions_and_cooccurrences_by_hand() -> None:
    truths = [
        PictureTruth(1, frozenset({"fork", "cup"})),
        PictureTruth(2, frozenset({"fork", "cup"})),
        PictureTruth(3, frozenset({"fork"})),
        PictureTruth(4, frozenset({"knife"})),
    ]
    captions = {1: "a knife and a cup", 2: "a knife, a knife", 3: "a fork and a knife", 4: "a knife"}
    report = score_objects(captions, truths, LEXICON)
    # The knife is hallucinated in 1, 2, 3. The fork is there and left out in 1 and 2, the cup in 2.
    found = [(pair.hallucinated, pair.other, pair.pictures, pair.share, pair.base_share) for pair in report.confusions]
    assert found == [("knife", "fork", 2, pytest.approx(2 / 3), 0.5), ("knife", "cup", 1, pytest.approx(1 / 3), 0.25)]
    # With the hallucinated knife, 1 names the cup that is there, and 3 the fork.
    found = [(pair.hallucinated, pair.other, pair.pictures, pair.share) for pair in report.cooccurrences]
    assert found == [("knife", "cup", 1, pytest.approx(1 / 3)), ("knife", "fork", 1, pytest.approx(1 / 3))]


def test_confusions_equal_a_count_with_loops() -> None:
    captions, truths = random_case(9)
    report = score_objects(captions, truths, LEXICON)
    slow: dict[tuple[str, str], int] = {}
    for picture in report.images:
        for wrong in set(picture.hallucinated):
            for other in picture.missed:
                slow[wrong, other] = slow.get((wrong, other), 0) + 1
    fast = {(pair.hallucinated, pair.other): pair.pictures for pair in report.confusions}
    assert len(fast) == min(100, len(slow)) and fast.items() <= slow.items()
    assert sorted(fast.values(), reverse=True) == sorted(slow.values(), reverse=True)[:100]
    assert [pair.pictures for pair in report.confusions] == sorted(fast.values(), reverse=True)


def test_draws_can_be_shared_and_compared() -> None:
    captions, truths = random_case(5)
    weights = draws(len(truths), seed=8)
    report = score_objects(captions, truths, LEXICON, weights=weights)
    assert report.overall == score_objects(captions, truths, LEXICON, seed=8).overall
    spread = report.resampled(weights)
    assert set(spread) == set(report.overall)
    for name, values in spread.items():
        assert values.shape == (len(weights),)
        low, high = np.percentile(values, (2.5, 97.5))
        assert (report.overall[name].low, report.overall[name].high) == pytest.approx((low, high))


def test_a_draw_counts_pictures_as_often_as_its_weights_say() -> None:
    captions, truths = random_case(6)
    weights = draws(len(truths), seed=2, number=3)
    spread = score_objects(captions, truths, LEXICON).resampled(weights)
    for draw, counts in enumerate(weights.tolist()):
        repeated = [truth for truth, count in zip(truths, counts, strict=True) for _ in range(count)]
        again = [PictureTruth(number, truth.objects) for number, truth in enumerate(repeated)]
        said = {number: captions[truth.image_id] for number, truth in enumerate(repeated)}
        for name, value in score_objects(said, again, LEXICON).values().items():
            assert spread[name][draw] == pytest.approx(value, abs=1e-12), name


def test_the_report_is_json() -> None:
    captions, truths = random_case(5)
    report = score_objects(captions, truths, LEXICON)
    written = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert set(written) == {"overall", "counts", "categories", "confusions", "cooccurrences", "images"}
    assert written["overall"]["chair_i"]["value"] == report.overall["chair_i"].value
    assert set(written["categories"]["car"]) == {
        *("precision", "recall", "f1", "pictures", "mentioned", "mentions", "hallucinations")
    }
    assert set(written["confusions"][0]) == {"hallucinated", "other", "pictures", "share", "base_share"}


def a_split(references: dict[int, tuple[str, ...]], objects: dict[int, tuple[str, ...]] | None) -> Split:
    """Return a split in memory."""
    categories = {1: "car", 2: "cup"}
    ids = {name: number for number, name in categories.items()}
    annotations = {
        number: tuple(
            ObjectAnnotation(100 * number + place, number, ids[name], name, (0, 0, 1, 1), None)
            for place, name in enumerate((objects or {}).get(number, ()))
        )
        for number in references
    }
    pictures = tuple(Picture(number, Path(f"{number}.png"), 8, 8) for number in references)
    return Split("test", pictures, references, annotations, categories if objects else {}, objects is not None)


def test_a_split_gives_the_truth_that_it_has() -> None:
    references = {1: ("a car",), 2: ("a bird", "the sky")}
    full = a_split(references, {1: ("cup",), 2: ()})
    assert [truth.objects for truth in split_truths(full, LEXICON)] == [{"car", "cup"}, {"bird"}]
    assert [truth.objects for truth in split_truths(full, LEXICON, "instances")] == [{"cup"}, set()]
    assert [truth.objects for truth in split_truths(full, LEXICON, "references")] == [{"car"}, {"bird"}]
    bare = a_split(references, None)
    assert [truth.objects for truth in split_truths(bare, LEXICON)] == [{"car"}, {"bird"}]
    silent = a_split({1: (), 2: ()}, {1: ("cup",), 2: ()})
    assert [truth.objects for truth in split_truths(silent, LEXICON)] == [{"cup"}, set()]


def test_captions_of_a_split_are_scored() -> None:
    split = a_split({1: ("a car",), 2: ("a bird",)}, {1: ("cup",), 2: ()})
    report = score_captions(["a cup", "a car"], split, LEXICON)
    assert figures(report) == {
        "macro_f1": round((0 + 1 + 0) / 3, 4),
        "chair_i": 0.5,
        "chair_s": 0.5,
        "recall": round(1 / 3, 4),
        "objects_per_caption": 1.0,
    }
    assert score_captions(["a cup", "a car"], split, LEXICON, truth="references").values()["chair_i"] == 1


def test_a_truth_that_is_not_there_is_refused() -> None:
    references = {1: ("a car",), 2: ()}
    with pytest.raises(CorpusError, match="no instance file"):
        split_truths(a_split(references, None), LEXICON, "both")
    with pytest.raises(CorpusError, match=r"1 pictures of the split 'test' have no reference \(image ids \[2\]\)"):
        split_truths(a_split(references, {1: ("car",), 2: ("cup",)}), LEXICON)
    with pytest.raises(ConfigError, match="Unknown truth 'instance'.*Did you mean 'instances'"):
        split_truths(a_split(references, {1: ("car",)}), LEXICON, "instance")  # type: ignore[arg-type]


def test_a_lexicon_that_does_not_belong_to_the_split_is_refused() -> None:
    split = a_split({1: ("a car",)}, {1: ("car",)})
    assert unmentionable(split, Lexicon({"car": ("car",)})) == ("cup",)
    with pytest.raises(CorpusError, match="knows none of the 2 categories .*--lexicon"):
        split_truths(split, Lexicon({"dog": ("dog",)}))
