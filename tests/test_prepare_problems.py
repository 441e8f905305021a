"""``capxai prepare``: everything that is wrong with the files is found in one pass, told together, and counted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_corpora import SIZE, Files, karpathy_file, write_coco, write_json, write_karpathy, write_picture
from typer.testing import CliRunner, Result

from capxai.cli.main import app
from capxai.data.caption_texts import usable_caption
from capxai.data.corpus import Corpus
from capxai.data.findings import Findings
from capxai.data.json_tables import read_source, walk
from capxai.errors import CorpusError

TRAIN, VAL = Path("coco/annotations/captions_train2017.json"), Path("coco/annotations/captions_val2017.json")
INSTANCES = Path("coco/annotations/instances_train2017.json")
Change = Callable[[Files, Files], object]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_coco(Path("coco"), {"train2017": [1, 2, 3, 4, 5, 6], "val2017": [11, 12]})


def prepare(*options: object) -> Result:
    fixed = ("coco", "--root", "coco", "--out", "out", "--split", "official", "--minimum-count", 1)
    return CliRunner().invoke(app, ["prepare", *map(str, (*fixed, *options))])


def change(edit: Change) -> None:
    """Change the caption and the instance file of train."""
    files = [json.loads(path.read_text()) for path in (TRAIN, INSTANCES)]
    edit(*files)
    for path, content in zip((TRAIN, INSTANCES), files, strict=True):
        write_json(path, content)


def refused(*options: object) -> str:
    result = prepare(*options)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output and not Path("out").exists()
    return result.stderr


def ids(split: str = "train") -> list[int]:
    return [picture.id for picture in Corpus.open("out").split(split).pictures]


def picture_again(captions: Files, _: Files) -> None:
    captions["images"].append(captions["images"][0])


def caption_again(captions: Files, _: Files) -> None:
    captions["annotations"].append(captions["annotations"][0])


def stray_caption(captions: Files, _: Files) -> None:
    captions["annotations"].append({"id": 999, "image_id": 77, "caption": "a car"})


def no_captions(captions: Files, _: Files) -> None:
    captions["annotations"] = [item for item in captions["annotations"] if item["image_id"] != 2]


def caption(**values: Any) -> Change:
    return lambda captions, _: captions["annotations"][3].update(values)


def picture(**values: Any) -> Change:
    return lambda captions, _: captions["images"][1].update(values)


def item(**values: Any) -> Change:
    return lambda _, instances: instances["annotations"][1].update(values)


def category(**values: Any) -> Change:
    return lambda _, instances: instances["categories"].append(values)


ALL, WITHOUT_2 = [1, 2, 3, 4, 5, 6], [1, 3, 4, 5, 6]
PROBLEMS: list[tuple[Change, str, tuple[list[int], int, int]]] = [
    (picture_again, "1 image ids that occur twice (1 in captions_train2017.json)", (ALL, 12, 5)),
    (caption_again, "1 caption ids that occur twice (10 in captions_train2017.json)", (ALL, 12, 5)),
    (stray_caption, "1 captions of pictures that are not listed (image id 77 in captions_train2017.json)", (ALL, 12, 5)),
    (no_captions, "1 pictures without a usable caption (image id 2)", (WITHOUT_2, 10, 4)),
    (caption(caption=" \n"), "1 empty captions (caption 21 in captions_train2017.json)", (ALL, 11, 5)),
    (caption(caption="- ."), "1 captions without a word (caption 21 in captions_train2017.json: '- .')", (ALL, 11, 5)),
    (caption(caption=None), "1 captions that are no text (caption 21", (ALL, 11, 5)),
    (caption(caption="a \udce9t\udce9"), "1 captions with bytes that are no UTF-8 (Latin-1?) (caption 21", (ALL, 11, 5)),
    (caption(id="21"), "1 captions with an id that is no whole number ('21'", (ALL, 11, 5)),
    (caption(image_id="2"), "1 captions with an image id that is no whole number (caption 21: '2'", (ALL, 11, 5)),
    (picture(id="2"), "1 pictures without a whole id ('2'", (WITHOUT_2, 10, 4)),
    (picture(id=2**63), f"1 pictures without a whole id ({2**63}", (WITHOUT_2, 10, 4)),
    (picture(file_name=""), "1 pictures without a file name (image id 2", (WITHOUT_2, 10, 4)),
    (picture(file_name="x.jpg"), "1 missing picture files ('coco/train2017/x.jpg')", (WITHOUT_2, 10, 4)),
    (picture(width="8"), "1 pictures of an impossible width or height (image id 2: '8' x 6", (WITHOUT_2, 10, 4)),
    (picture(height=0), "1 pictures of an impossible width or height (image id 2: 8 x 0", (WITHOUT_2, 10, 4)),
    (picture(height=True), "1 pictures of an impossible width or height (image id 2: 8 x True", (WITHOUT_2, 10, 4)),
    (picture(width=9), "1 pictures of different sizes in two files (image id 2: 9 x 6 and 8 x 6)", (WITHOUT_2, 10, 4)),
    (lambda a, _: a["images"].append(4), "1 entries of 'images' that are no objects (entry 6 in captions_train", (ALL, 12, 5)),
    (lambda a, _: a["annotations"].append([]), "1 entries of 'annotations' that are no objects (entry 12", (ALL, 12, 5)),
    (item(id=10), "1 object ids that occur twice (10 in instances_train2017.json)", (ALL, 12, 4)),
    (item(image_id=77), "1 objects of pictures that are not listed (77 of object 20 in instances_train", (ALL, 12, 4)),
    (item(category_id=5), "1 objects of unknown categories (5 of object 20 in instances_train2017.json)", (ALL, 12, 4)),
    (item(bbox=[1, 2, 3]), "1 objects without a box of four finite numbers (object 20", (ALL, 12, 4)),
    (item(segmentation=[[float("nan")]]), "1 objects without a box of four finite numbers (object 20", (ALL, 12, 4)),
    (item(image_id=None), "1 objects whose ids are no whole numbers (id 20, image id None, category id 3", (ALL, 12, 4)),
    (category(id=3, name="bus"), "1 category ids that occur twice (3 in instances_train2017.json)", (ALL, 12, 5)),
    (category(id=4), "1 categories without a name (category id 4", (ALL, 12, 5)),
    (category(name="bus"), "1 entries of 'categories' without a whole id (None", (ALL, 12, 5)),
    (lambda _, b: b["images"].pop(1), "1 pictures that no instance file lists, in splits with objects (image id 2)", (WITHOUT_2, 10, 4)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("edit", "found", "left"), PROBLEMS, ids=[found.split(" (")[0][2:] for _, found, _ in PROBLEMS]
)
def test_every_problem_is_found_and_can_be_left_out(edit: Change, found: str, left: tuple[list[int], int, int]) -> None:
    change(edit)
    message = refused()
    assert f"\n- {found}" in message
    assert "--skip-bad" in message
    result = prepare("--skip-bad")
    assert result.exit_code == 0, result.output
    manifest = json.loads(Path("out/corpus.json").read_text())
    kind = found.split(" (")[0][2:] + (" (Latin-1?)" if "Latin-1" in found else "")
    assert manifest["left_out"][kind] == 1
    assert f"Left out: 1 {kind}." in result.stdout
    train = manifest["splits"]["train"]
    assert (ids(), train["captions_count"], train["objects"]) == left


def test_the_first_file_that_lists_a_picture_keeps_it() -> None:
    def edit(captions: Files, instances: Files) -> None:
        again = json.loads(VAL.read_text())["images"][0]
        captions["images"].append(again)
        captions["annotations"].append({"id": 999, "image_id": 11, "caption": "a car of train"})
        instances["images"].append(again)

    change(edit)
    write_picture(Path("coco/train2017/000000000011.jpg"))
    assert "- 1 image ids that occur in two files (11 in captions_val2017.json)" in refused()
    assert prepare("--skip-bad").exit_code == 0
    assert (ids(), ids("val")) == ([1, 2, 3, 4, 5, 6, 11], [12])
    assert Corpus.open("out").split("train").captions[11] == ("a car of train",)


def test_problems_are_told_together_and_counted() -> None:
    def edit(captions: Files, _: Files) -> None:
        captions["annotations"] += [{"id": number, "image_id": number, "caption": "x"} for number in range(1000, 1005)]
        captions["annotations"][0]["caption"] = ""

    change(edit)
    for number in (4, 5):
        Path(f"coco/train2017/{number:012d}.jpg").unlink()
    Path("coco/val2017/000000000011.jpg").unlink()
    message = refused()
    named = ", ".join(f"image id {number} in captions_train2017.json" for number in (1000, 1001, 1002))
    assert f"- 5 captions of pictures that are not listed ({named}, ...)" in message
    assert "- 1 empty captions" in message
    assert "- 3 missing picture files ('coco/train2017/000000000004.jpg'" in message
    assert len([line for line in message.splitlines() if line.startswith("- ")]) == 4
    assert (
        "- 3 objects of pictures that are in no split, left out (instances_train2017.json, instances_val2017.json)"
        in message
    )
    assert prepare("--skip-bad").exit_code == 0
    assert (ids(), ids("val")) == ([1, 2, 3, 6], [12])
    assert Corpus.open("out").manifest["notices"] == {"objects of pictures that are in no split, left out": 3}


@pytest.mark.parametrize("keep", [0, 1, 60, -3])
def test_a_file_that_breaks_off_is_an_error_even_with_skip_bad(keep: int) -> None:
    TRAIN.write_bytes(TRAIN.read_bytes()[:keep])
    Path("coco/val2017/000000000011.jpg").unlink()
    message = refused("--skip-bad")
    assert f"'{TRAIN}' is not complete JSON (" in message
    assert "1 missing picture files" in message  # found in the same pass


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([], "holds a JSON list. Expected a JSON object."),
        ({"images": []}, "has no list 'annotations'. Expected a COCO file of captions."),
        ({"images": {}, "annotations": []}, "has no list 'images'."),
        ({"images": [], "annotations": []}, "No usable picture is left for any split."),
    ],
)
def test_files_of_another_kind(content: Any, found: str) -> None:
    write_json(TRAIN, content)
    write_json(VAL, content)
    assert found in refused("--skip-bad")


def test_categories_that_contradict_each_other() -> None:
    path = Path("coco/annotations/instances_val2017.json")
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "bus"
    write_json(path, content)
    message = refused("--skip-bad")
    assert "calls the category 3 'bus', and another instance file calls it 'car'" in message


def test_byte_order_mark_and_utf_16() -> None:
    TRAIN.write_bytes(b"\xef\xbb\xbf" + TRAIN.read_bytes())
    VAL.write_bytes(VAL.read_text().encode("utf-16"))
    result = prepare()
    assert result.exit_code == 0, result.output
    assert "To note: 1 files that begin with a byte order mark." in result.stdout
    assert "To note: 1 files in UTF-16 where UTF-8 is usual." in result.stdout
    assert (ids(), ids("val")) == ([1, 2, 3, 4, 5, 6], [11, 12])


def test_latin_1_is_found_caption_by_caption() -> None:
    text = TRAIN.read_text().replace("number 1.", "a café.").replace("number 2.", "a piñata.")
    TRAIN.write_bytes(text.encode("latin-1"))
    assert "- 2 captions with bytes that are no UTF-8 (Latin-1?) (caption 10 in" in refused()
    assert prepare("--skip-bad").exit_code == 0
    assert Corpus.open("out").split("train").captions[1] == ("a car and a fork",)


def test_instances_in_latin_1() -> None:
    INSTANCES.write_bytes(INSTANCES.read_text().replace("vehicle", "v\u00e9hicule").encode("latin-1"))
    assert "instances_train2017.json' holds bytes that are no UTF-8" in refused()


@pytest.mark.parametrize("text", ["a café", "a 🚗 car", "piñata – “red”", "Â", "naïve Ålesund", "a car costs 5€"])
def test_sound_letters_are_no_mojibake(text: str) -> None:
    findings = Findings()
    assert usable_caption(text, "x", findings) == text
    assert findings.lines() == []


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
@pytest.mark.parametrize("text", ["a café", "piñata", "a man’s car", "schön"])
def test_text_that_was_decoded_wrongly_is_noted_and_kept(text: str, encoding: str) -> None:
    change(caption(caption=text.encode().decode(encoding)))
    result = prepare()
    assert result.exit_code == 0, result.output
    assert "To note: 1 captions that look as if they had been decoded wrongly (mojibake)." in result.stdout
    assert Corpus.open("out").split("train").captions[2][1] == text.encode().decode(encoding)


def test_lost_letters_are_noted() -> None:
    change(caption(caption="a caf\ufffd"))
    assert "1 captions with replacement characters" in prepare().stdout


def test_a_file_under_two_ids_is_noted() -> None:
    change(picture(file_name="000000000001.jpg"))
    assert "To note: 1 picture files that stand for more than one image id." in prepare().stdout


def test_sizes_are_read_where_no_file_tells_them() -> None:
    def edit(captions: Files, instances: Files) -> None:
        for image in (*captions["images"][1:3], *instances["images"][2:3]):
            del image["width"], image["height"]

    change(edit)
    write_picture(Path("coco/train2017/000000000003.jpg"), (20, 30))
    assert prepare().exit_code == 0
    split = Corpus.open("out").split("train")
    assert [(split.picture(number).width, split.picture(number).height) for number in (2, 3)] == [SIZE, (20, 30)]


def test_turned_pictures_have_the_size_they_are_seen_in() -> None:
    write_karpathy(Path("k"), "flickr8k", {"train": [1]})
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (20, 30)).save("k/pictures/1.jpg", exif=turned)
    fixed = ("prepare", "karpathy", "--karpathy", "k/dataset_flickr8k.json", "--images", "k/pictures", "--out", "out")
    result = CliRunner().invoke(app, [*fixed, "--minimum-count", "1", "--check-pictures"])
    assert result.exit_code == 0, result.output
    found = Corpus.open("out").split("train").picture(1)
    assert (found.width, found.height) == (30, 20)


def test_check_pictures_decodes_them() -> None:
    cut, other, turned, text = (Path(f"coco/train2017/{number:012d}.jpg") for number in (1, 2, 3, 4))
    write_picture(cut, SIZE)
    cut.write_bytes(cut.read_bytes()[:-30])
    write_picture(other, (8, 7))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(turned, exif=exif)
    text.write_text("<html>404</html>")
    assert prepare().exit_code == 0  # without the option only names are looked at
    Path("out").rename("unchecked")
    message = refused("--check-pictures")
    assert "- 2 pictures that cannot be read ('coco/train2017/000000000001.jpg': " in message
    assert "- 1 pictures of another size than annotated (image id 2: 8 x 6 annotated, 8 x 7 found)" in message
    result = prepare("--check-pictures", "--skip-bad")
    assert "To note: 1 pictures annotated as stored, which their EXIF orientation turns." in result.stdout
    assert ids() == [3, 5, 6]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"imgid": "1"}, "1 pictures without a whole id ('1')"),
        ({"imgid": 2}, "1 image ids that occur twice (2)"),
        ({"filename": None}, "1 pictures without a file name (image id 1)"),
        ({"filename": "x.jpg"}, "1 missing picture files ('k/pictures/x.jpg')"),
        ({"split": "dev"}, "1 pictures of a split other than train, restval, val, test (image id 1: 'dev')"),
        ({"sentences": None}, "1 pictures without a list 'sentences' (image id 1)"),
        ({"sentences": ["a car"]}, "1 captions that are no objects (caption 0 of image id 1)"),
        (
            {"sentences": [{"raw": "a car", "tokens": []}]},
            "1 captions without a list of words (caption 0 of image id 1)",
        ),
        ({"sentences": [{"raw": "", "tokens": ["a"]}]}, "1 empty captions (caption 0 of image id 1)"),
        ({"sentences": [{"raw": "a", "tokens": ["a"], "sentid": 20}]}, "1 caption ids that occur twice (20)"),
        (
            {"sentences": [{"raw": "a", "tokens": ["a"], "sentid": "x"}]},
            "1 captions with an id that is no whole number",
        ),
    ],
)
def test_problems_of_karpathy_s_files(values: Files, found: str) -> None:
    write_karpathy(Path("k"), "flickr8k", {"train": [2, 1], "val": [3]})
    content = karpathy_file("flickr8k", {"train": [2, 1], "val": [3]})
    content["images"][1].update(values)
    write_json(Path("k/dataset_flickr8k.json"), content)
    fixed = ["prepare", "karpathy", "--karpathy", "k/dataset_flickr8k.json", "--images", "k/pictures", "--out", "out"]
    result = CliRunner().invoke(app, [*fixed, "--minimum-count", "1"])
    assert result.exit_code == 1 and f"- {found}" in result.stderr
    result = CliRunner().invoke(app, [*fixed, "--minimum-count", "1", "--skip-bad"])
    assert result.exit_code == 0, result.output
    assert ids() == [2] and f"Left out: {found.split(' (')[0]}" in result.stdout


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"a"}',
        '{"a": 1,}',
        '{"t": [1,]}',
        '{"t": [1 2]}',
        '{"t": [1}',
        '{"a": 1} x',
        "{1: 2}",
        '{"t": [',
        '{"a": 1 "b": 2}',
    ],
)
def test_the_reader_takes_only_json(text: str) -> None:
    Path("x.json").write_text(text)
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    with pytest.raises(CorpusError, match="'x.json' is not complete JSON"):
        list(walk(read_source(Path("x.json")), ("t",)))


@pytest.mark.parametrize("indent", [None, 2])
def test_the_reader_yields_what_json_has(indent: int | None) -> None:
    content = {
        "head": {"t": [1]},
        "t": [{"x": "ü]}", "y": [[1, 2], []]}, 3, "four", None],
        "empty": [],
        "no": 5,
        "z": -1.5,
    }
    Path("x.json").write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    source = read_source(Path("x.json"))
    entries = list(walk(source, ("t", "empty", "no")))
    assert [entry.value for entry in entries if entry.place >= 0] == content["t"]
    whole = {entry.key: entry.value for entry in entries if entry.place < 0}
    assert whole == {**content, "t": []}
    assert all(json.loads(source.text[entry.start : entry.end]) == entry.value for entry in entries if entry.place >= 0)


def test_file_names_that_are_no_utf_8() -> None:
    """A Latin-1 file name in a Latin-1 file is found on the disk, and comes back."""
    for path in Path("coco/annotations").glob("instances_*.json"):
        path.unlink()
    name = os.fsdecode(b"caf\xe9.jpg")
    write_picture(Path("coco/train2017/x.jpg"))
    Path("coco/train2017/x.jpg").rename(Path("coco/train2017") / name)
    TRAIN.write_bytes(TRAIN.read_bytes().replace(b"000000000002.jpg", b"caf\xe9.jpg"))
    result = prepare()
    assert result.exit_code == 0, result.output
    assert Corpus.open("out").split("train").picture(2).path == Path("coco/train2017").absolute() / name
    (Path("coco/train2017") / name).unlink()
    Path("out").rename("before")
    assert "1 missing picture files" in refused()
