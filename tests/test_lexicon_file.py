"""Reading word lists of the original CHAIR: its rules, and every way in which a file can be wrong."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from capxai.errors import ConfigError
from capxai.evaluate.lexicon import Lexicon
from capxai.evaluate.lexicon_file import LARGEST_FILE, read_lexicon

LIST = """\
person, man, baby, adult, passenger
bus
dog, pup
hot dog
elephant
airplane, jet,  air plane
train
chair, seat, stool
toilet
tie, bow tie
wine glass
teddy bear
bear
cell phone, iPhone
oven, stove, stove top oven
knife
mouse
fire truck, big red engine
"""


@pytest.fixture
def lexicon(tmp_path: Path) -> Lexicon:
    (tmp_path / "words.txt").write_text(LIST)
    return read_lexicon(tmp_path / "words.txt")


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a bus, two buses", ["bus", "bus"]),
        ("knives and mice", ["knife", "mouse"]),
        ("hot dogs for dogs", ["hot dog", "dog"]),
        ("a baby elephant and adult elephants", ["elephant", "elephant"]),
        ("a baby animal, an adult cub", []),
        ("a baby", ["person"]),
        ("baby pup", ["person", "dog"]),  # the published animal words have no "pup"
        ("a passenger jet and a passenger train", ["airplane", "train"]),
        ("a passenger airplane", ["person", "airplane"]),  # nor do its vehicles have "airplane"
        ("a seat and seats", ["chair", "chair"]),
        ("a toilet seat", ["toilet"]),
        ("the seats of the toilets, a stool", ["toilet", "chair"]),
        ("wine glasses, glasses", ["wine glass"]),
        ("a bow tie, a tie", ["tie", "tie"]),
        ("teddy bears and bears", ["teddy bear", "bear"]),
        ("train tracks", []),
        ("home plate", []),
        ("a mobile phone", []),  # a double word that this list does not have
        ("IPHONES and an air plane", ["cell phone", "airplane"]),
        ("a stove top oven", ["oven", "oven"]),  # three words never match where their parts do
        ("fire trucks, a big red engine", ["fire truck", "fire truck"]),
        ("a man's dog's bus", ["person", "dog", "bus"]),
        ("the sky", []),
    ],
)
def test_the_published_rules(caption: str, expected: list[str], lexicon: Lexicon) -> None:
    assert [mention.category for mention in lexicon.mentions(caption)] == expected


def test_the_hash_is_that_of_the_file(lexicon: Lexicon) -> None:
    assert lexicon.sha256 == hashlib.sha256(LIST.encode()).hexdigest()
    assert lexicon.categories[:3] == ("person", "bus", "dog") and len(lexicon.categories) == 18


def test_of_two_categories_the_later_line_counts(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("cat, kitten, pet\ndog, pet\ncat, tabby\n")
    lexicon = read_lexicon(tmp_path / "words.txt")
    assert lexicon.categories == ("cat", "dog")
    assert [mention.category for mention in lexicon.mentions("pets, a tabby, a kitten")] == ["dog", "cat", "cat"]
    assert lexicon.notes == ("'pet' is in the categories 'cat' (line 1) and 'dog' (line 2); the later one counts.",)


def test_an_entry_counts_before_the_plural_of_another_one(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("spectacles, glasses\nglass\n")
    lexicon = read_lexicon(tmp_path / "words.txt")
    assert [mention.category for mention in lexicon.mentions("glasses and a glass")] == ["spectacles", "glass"]


@pytest.mark.parametrize("ending", ["\r\n", "\n\n\n", ""])
def test_line_ends_and_a_byte_order_mark_do_not_matter(ending: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes(b"\xef\xbb\xbfcat, kitten\r\ndog" + ending.encode())
    assert read_lexicon(tmp_path / "words.txt").categories == ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"cat\n\ndog\n", "line 2: it is empty"),
        (b"cat, , kitten\n", "line 1: nothing stands between two commas"),
        (b"cat\ndog,\n", "line 2: nothing stands between two commas"),
        (b"cat\nd\0g\n", "line 2: it holds a NUL byte"),
        (b"cat\ndog, ###\n", "line 2: '###' is no word"),
        (b'{"cat": ["kitten"]}\n', "line 1: .* is no word"),
        (b"cat\n" + b"x" * 500, r"line 2: 'x{60}'\.\.\. is longer than 60 characters"),
        (b"cat\ndog\nbird, \xff\xfe\n", "line 3 has the byte 0xff"),
        (b"?\n" * 9, r"9 lines .*line 5: '\?' is no word; \.\.\."),
    ],
)
def test_bad_lists_are_refused_with_their_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_lexicon(tmp_path / "words.txt")


def test_what_is_no_small_file_is_refused_at_once(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    with junk.open("wb") as file:
        file.truncate(100 * 2**20)
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=rf"104,857,600 bytes, too many .*{LARGEST_FILE:,}"):
        read_lexicon(junk)
    assert time.perf_counter() - start < 1
    with pytest.raises(ConfigError, match="is no file"):
        read_lexicon(tmp_path)
    with pytest.raises(ConfigError, match="No such file"):
        read_lexicon(tmp_path / "missing.txt")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_lexicon("a\0b")
