"""The page of hallucinated words: which it shows, what it compares them with, how it explains them, and what the file holds."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from planted_corpus import CAPTION, OBJECTS, SIDE, planted_model, write_planted_corpus
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.errors import ImageError
from capxai.evaluate.lexicon import coco_lexicon
from capxai.explain.explainer import explain
from capxai.models.folder import save_model
from capxai.recipes.analysis.experiment import Experiment, experiment
from capxai.recipes.analysis.hallucination import HallucinationConfig, measure_words
from capxai.recipes.analysis.hallucination_cases import (
    Case,
    ExplainedWord,
    ObjectMention,
    choose_cases,
    explain_mentions,
    heat_of,
    mentions_in,
    most_comparable,
    shares_in,
)
from capxai.recipes.analysis.hallucination_cooccurrence import Companion, CoOccurrence, companions, count_together
from capxai.recipes.analysis.hallucination_page import PAGE_FILE, PageContent, render_page, write_page
from capxai.recipes.analysis.hallucination_pictures import SIDES, pack_pictures
from capxai.types import JsonObject

EVIL = "</script><script>alert('a\"dog\"')</script>&<img/src=x/onerror=alert(1)>"
REFERENCES = ("a car near a traffic light", "a car", "two cars and a red knife", "a traffic light", "snow")


def mention(
    image_id: int, caption: str, word: str, present: bool = False, probability: float | None = 0.5
) -> ObjectMention:
    """Name a word of a caption; its category is the word."""
    place = caption.split().index(word)
    return ObjectMention(image_id, caption, place, place, word, word, present, probability)


def explained(position: int, seed: int = 0, probability: float = 0.5) -> ExplainedWord:
    """Make an explanation of noise."""
    generator = np.random.default_rng(seed)
    heat = generator.standard_normal((56, 56)).astype(np.float32) / 100
    inputs = tuple(generator.standard_normal(position + 1).tolist())
    parts = {"picture": 2.0, "words": 1.0, "bias": -0.5, "eps": 0.25}
    return ExplainedWord(probability, 2.75, inputs, parts, heat, {"cup": (0.625, 0.25)})


def synthetic_page(folder: Path, count: int, words: tuple[str, str] = ("dog", "cat"), noise: bool = False) -> str:
    """Write a page of hallucinated words, each on its own picture and beside another one, with ever smaller probabilities."""
    cases, why, spoken, paths = [], {}, {}, {}
    for number in range(count):
        name = words[number % 2]
        false = mention(number, f"a red cup near a {name} and snow", name, False, 1 - number / count / 2)
        true = mention(count + number, f"the {name} near a cup", name, True)
        cases.append(Case(false, true if number % 5 else None))
        why[false.key] = explained(false.position, number, false.probability or 0)
        why[true.key] = explained(true.position, count + number)
        spoken[false.key] = {Companion("cup", True): 0.5, Companion("red", False): 0.25}
    together = {
        (name, companion): CoOccurrence(30, 40, 100, 1000) for name in words for companion in spoken[cases[0].word.key]
    }
    generator = np.random.default_rng(0)
    for number in range(2 * count):
        paths[number] = folder / f"{number}.bmp"
        pixels = generator.integers(0, 256, (112, 112, 3) if noise else (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(paths[number])
    mentions = [side for case in cases for side in (case.word, case.twin) if side is not None]
    objects = dict.fromkeys(paths, ("cup", words[0]))
    return render_page(
        PageContent(("model x", "test"), 2 * count, mentions, cases, 0, why, spoken, together, objects, paths)
    )


def data_of(page: str) -> JsonObject:
    """Read what the script of a page works on."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: JsonObject = json.loads(found[1])
    return data


def test_the_surest_come_first_and_the_rest_is_counted() -> None:
    words = [mention(1, "a dog", "dog", probability=0.2), mention(2, "a dog", "dog", probability=0.9)]
    words += [mention(3, "a dog", "dog", True), mention(4, "a dog", "dog", probability=0.5)]
    cases, left_out = choose_cases(words, 2)
    assert [case.word.image_id for case in cases] == [2, 4]
    assert left_out == 1
    assert {case.twin.image_id for case in cases if case.twin} == {3}
    unknown = [mention(number, "a dog", "dog", probability=None) for number in (5, 3, 4)]
    assert [case.word.image_id for case in choose_cases(unknown, 9)[0]] == [5, 3, 4]


