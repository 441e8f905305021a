"""Every rule by which a caption mentions an object, in cases written by hand."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capxai.data.scenes import CATEGORIES
from capxai.data.scenes.captions import Mention as SceneMention
from capxai.data.scenes.captions import write_captions
from capxai.data.vocabulary import tokenize
from capxai.errors import ConfigError
from capxai.evaluate.lexicon import COCO_NAMES, NO_OBJECT, Lexicon, Rules, coco_lexicon, plural
from capxai.evaluate.lexicon_plurals import plurals, surface_forms

LEXICON = coco_lexicon()


def names(caption: str, lexicon: Lexicon = LEXICON) -> list[str]:
    """Return the categories that a caption mentions."""
    return [mention.category for mention in lexicon.mentions(caption)]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        # plurals that no ending gives
        ("a bus and two buses", ["bus", "bus"]),
        ("two busses", ["bus"]),
        ("a knife, two knives", ["knife", "knife"]),
        ("a mouse and mice", ["mouse", "mouse"]),
        ("men, women and children", ["person", "person", "person"]),
        ("policemen and firemen", ["person", "person"]),
        ("geese and oxen", ["bird", "cow"]),
        ("sheep, calves, buffaloes", ["sheep", "cow", "cow"]),
        ("aircraft on a runway", ["airplane"]),
        ("a pair of scissors", ["scissors"]),
        ("benches, couches and toothbrushes", ["bench", "couch", "toothbrush"]),
        # names of several words
        ("a hot dog and two hot dogs", ["hot dog", "hot dog"]),
        ("a dog eats a hotdog", ["dog", "hot dog"]),
        ("wine glasses and glasses of wine", ["wine glass", "wine glass"]),
        ("a man with glasses", ["person"]),
        ("two teddy bears", ["teddy bear"]),
        ("a stuffed bear next to a bear", ["teddy bear", "bear"]),
        ("traffic lights, fire hydrants and stop signs", ["traffic light", "fire hydrant", "stop sign"]),
        ("a fire-hydrant by a double-decker bus", ["fire hydrant", "bus"]),
        ("a light at a stop", []),
        ("a tennis racket and a tennis ball", ["tennis racket", "sports ball"]),
        ("a microwave oven near a stove top oven", ["microwave", "oven"]),
        ("a bow tie", ["tie"]),
        # animals and their young
        ("a baby elephant", ["elephant"]),
        ("baby elephants with an adult bear", ["elephant", "bear"]),
        ("an adult and baby zebra", ["zebra"]),
        ("a baby polar bear", ["bear"]),
        ("a mother cow", ["cow"]),
        ("a small baby brown cow", ["cow"]),
        ("a baby with an elephant", ["person", "elephant"]),
        ("a baby and a dog", ["person", "dog"]),
        ("a baby, a mother", ["person", "person"]),
        ("a baby animal", ["person"]),
        ("a zebra and its baby, an elephant with its baby elephants", ["zebra", "elephant", "elephant"]),
        ("baby carrots in a baby carriage", ["carrot"]),
        # passengers
        ("a passenger train", ["train"]),
        ("a passenger jet and a passenger plane", ["airplane", "airplane"]),
        ("passenger trains with passengers", ["train", "person"]),
        ("a passenger on a train", ["person", "train"]),
        # no chair, no bus, no dog
        ("a toilet seat", ["toilet"]),
        ("toilet paper", []),
        ("a bus stop near a train station", []),
        ("a corn dog and a prairie dog", []),
        ("a mouse pad and a computer mouse", ["mouse"]),
        ("a tv remote", ["remote"]),
        ("a remote beach", []),
        ("a jet ski", []),
        ("a flower bed in front of a bed", ["bed"]),
        ("a table cloth on a table", ["dining table"]),
        ("a pit bull", ["dog"]),
        ("a german shepherd and a sheep dog", ["dog", "dog"]),
        ("a clock tower", ["clock"]),
        ("a park bench by a parking meter", ["bench", "parking meter"]),
        ("a dvd player and a tennis player", ["person"]),
        ("a dirt bike and a mountain bike", ["motorcycle", "bicycle"]),
        ("a computer keyboard and a piano keyboard", ["keyboard"]),
        ("the phone near the phone booth", ["cell phone"]),
        ("a potted plant near a power plant", ["potted plant"]),
        ("a train car, a car, and a car seat", ["train", "car"]),
        # orange
        ("an orange", ["orange"]),
        ("two oranges", ["orange"]),
        ("an orange on a plate", ["orange"]),
        ("a peeled orange, sliced", ["orange"]),
        ("an orange cat", ["cat"]),
        ("an orange and white bus", ["bus"]),
        ("a red and orange kite", ["kite"]),
        ("a man in orange", ["person"]),
        ("orange juice", []),
        # how it is written
        ("A HOT DOG and a Wine Glass", ["hot dog", "wine glass"]),
        ('"dog",(cat);bird!horse?', ["dog", "cat", "bird", "horse"]),
        ("a dog.A cat", ["dog", "cat"]),
        ("dog/cat", ["dog", "cat"]),
        ("the man's hat, the dogs' food", ["person", "dog"]),
        ("the baby’s bottle", ["person", "bottle"]),
        ("  a   hot \n dog ", ["hot dog"]),
        ("a man-made hill and a carpet", []),
        # counting
        ("a banana next to a banana next to bananas", ["banana"] * 3),
        ("green grass under a blue sky", []),
        ("", []),
        ("!?", []),
    ],
)
def test_mentions(caption: str, expected: list[str]) -> None:
    assert names(caption) == expected


def test_a_mention_knows_its_place_and_words() -> None:
    caption = "Some HOT DOGS, and a man’s cup"
    mentions = LEXICON.mentions(caption)
    assert [(found.position, found.length, found.category) for found in mentions] == [
        (1, 2, "hot dog"),
        (5, 1, "person"),
        (6, 1, "cup"),
    ]
    assert [found.text for found in mentions] == ["HOT DOGS", "man’s", "cup"]
    assert [caption[found.start : found.end] for found in mentions] == ["HOT DOGS", "man’s", "cup"]


def test_positions_count_the_words_of_the_vocabulary() -> None:
    caption = "A T-shirt, the man's 2 dogs; traffic lights"
    for found in LEXICON.mentions(caption):
        words = tokenize(caption)[found.position : found.position + found.length]
        assert words == tokenize(found.text)


def test_every_category_is_found_by_its_name_and_its_plural() -> None:
    assert len(set(COCO_NAMES)) == 80 and LEXICON.categories == COCO_NAMES
    for category in COCO_NAMES:
        assert names(f"there is a {category} here") == [category]
        assert names(f"there are many {plural(category)} here") == [category]
        assert LEXICON.category(category) == category


def test_a_name_finds_its_category() -> None:
    assert LEXICON.category("sofa") == "couch"
    assert LEXICON.category("Traffic Light") == "traffic light"
    assert LEXICON.category("helicopter") is None
    assert LEXICON.category("bus stop") is None


def test_mentions_of_scenes_captions_are_the_objects_named() -> None:
    generator = np.random.default_rng(7)
    seen = 0
    for _ in range(400):
        chosen = [CATEGORIES[int(i)] for i in generator.choice(len(CATEGORIES), 3, replace=False)]
        colors = [str(generator.choice([c for c in category.colors if c != "orange"])) for category in chosen]
        spoken = [SceneMention(category.words, color) for category, color in zip(chosen, colors, strict=True)]
        for text in write_captions(generator, spoken, "on the street"):
            places = sorted((text.index(f" {c.words}"), c.name) for c in chosen if f" {c.words}" in text)
            assert names(text) == [name for _, name in places], text
            seen += 1
    assert seen == 2000


@given(st.text(max_size=60))
def test_any_text_is_read(text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    end = 0
    for found in LEXICON.mentions(text):
        assert end <= found.start < found.end <= len(composed)
        assert found.text == composed[found.start : found.end]
        assert found.category in COCO_NAMES
        end = found.end


@given(st.lists(st.sampled_from([" ".join(words) for words in LEXICON._forms]), max_size=4))
def test_capitals_and_punctuation_change_nothing(forms: list[str]) -> None:
    said = names(" near the ".join(forms))
    assert names(" NEAR THE ".join(form.upper() for form in forms)) == said
    assert names(f"({'); near the... ('.join(forms)})!") == said


@pytest.mark.parametrize(
    ("singular", "expected"),
    [
        ("bus", "buses"),
        ("knife", "knives"),
        ("man", "men"),
        ("fireman", "firemen"),
        ("human", "humans"),
        ("grandchild", "grandchildren"),
        ("bench", "benches"),
        ("fox", "foxes"),
        ("baby", "babies"),
        ("toy", "toys"),
        ("traffic light", "traffic lights"),
        ("glass of wine", "glasses of wine"),
        ("sheep", "sheep"),
    ],
)
def test_plurals(singular: str, expected: str) -> None:
    assert plural(singular) == expected


def test_some_nouns_have_several_plurals() -> None:
    assert plurals("buffalo") == ("buffaloes", "buffalos", "buffalo")
    assert surface_forms("hot dog") == ("hot dog", "hot-dog", "hot dogs", "hot-dogs")
    assert surface_forms("cup of tea") == ("cup of tea", "cups of tea")


def test_a_form_of_two_categories_is_refused() -> None:
    with pytest.raises(ConfigError, match="gives 'ball.*' to 'sports ball' and to 'toy'"):
        Lexicon({"sports ball": ("ball",), "toy": ("ball",)})
    with pytest.raises(ConfigError, match=r"gives '\?' to 'toy'"):
        Lexicon({"toy": ("?",)})


def test_a_name_with_a_mark_keeps_its_form() -> None:
    lexicon = Lexicon({"person": ("groom!",), NO_OBJECT: ("groom suite",)})
    assert names("a groom and grooms in a groom suite", lexicon) == ["person"]


def test_the_hash_tells_lexicons_apart() -> None:
    first = Lexicon({"cat": ("cat",), "dog": ("dog",)})
    assert first.sha256 == Lexicon({"cat": ("cat",), "dog": ("dog",)}).sha256
    others = [
        Lexicon({"cat": ("cat",), "dog": ("dog", "pup")}),
        Lexicon({"cat": ("dog",), "dog": ("cat",)}),
        Lexicon({"cat": ("cat",), "dog": ("dog",)}, Rules({"baby": frozenset({"cat"})})),
    ]
    assert len({first.sha256, *(other.sha256 for other in others)}) == 4
    assert len(first.sha256) == 64
