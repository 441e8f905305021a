"""Corpus folders, sound and torn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from capxai.data.corpus import Corpus
from capxai.data.masks import decode_mask
from capxai.data.scenes.corpus import write_corpus
from capxai.errors import CorpusError

COCO_MINI = Path(__file__).resolve().parents[2] / "shared" / "coco-mini"
Files = dict[str, Any]


def files_of_a_corpus() -> Files:
    images = [
        {"id": 7, "file_name": "b.png", "width": 6, "height": 4},
        {"id": 3, "file_name": "a.png", "width": 4, "height": 4},
    ]
    captions = [
        {"id": 1, "image_id": 3, "caption": "a car"},
        {"id": 2, "image_id": 7, "caption": "a fork near a car"},
        {"id": 3, "image_id": 3, "caption": "one car"},
    ]
    square = [[1, 1, 4, 1, 4, 3, 1, 3]]
    objects = [
        {"id": 5, "image_id": 7, "category_id": 3, "bbox": [1, 1, 3, 2], "iscrowd": 0, "segmentation": square},
        {"id": 6, "image_id": 7, "category_id": 48, "bbox": [0, 0, 1.5, 2], "iscrowd": 1, "segmentation": None},
    ]
    categories = [{"id": 3, "name": "car"}, {"id": 48, "name": "fork"}]
    return {
        "corpus.json": {
            "schema": 1,
            "name": "tiny",
            "splits": {"train": {"images": "images", "captions": "captions.json", "instances": "instances.json"}},
        },
        "captions.json": {"images": images, "annotations": captions},
        "instances.json": {"images": images, "annotations": objects, "categories": categories},
    }


def write(folder: Path, files: Files) -> Path:
    (folder / "images").mkdir(parents=True)
    for name, size in {"a.png": (4, 4), "b.png": (6, 4)}.items():
        Image.new("RGB", size).save(folder / "images" / name)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def message(folder: Path) -> str:
    with pytest.raises(CorpusError) as caught:
        Corpus.open(folder).split("train")
    return str(caught.value)


def changed(tmp_path: Path, change: Callable[[Files], object]) -> str:
    files = files_of_a_corpus()
    change(files)
    return message(write(tmp_path / "corpus", files))


def test_sound_corpus(tmp_path: Path) -> None:
    corpus = Corpus.open(str(write(tmp_path / "corpus", files_of_a_corpus())))
    assert corpus.name == "tiny" and corpus.splits == ("train",)
    split = corpus.split("train")
    assert [picture.id for picture in split.pictures] == [7, 3] and len(split) == 2
    assert split.picture(7).path == tmp_path / "corpus" / "images" / "b.png"
    assert (split.picture(7).width, split.picture(7).height) == (6, 4)
    assert split.captions == {3: ("a car", "one car"), 7: ("a fork near a car",)}
    assert split.categories == {3: "car", 48: "fork"} and split.has_objects
    assert split.objects[3] == ()
    car, fork = split.objects[7]
    assert (car.id, car.category, car.category_id, car.bbox, car.crowd) == (5, "car", 3, (1, 1, 3, 2), False)
    assert (fork.category, fork.bbox, fork.crowd) == ("fork", (0, 0, 1.5, 2), True)
    expected = np.zeros((4, 6), dtype=bool)
    expected[1:3, 1:4] = True
    np.testing.assert_array_equal(split.mask(car), expected)
    with pytest.raises(CorpusError, match=r"Object 6 of picture 7 \('b.png'\): The segmentation is missing"):
        split.mask(fork)
    with pytest.raises(CorpusError, match="Image id 4 is not in the split 'train'"):
        split.picture(4)


def test_instances_are_optional(tmp_path: Path) -> None:
    files = files_of_a_corpus()
    del files["corpus.json"]["splits"]["train"]["instances"]
    del files["instances.json"]
    split = Corpus.open(write(tmp_path / "corpus", files)).split("train")
    assert not split.has_objects and split.categories == {} and split.objects == {3: (), 7: ()}


def test_no_corpus_folder(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="none' does not exist as a folder. .* 'capxai prepare scenes --out DIR'"):
        Corpus.open(tmp_path / "none")
    with pytest.raises(CorpusError, match="has no corpus.json"):
        Corpus.open(tmp_path)


def test_unknown_split(tmp_path: Path) -> None:
    corpus = Corpus.open(write(tmp_path / "corpus", files_of_a_corpus()))
    with pytest.raises(CorpusError, match="Unknown split 'trian'. Choose one of: train. Did you mean 'train'?"):
        corpus.split("trian")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"schema": 2}, "the unknown schema 2 (this capxai reads 1)"),
        ({"name": None}, "no text 'name'"),
        ({"splits": {}}, "no 'splits'"),
        ({"splits": {"train": []}}, "1 splits that are no table (train)"),
        ({"splits": {"train": {"captions": "c", "instances": 3}}}, "1 splits without a path for 'images' (train)"),
        ({"splits": {"train": {"captions": "c", "instances": 3}}}, "1 splits without a path for 'instances' (train)"),
    ],
)
def test_torn_manifest(tmp_path: Path, change: Files, found: str) -> None:
    text = changed(tmp_path, lambda files: files["corpus.json"].update(change))
    assert found in text and text.startswith(f"'{tmp_path / 'corpus' / 'corpus.json'}' has ")


@pytest.mark.parametrize("name", ["corpus.json", "captions.json", "instances.json"])
def test_cut_off_and_missing_files(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "corpus", files_of_a_corpus()) / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert f"'{path}' is not complete JSON (" in message(tmp_path / "corpus")
    path.write_text("[1]")
    assert f"'{path}' holds a JSON list. Expected an object." in message(tmp_path / "corpus")
    path.write_bytes(b"\xff\xfe\x00")
    assert f"'{path}' is not complete JSON (" in message(tmp_path / "corpus")
    path.unlink()
    expected = "has no corpus.json" if name == "corpus.json" else f"'{path}' cannot be read (No such file or directory)"
    assert expected in message(tmp_path / "corpus")


def test_missing_picture(tmp_path: Path) -> None:
    folder = write(tmp_path / "corpus", files_of_a_corpus())
    (folder / "images" / "a.png").unlink()
    text = message(folder)
    assert f"1 missing picture files ('{folder / 'images' / 'a.png'}')" in text
    assert text.endswith("Write the corpus again with 'capxai prepare', or mend the file.")


def test_all_problems_of_a_file_are_counted(tmp_path: Path) -> None:
    def change(files: Files) -> None:
        content = files["captions.json"]
        content["images"] += [{"id": 7, "file_name": "b.png", "width": 6, "height": 4}, "x", {"id": True}]
        content["images"] += [{"id": 8, "file_name": "a.png", "width": 0, "height": 4}, {"id": 9}]
        content["annotations"] += [{"image_id": number, "caption": "a"} for number in range(100, 105)]
        content["annotations"] += [{"image_id": 3, "caption": " "}, {"image_id": "3", "caption": "a"}]
        content["annotations"] += [{"id": 55, "image_id": 3, "caption": "a"}, {"id": 55, "image_id": 3, "caption": "b"}]

    text = changed(tmp_path, change)
    for part in (
        "1 image ids that occur twice (7)",
        "1 entries of 'images' that are no objects (entry 3)",
        "1 pictures without a whole id (True)",
        "1 pictures without a width and height (image id 8)",
        "1 pictures without a file name (image id 9)",
        "6 captions for pictures that it does not list (image id 100, image id 101, image id 102, ...)",
        "1 captions without text (image id 3)",
        "1 caption ids that occur twice (55)",
    ):
        assert part in text
    assert text.startswith(f"'{tmp_path / 'corpus' / 'captions.json'}' has ") and "\n" not in text


def test_problems_with_objects(tmp_path: Path) -> None:
    def change(files: Files) -> None:
        content = files["instances.json"]
        sound = content["annotations"][0]
        content["categories"] += [{"id": 3, "name": "bus"}, {"id": 4}]
        content["annotations"] += [sound, {**sound, "id": 90, "image_id": 1}, {**sound, "id": 91, "category_id": 9}]
        content["annotations"] += [{**sound, "id": 92, "bbox": [1, 2, 3]}, {**sound, "id": None}]
        content["annotations"] += [{**sound, "id": 93, "bbox": [1, 2, 3, float("nan")]}]

    text = changed(tmp_path, change)
    for part in (
        "1 category ids that occur twice (3)",
        "1 categories without a whole id and a name (4: None)",
        "1 object ids that occur twice (5)",
        "1 objects on pictures that the caption file does not list (image id 1)",
        "1 objects of unknown categories (category id 9 of object 91)",
        "2 objects without a box of four numbers (object 92, object 93)",
        "1 objects without a whole id (None)",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("name", "table"), [("captions", "images"), ("captions", "annotations"), ("instances", "categories")]
)
def test_missing_tables(tmp_path: Path, name: str, table: str) -> None:
    assert f"no list '{table}'" in changed(tmp_path, lambda files: files[f"{name}.json"].pop(table))


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ({"pictures": 3}, "2 usable pictures where corpus.json says 3"),
        ({"captions_count": 10}, "3 usable captions where corpus.json says 10"),
        ({"objects": 1}, "2 usable objects where corpus.json says 1"),
    ],
)
def test_counts_of_the_manifest(tmp_path: Path, counts: Files, found: str) -> None:
    assert found in changed(tmp_path, lambda files: files["corpus.json"]["splits"]["train"].update(counts))


def test_all_forms_of_masks_agree() -> None:
    drawn = np.zeros((40, 50), dtype=bool)
    drawn[5:30, 7:44] = True
    drawn[12:20, 20:33] = np.random.default_rng(0).random((8, 13)) < 0.5
    encoded = coco_mask.encode(np.asfortranarray(drawn, dtype=np.uint8))
    compressed = {"size": [40, 50], "counts": encoded["counts"].decode()}
    np.testing.assert_array_equal(decode_mask(compressed, 40, 50), drawn)
    column_by_column = drawn.T.flatten()
    edges = np.flatnonzero(np.diff(column_by_column)) + 1
    lengths = np.diff([0, *edges, drawn.size]).tolist()  # the first pixel is off the object
    result = decode_mask({"size": [40, 50], "counts": lengths}, 40, 50)
    assert result.dtype == bool
    np.testing.assert_array_equal(result, drawn)


def test_polygons_are_united() -> None:
    result = decode_mask([[0, 0, 2, 0, 2, 2, 0, 2], [3, 1, 5, 1, 5, 3, 3, 3]], 4, 6)
    assert result.shape == (4, 6) and result.sum() == 8 and result[:2, :2].all() and result[1:3, 3:5].all()


@pytest.mark.parametrize(
    ("segmentation", "found"),
    [
        ([], "is missing or empty"),
        (None, "is missing or empty"),
        ([[0, 0, 2, 2]], "fewer than three corners"),
        ([[0, 0, 1, 1, 2, 2, 3]], "fewer than three corners"),
        ([[0, 0, 1, 1, 2, float("nan")]], "no positions on a picture"),
        ([[0, 0, 1, 1, 2, 1e12]], "no positions on a picture"),
        ([[0, 0, 1, 1, 2, "2"]], "no positions on a picture"),
        ({"size": [6, 4], "counts": [24]}, r"of .height, width. \[6, 4\], and the picture has \[4, 6\]"),
        ({"size": [4, 6], "counts": [20]}, "of 20 pixels, and the picture has 24"),
        ({"size": [4, 6], "counts": [-1, 25]}, "of 24 pixels"),
        ({"size": [4, 6]}, "without counts"),
        ({"size": [4, 6], "counts": "00000"}, "of 0 pixels"),
        ({"size": [4, 6], "counts": "P"}, "breaks off"),
        ({"size": [4, 6], "counts": "\u00e9"}, "damaged run-length code"),
        ({"size": [4, 6], "counts": "oooooooo0"}, "damaged run-length code"),
    ],
)
def test_damaged_segmentations(segmentation: Any, found: str) -> None:
    with pytest.raises(CorpusError, match=found):
        decode_mask(segmentation, 4, 6)


def test_scenes_come_back(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path / "scenes", size=8, seed=1)
    corpus = Corpus.open(tmp_path / "scenes")
    assert corpus.name == "scenes" and corpus.splits == tuple(manifest["splits"])
    split = corpus.split("robust")
    assert all(len(split.captions[picture.id]) == 5 for picture in split.pictures)
    found = [(split.mask(item), item) for items in split.objects.values() for item in items]
    assert found
    for mask, item in found:
        left, top, width, height = (round(value) for value in item.bbox)
        inside = mask[max(top - 1, 0) : top + height + 1, max(left - 1, 0) : left + width + 1]
        assert 0 < inside.sum() == mask.sum()


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="the photographs of coco-mini are not here")
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools' own decoder
@pytest.mark.parametrize(("name", "pictures", "captions", "objects"), [("train", 80, 400, 739), ("val", 79, 395, 624)])
def test_coco(tmp_path: Path, name: str, pictures: int, captions: int, objects: int) -> None:
    entry = {
        "images": str(COCO_MINI / f"{name}2017"),
        "captions": str(COCO_MINI / "annotations" / f"captions_{name}2017.json"),
        "instances": str(COCO_MINI / "annotations" / f"instances_{name}2017.json"),
    }
    manifest = {"schema": 1, "name": "coco", "splits": {name: entry}}
    (tmp_path / "corpus.json").write_text(json.dumps(manifest))
    split = Corpus.open(tmp_path).split(name)
    assert (len(split), sum(map(len, split.captions.values()))) == (pictures, captions)
    items = [item for found in split.objects.values() for item in found]
    assert len(items) == objects and len(split.categories) == 80 and any(item.crowd for item in items)
    reference = COCO(entry["instances"])
    for item in items:
        picture = split.picture(item.image_id)
        mask = split.mask(item)
        assert mask.shape == (picture.height, picture.width)
        np.testing.assert_array_equal(mask, reference.annToMask(reference.anns[item.id]))