def test_the_true_word_after_the_most_similar_words_is_taken() -> None:
    word = mention(0, "a red car near a dog", "dog")  # after {a, red, car, near}
    candidates = [
        mention(1, "a dog", "dog", True),  # {a}: 2 * 1 / 5
        mention(2, "a red cup near a dog", "dog", True),  # {a, red, cup, near}: 2 * 3 / 8
        mention(3, "a car near a dog", "dog", True),  # {a, car, near}: 2 * 3 / 7, the most
        mention(4, "near a car there a dog", "dog", True),  # {near, a, car, there}: 2 * 3 / 8
    ]
    found = most_comparable(word, candidates)
    assert found is not None and found.image_id == 3
    # Equal sets of words: the nearer place, then the first.
    near = [mention(5, "car a near dog", "dog", True), mention(6, "a car near a a dog", "dog", True)]
    near.append(mention(7, "car a near near a dog", "dog", True))
    found = most_comparable(mention(0, "a car near a car dog", "dog"), near)
    assert found is not None and found.image_id == 6
    assert most_comparable(mention(0, "dog", "dog"), [mention(1, "dog", "dog", True)]) is not None  # nothing before
    assert most_comparable(word, []) is None


def test_where_the_red_lies() -> None:
    pixels = np.zeros((4, 4), np.float32)
    pixels[0, 0], pixels[0, 3], pixels[3, 3], pixels[1, 1] = 3, 1, 4, -9  # 8 in all; what is negative does not count
    boxes = {"cup": [(0.0, 0.0, 0.5, 0.5)], "dog": [(0.75, 0.0, 1.0, 0.25), (0.7, 0.75, 1.0, 1.0)], "cat": []}
    found = shares_in(pixels, boxes)
    # The dog's second box begins at 2.8 of 4 columns: the center of column 2 lies at 2.5, that of column 3 inside.
    assert found == {"dog": (5 / 8, 2 / 16), "cup": (3 / 8, 4 / 16), "cat": (0.0, 0.0)}
    assert list(found) == ["dog", "cup", "cat"]
    assert shares_in(-np.abs(pixels), boxes)["dog"] == (0.0, 2 / 16)


def test_a_heatmap_keeps_the_mean_and_is_small() -> None:
    pixels = np.zeros((112, 112), np.float32)
    pixels[40:56, 20:40] = 2
    heat = heat_of(pixels)
    assert heat.shape == (56, 56)
    assert heat.mean() == pytest.approx(pixels.mean(), rel=1e-3)
    assert heat[24, 15] == pytest.approx(2, rel=1e-3) and heat[5, 5] == 0
    assert heat_of(np.ones((32, 32), np.float32)).shape == (32, 32)


def test_companions_add_up_names_and_repeated_words() -> None:
    caption = "a traffic light near a red car near a bird"
    relevance = dict(enumerate([0.1, 0.5, 0.25, -1.0, 0.2, 0.4, 0.3, 0.75, -0.05]))
    found = companions(caption, 9, relevance, coco_lexicon())
    # "traffic light" 0.5 + 0.25, "a" 0.1 + 0.2 - 0.05, "near" -1 + 0.75 < 0
    assert {companion: round(value, 6) for companion, value in found.items()} == {
        Companion("traffic light", True): 0.75,
        Companion("red", False): 0.4,
        Companion("car", True): 0.3,
        Companion("a", False): 0.25,
    }
    assert next(iter(found)) == Companion("traffic light", True)
    assert companions("bird", 0, {}, coco_lexicon()) == {}


def test_counts_of_the_training_captions_by_hand() -> None:
    car, red, ball = Companion("car", True), Companion("red", False), Companion("ball", False)
    pairs = {("traffic light", car), ("traffic light", red), ("knife", red), ("dog", ball)}
    found = count_together(REFERENCES, pairs, coco_lexicon())
    light = found["traffic light", car]
    assert light == CoOccurrence(both=1, companion=3, category=2, references=5)
    assert (light.given, light.base) == (pytest.approx(1 / 3), pytest.approx(2 / 5))
    assert light.lift == pytest.approx((1 / 3) / (2 / 5))
    assert found["traffic light", red].lift == 0
    assert found["knife", red].lift == pytest.approx(1 / (1 / 5))
    none = found["dog", ball]
    assert (none.given, none.base, none.lift) == (None, 0, None)
    assert count_together([], pairs, coco_lexicon())["knife", red].base is None


