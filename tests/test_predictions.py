"""Files of predictions: three formats, every kind of damage named with its place, junk refused fast and in bounded memory."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path

import pytest

from capxai.errors import CorpusError
from capxai.evaluate.predictions import (
    LARGEST_FILE,
    hash_of_captions,
    hash_of_ids,
    read_predictions,
    write_predictions,
)

CAPTIONS = {42: "a dog", 7: 'a "cat" with a tail \\ and — dashes', 9: "<script>alert(1)</script>"}


def write(path: Path, content: object) -> Path:
    """Write text as it is, and anything else as JSON."""
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def entry(image_id: object, caption: object = "a dog") -> dict[str, object]:
    """Return an entry of COCO results."""
    return {"image_id": image_id, "caption": caption}


FORMATS = {
    "coco-results": json.dumps([{**entry(*item), "id": 3, "score": [1, {}]} for item in CAPTIONS.items()], indent=1),
    "chair": json.dumps(
        {
            "overall": {"CIDEr": 1.0},
            "imgToEval": {str(key): {**entry(key, text), "CIDEr": 2.0} for key, text in CAPTIONS.items()},
        }
    ),
    "json-lines": "\n\n".join(json.dumps(entry(*item)) for item in CAPTIONS.items()) + "\n",
}


@pytest.mark.parametrize("name", FORMATS)
def test_three_formats_say_the_same(name: str, tmp_path: Path) -> None:
    found = read_predictions(write(tmp_path / "p.json", FORMATS[name]), known=CAPTIONS)
    assert found.format == name
    assert found.captions == CAPTIONS
    assert list(found.captions) == list(CAPTIONS)


def test_chair_input_may_have_the_id_in_the_name_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", {"imgToEval": {"42": {"caption": "a dog"}}})
    assert read_predictions(path).captions == {42: "a dog"}


def test_one_line_is_json_lines_and_a_byte_order_mark_is_stepped_over(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(entry(1)).encode())
    found = read_predictions(path)
    assert (found.format, found.captions) == ("json-lines", {1: "a dog"})


def test_written_predictions_come_back(tmp_path: Path) -> None:
    write_predictions(tmp_path / "deep" / "p.json", CAPTIONS)
    assert read_predictions(tmp_path / "deep" / "p.json").captions == CAPTIONS
    assert json.loads((tmp_path / "deep" / "p.json").read_text("utf-8"))[0] == entry(42)


def test_empty_captions_can_be_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", [entry(42, "")])
    assert read_predictions(path, allow_empty=True).captions == {42: ""}
    with pytest.raises(CorpusError, match="--allow-empty"):
        read_predictions(path)


def test_hashes_know_content_not_order() -> None:
    turned = dict(reversed(CAPTIONS.items()))
    assert hash_of_captions(CAPTIONS) == hash_of_captions(turned)
    assert hash_of_captions(CAPTIONS) != hash_of_captions({**CAPTIONS, 7: "a cat"})
    assert hash_of_ids([3, 11]) == hash_of_ids([11, 3]) != hash_of_ids([31, 1])


BAD = {
    "text id": ([entry(42), entry("7")], "text instead of numbers", "line 1, entry 2: '7'"),
    "no id": ([{"caption": "a dog"}], "no whole numbers", "entry 1: nothing"),
    "half an id": ([entry(42.5)], "no whole numbers", "42.5"),
    "whole float": ([entry(42.0)], "no whole numbers", "42.0"),
    "true": ([entry(True)], "no whole numbers", "True"),
    "NaN id": ('[{"image_id": NaN, "caption": "a dog"}]', "no whole numbers", "NaN"),
    "NaN caption": ('[\n{"image_id": 42, "caption": NaN}]', "captions that are no text", "line 2, entry 1: image id 42, NaN"),
    "no caption": ([{"image_id": 42}], "captions that are no text", "image id 42, nothing"),
    "unknown id": ([entry(42), entry(99)], "ids of no picture", "entry 2: image id 99"),
    "twice": ([entry(42), entry(42)], "occur twice", "entry 2: image id 42"),
    "empty": ([entry(42, " ")], "empty captions", "image id 42"),
    "surrogate": ('[{"image_id": 42, "caption": "\\ud800"}]', "no valid Unicode", "image id 42"),
    "endless caption": ([entry(42, "a " * 6000)], "more than 10,000 characters", "image id 42, 12,000"),
    "no object": (["a dog"], "no objects", "entry 1: 'a dog'"),
    "empty list": ([], "no caption", ""),
    "empty file": ("", "nothing in it", ""),
    "text": ("a dog\n", "'a' at its beginning", ""),
    "torn": ('[{"image_id": 42, "caption": "a dog"},\n{"image_id": 7, "cap', "line 2", "after 1 good caption"),
    "comma": ('[{"image_id": 42, "caption": "a dog"},]', "a comma before ']'", "line 1"),
    "more": ('[{"image_id": 42, "caption": "a dog"}]\n[]', "more text after the end on line 2", ""),
    "nested": ("[" * 100_000, "cannot be read", "line 1"),
    "torn line": (FORMATS["json-lines"][:60], "line 3", ""),
    "annotations": ({"images": [], "annotations": []}, "COCO annotation file", "--captions"),
    "eval.json": ({"schema": 1, "overall": {}, "images": []}, "eval.json", "predictions.json"),
    "other object": ({"captions": []}, "'captions'", "no 'imgToEval'"),
    "imgToEval list": ({"imgToEval": [entry(42)]}, "'['", "line 1"),
    "imgToEval twice": ('{"imgToEval": {"42": {"caption": "a"}, "42": {"caption": "b"}}}', "occur twice", "image id 42"),
    "imgToEval other id": ({"imgToEval": {"7": entry(42)}}, "differ from the name", "42 under '7'"),
    "imgToEval name": ({"imgToEval": {"dog.jpg": {"caption": "a dog"}}}, "text instead of numbers", "'dog.jpg'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_damage_is_named_with_its_place(name: str, tmp_path: Path) -> None:
    content, kind, place = BAD[name]
    path = write(tmp_path / "p.json", content)
    with pytest.raises(CorpusError) as caught:
        read_predictions(path, known=CAPTIONS)
    message = str(caught.value)
    assert str(path) in message and kind in message and place in message
    assert "Expected" in message and "Mend" in message


def test_all_problems_are_in_one_message(tmp_path: Path) -> None:
    entries = [
        entry("1"),
        entry(42),
        entry(42),
        entry(99),
        entry(7, ""),
        *[entry(number) for number in range(100, 110)],
    ]
    with pytest.raises(CorpusError) as caught:
        read_predictions(write(tmp_path / "p.json", entries), known=CAPTIONS)
    for part in (
        "1 image ids that are text",
        "1 image ids that occur twice",
        "11 image ids of no picture",
        "1 empty captions",
    ):
        assert part in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_reading_ends_after_a_thousand_problems(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", "[" + ",\n".join(["{}"] * 5000) + "]")
    with pytest.raises(CorpusError, match="reading ended at line 1000"):
        read_predictions(path)


@pytest.mark.parametrize("junk", [b"\x00", b"x", b"[", b"{}\n", b"[1,", b'{"a":1,', b"\xff\xfe"])
def test_junk_is_refused_fast_and_in_bounded_memory(junk: bytes, tmp_path: Path) -> None:
    """Just below the limit of the size; the text is read, and hardly more than that."""
    path = tmp_path / "junk.json"
    path.write_bytes((junk * (LARGEST_FILE // len(junk)))[:LARGEST_FILE])
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(CorpusError, match=r"junk\.json"):
        read_predictions(path)
    seconds, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 10
    assert peak < 4 * LARGEST_FILE


def test_a_hundred_megabytes_are_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "junk.json"
    with path.open("wb") as file:
        file.truncate(100 * 2**20)
    tracemalloc.start()
    with pytest.raises(CorpusError, match=r"100\.0 MiB"):
        read_predictions(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no file"):
        read_predictions(tmp_path)
    with pytest.raises(CorpusError, match="cannot be read"):
        read_predictions(tmp_path / "missing.json")
    with pytest.raises(CorpusError, match="no file"):
        read_predictions("/dev/zero")