def test_counts_equal_those_of_loops() -> None:
    generator = np.random.default_rng(5)
    words = ["car", "cars", "dog", "knife", "red", "near", "a", "snow"]
    names = {"car": "car", "cars": "car", "dog": "dog", "knife": "knife"}
    texts = [" ".join(generator.choice(words, size=generator.integers(1, 7))) for _ in range(200)]
    some = [Companion("car", True), Companion("dog", True), Companion("red", False), Companion("a", False)]
    pairs = {(category, companion) for category in ("knife", "dog") for companion in some}
    for (category, companion), counts in count_together(texts, pairs, coco_lexicon()).items():
        both = with_companion = with_category = 0
        for text in texts:
            has_category = has_companion = False
            for word in text.split(" "):
                has_category = has_category or names.get(word) == category
                has_companion = has_companion or (names.get(word) if companion.is_category else word) == companion.name
            both += has_category and has_companion
            with_companion += has_companion
            with_category += has_category
        assert counts == CoOccurrence(both, with_companion, with_category, 200)


def test_pictures_are_stored_once_and_shrink_until_they_have_room(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    paths = {}
    for number in range(6):
        paths[number] = tmp_path / f"{number}.png"
        Image.fromarray(generator.integers(0, 256, (260, 400, 3), dtype=np.uint8)).save(paths[number])
    paths[6] = tmp_path / "again.png"
    paths[6].write_bytes(paths[2].read_bytes())
    paths[7] = tmp_path / "missing.png"
    plain = pack_pictures(paths)
    assert len(plain.uris) == 6 and plain.places[6] == plain.places[2] and 7 not in plain.places
    assert widest(plain.uris) == SIDES[0]
    size = sum(map(len, plain.uris))
    small = pack_pictures(paths, size - 1)
    assert widest(small.uris) == SIDES[1] and sum(map(len, small.uris)) < size and len(small.places) == 7
    tiny = pack_pictures(paths, size * 3 // 10)
    assert widest(tiny.uris) == SIDES[2] and len(tiny.places) == 7
    # Room for the first two, and nothing for those that come later.
    tight = pack_pictures(paths, len(tiny.uris[0]) + len(tiny.uris[1]))
    assert tight.uris == tiny.uris[:2] and tight.places == {0: 0, 1: 1}


def widest(uris: list[str]) -> int:
    """Return the longest side of JPEG data URIs."""
    sides = []
    for uri in uris:
        head, _, text = uri.partition(",")
        assert head == "data:image/jpeg;base64"
        sides.append(max(Image.open(BytesIO(base64.b64decode(text))).size))
    return max(sides)


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    page = synthetic_page(tmp_path, 2, (EVIL, "dog"))
    assert page.count("<script") == 2 and EVIL not in page
    assert "onerror=alert(1)>" not in page
    assert data_of(page)["cases"][0]["word"]["text"] == EVIL
    named = PageContent((EVIL, EVIL), 1, [], [], notes=[EVIL])
    assert EVIL not in render_page(named) and render_page(named).count("<script") == 2


def test_the_file_holds_the_explanation(tmp_path: Path) -> None:
    data = data_of(synthetic_page(tmp_path, 3))
    side, why = data["cases"][1]["word"], explained(5, 1)
    assert side["words"][side["at"]] == "cat" and side["inputs"] == pytest.approx(why.inputs, rel=1e-4)
    stored = np.frombuffer(base64.b64decode(side["heat"]), np.uint8).reshape(side["size"]).astype(float)
    shown = (stored - 127) / 127 * side["limit"]
    inside = np.abs(why.heat) < side["limit"]
    assert np.abs(shown - why.heat)[inside].max() <= side["limit"] / 127 / 2 + 1e-6
    assert inside.mean() > 0.99
    assert data["cases"][0]["twin"] is None and data["cases"][1]["twin"]["picture"] == "4"
    assert data["cases"][1]["companions"][0] == {
        "name": "cup", "object": True, "relevance": 0.5, "both": 30, "companion": 40, "category": 100, "references": 1000,
        "given": 0.75, "base": 0.1, "lift": pytest.approx(7.5),
    }  # fmt: skip


def test_500_cases_stay_small_even_on_pictures_of_noise(tmp_path: Path) -> None:
    page = synthetic_page(tmp_path, 500, noise=True)
    assert len(page.encode()) < 30e6
    data = data_of(page)
    assert len(data["cases"]) == 500
    assert len(data["images"]) == sum(1 + (case["twin"] is not None) for case in data["cases"])


@pytest.mark.parametrize(
    ("mentions", "said"),
    [
        ([], "No caption of the 7 pictures names an object"),
        ([mention(1, "a dog", "dog", True)], "No hallucinated word: each of the 1 object words"),
    ],
)
def test_nothing_hallucinated_is_said(mentions: list[ObjectMention], said: str) -> None:
    page = render_page(PageContent(("model x",), 7, mentions, []))
    assert said in page and "<div hidden>" in page


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    word = mention(1, "a dog", "dog")
    content = PageContent(("x",), 1, [word] * 12, [Case(word, None)], 11, {word.key: explained(1)}, paths={1: tmp_path})
    page = render_page(content)
    assert "11 further hallucinated words" in page and "1 pictures are not shown" in page
    assert '<option value="dog">dog (12 false of 12)</option>' in page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus whose pictures the model all calls CAPTION, with references of a training split."""
    root = tmp_path_factory.mktemp("page")
    write_planted_corpus(root / "corpus", with_instances=True)
    save_model(planted_model(root / "corpus" / "images"), root / "model")
    manifest = json.loads((root / "corpus" / "corpus.json").read_text())
    images = json.loads((root / "corpus" / "captions.json").read_text())["images"][:1]
    notes = [{"id": n, "image_id": 1, "caption": text} for n, text in enumerate(REFERENCES)]
    (root / "corpus" / "train.json").write_text(json.dumps({"images": images, "annotations": notes}))
    manifest["splits"]["train"] = {"images": "images", "captions": "train.json"}
    (root / "corpus" / "corpus.json").write_text(json.dumps(manifest))
    return root


@pytest.fixture
def running(folder: Path) -> Iterator[tuple[Experiment, list[JsonObject]]]:
    """An experiment and its records."""
    config = HallucinationConfig(folder / "model", folder / "corpus", method=("lrp",), device="cpu", batch_size=2)
    with experiment(config) as opened:
        yield opened, records_of(opened)


def records_of(opened: Experiment) -> list[JsonObject]:
    """Collect the records of an experiment, as the analysis does."""
    config = opened.config
    assert isinstance(config, HallucinationConfig)
    return opened.collect(lambda look: measure_words(look, opened, (), config), ())


def test_explanations_equal_those_of_explain(folder: Path, running: tuple[Experiment, list[JsonObject]]) -> None:
    opened, records = running
    mentions = mentions_in(records)
    assert len(mentions) == 9 and {one.caption for one in mentions} == {CAPTION}
    found = explain_mentions(opened, mentions)
    assert set(found) == {one.key for one in mentions}
    for (image_id, position), why in found.items():
        full = explain(opened.model, folder / "corpus" / "images" / f"{image_id}.png", "lrp", CAPTION)
        assert full.word_relevance is not None and full.pixel_relevance is not None
        assert why.inputs == pytest.approx(full.word_relevance[position, : position + 1], abs=1e-3)
        assert why.probability == pytest.approx(full.probability[position], abs=1e-5)
        assert why.logit == pytest.approx(full.logits[position], rel=1e-4)
        parts = full.totals(position)
        assert why.parts == pytest.approx(parts.present(), abs=1e-3)
        assert sum(why.parts.values()) == pytest.approx(why.logit, abs=1e-3)
        assert why.heat == pytest.approx(heat_of(full.pixel_relevance[position]), abs=1e-5)
        assert set(why.lies_on) == set(OBJECTS[image_id])
        for category, (share, area) in why.lies_on.items():
            expected = slow_share(full.pixel_relevance[position], OBJECTS[image_id][category])
            assert (share, area) == pytest.approx(expected, abs=1e-5)


def slow_share(pixels: np.ndarray, boxes: list[tuple[int, int, int, int]]) -> tuple[float, float]:
    """Go through the pixels one by one; boxes are of pictures of 48 x 40."""
    inside = total = area = 0.0
    for row in range(SIDE):
        for column in range(SIDE):
            y, x = (row + 0.5) * 40 / SIDE, (column + 0.5) * 48 / SIDE
            value, is_in = (
                max(0.0, float(pixels[row, column])),
                any(a <= x < a + w and b <= y < b + h for a, b, w, h in boxes),
            )
            total += value
            inside += value * is_in
            area += is_in
    return inside / total if total else 0.0, area / SIDE**2


def test_the_page_of_an_experiment(tmp_path: Path, running: tuple[Experiment, list[JsonObject]]) -> None:
    opened, records = running
    path = write_page(opened, records, tmp_path)
    assert path == tmp_path / PAGE_FILE
    page = path.read_text(encoding="utf-8")
    assert "4 of 9 object words (44 %)" in page and "3 pictures" in page
    data = data_of(page)
    words = [(case["category"], case["word"]["picture"], case["twin"]["picture"]) for case in data["cases"]]
    # All captions are the same, so the first picture that has the object is the most comparable one.
    assert sorted(words) == [
        ("car", "3", "1"),
        ("knife", "2", "1"),
        ("traffic light", "1", "2"),
        ("traffic light", "3", "2"),
    ]
    probabilities = [case["word"]["probability"] for case in data["cases"]]
    assert probabilities == sorted(probabilities, reverse=True)
    for case in data["cases"]:
        check_companions(case, mentions_in(records))
    assert data["pictures"]["3"] == {"at": data["pictures"]["3"]["at"], "name": "3.png", "objects": ["knife"]}


def check_companions(case: Mapping[str, Any], mentions: list[ObjectMention]) -> None:
    """Compare with counts of REFERENCES: names in 5 references, and names together."""
    names = {"car": {0, 1, 2}, "traffic light": {0, 3}, "knife": {2}, "a": {0, 1, 2, 3}, "near": {0}}
    side = case["word"]
    relevance: dict[str, float] = {}
    for word, value in zip(side["words"][: side["at"]], side["inputs"][1:], strict=True):
        name = "traffic light" if word in ("traffic", "light") else word
        relevance[name] = relevance.get(name, 0) + value
    expected = {name: value for name, value in relevance.items() if value > 0 and name != case["category"]}
    assert {found["name"]: found["relevance"] for found in case["companions"]} == pytest.approx(expected, rel=1e-3)
    for found in case["companions"]:
        both = len(names[found["name"]] & names[case["category"]])
        counts = (both, len(names[found["name"]]), len(names[case["category"]]), 5)
        assert (found["both"], found["companion"], found["category"], found["references"]) == counts


def test_few_cases_and_no_training_split(tmp_path: Path, folder: Path) -> None:
    manifest = json.loads((folder / "corpus" / "corpus.json").read_text())
    del manifest["splits"]["train"]
    (folder / "corpus" / "corpus.json").rename(folder / "corpus" / "before.json")
    try:
        (folder / "corpus" / "corpus.json").write_text(json.dumps(manifest))
        config = HallucinationConfig(folder / "model", folder / "corpus", method=("lrp",), device="cpu")
        with experiment(config) as opened:
            write_page(opened, records_of(opened), tmp_path, most=1)
    finally:
        (folder / "corpus" / "before.json").replace(folder / "corpus" / "corpus.json")
    page = unescape((tmp_path / PAGE_FILE).read_text(encoding="utf-8"))
    assert "The corpus has no split 'train'" in page and "3 further hallucinated words" in page
    assert not data_of(page)["training"] and len(data_of(page)["cases"]) == 1


def test_a_picture_that_vanished_is_named(
    tmp_path: Path, folder: Path, running: tuple[Experiment, list[JsonObject]]
) -> None:
    opened, records = running
    path = folder / "corpus" / "images" / "3.png"
    path.rename(tmp_path / "3.png")
    try:
        with pytest.raises(ImageError, match=r"3\.png"):
            write_page(opened, records, tmp_path)
    finally:
        (tmp_path / "3.png").rename(path)
    assert not (tmp_path / PAGE_FILE).exists()


def test_the_command(folder: Path, tmp_path: Path) -> None:
    typed = ["analyze", "hallucination", "--model", str(folder / "model"), "--corpus", str(folder / "corpus")]
    typed += ["--method", "lrp", "--level", "regions", "--report", "--quiet"]
    homeless = CliRunner().invoke(app, typed)
    assert homeless.exit_code == 1 and "Name one with --out" in homeless.output
    none = CliRunner().invoke(app, [*typed, "--out", str(tmp_path), "--set", "cases=0"])
    assert none.exit_code == 1 and "cases is 0. Expected 1 or more." in none.output
    done = CliRunner().invoke(app, [*typed, "--out", str(tmp_path), "--set", "cases=3"])
    assert done.exit_code == 0, done.output
    assert len(data_of((tmp_path / PAGE_FILE).read_text(encoding="utf-8"))["cases"]) == 3
    again = CliRunner().invoke(app, [*typed[:-2], "--quiet", "--out", str(tmp_path), "--force"])
    assert again.exit_code == 0 and not (tmp_path / PAGE_FILE).exists()


def test_the_last_word_of_a_name_can_be_explained(tmp_path: Path, folder: Path) -> None:
    config = HallucinationConfig(folder / "model", folder / "corpus", device="cpu", name_word="last")
    with experiment(config) as opened:
        write_page(opened, records_of(opened), tmp_path, name_word="last")
    sides = [case["word"] for case in data_of((tmp_path / PAGE_FILE).read_text(encoding="utf-8"))["cases"]]
    lights = [side for side in sides if side["text"] == "traffic light"]
    assert [(side["at"], side["last"], len(side["inputs"])) for side in lights] == [(5, 5, 6)] * 2
