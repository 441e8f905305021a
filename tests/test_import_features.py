"""Published region features in each of their formats, written here as their makers do, and read back from the feature file."""

from __future__ import annotations

import base64
import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from capxai.data.feature_store import FeatureStore
from capxai.data.published_features import open_published
from capxai.errors import CapxaiError, ConfigError, CorpusError
from capxai.recipes import import_features
from capxai.recipes.import_features import ImportFeaturesConfig, run
from capxai.types import SilentReporter

C = 2048
Made = dict[int, tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, int]]]
"""Features (K, C), boxes (K, 4) and height and width, by id."""

Writer = Callable[[Path, Made], Path]


class Listening(SilentReporter):
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def make(counts: dict[int, int], channels: int = C) -> Made:
    made: Made = {}
    for number, count in counts.items():
        generator = np.random.default_rng(number)
        height, width = int(generator.integers(200, 500)), int(generator.integers(200, 640))
        features = generator.gamma(0.5, 1.0, (count, channels)).astype(np.float32)
        corners = np.sort(generator.uniform(0, [width, height], (count, 2, 2)), axis=1)
        made[number] = features, corners.reshape(count, 4).astype(np.float32), (height, width)
    return made


FEW = make({42: 3, 9: 3, 285: 3, 1000092795: 3})


def tsv_row(number: int, made: Made) -> list[object]:
    features, boxes, (height, width) = made[number]
    columns = [base64.b64encode(array.tobytes()).decode() for array in (boxes, features)]
    return [number, width, height, len(boxes), *columns]


def write_rows(path: Path, rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows)


def as_tsv(folder: Path, made: Made) -> Path:
    """Two files, as the training split comes."""
    numbers = list(made)
    write_rows(folder / "train_resnet101_faster_rcnn_genome.tsv.0", [tsv_row(number, made) for number in numbers[:2]])
    write_rows(folder / "train_resnet101_faster_rcnn_genome.tsv.1", [tsv_row(number, made) for number in numbers[2:]])
    return folder


def as_lxmert(folder: Path, made: Made) -> Path:
    rows = []
    for number in made:
        _, width, height, count, boxes, features = tsv_row(number, made)
        rows.append(
            [f"COCO_val2014_{number:012d}", height, width, "AA==", "AA==", "AA==", "AA==", count, boxes, features]
        )
    write_rows(folder / "val.tsv", rows)
    return folder / "val.tsv"


def as_npz(folder: Path, made: Made) -> Path:
    for number, (features, boxes, (height, width)) in made.items():
        np.savez(folder / f"{number}.npz", features=features, boxes=boxes, image_h=height, image_w=width)
    return folder


def as_columns(folder: Path, made: Made) -> Path:
    """Features with a region in each column, and a pickled object that nobody may open."""
    for number, (features, boxes, (height, width)) in made.items():
        info = np.array({"objects": [1]}, dtype=object)
        sizes = {"image_h": height, "image_w": width}
        np.savez_compressed(folder / f"{number}.npz", x=features.T, bbox=boxes, info=info, **sizes)
    return folder


def as_cocobu(folder: Path, made: Made) -> Path:
    for name in ("cocobu_att", "cocobu_box", "cocobu_fc"):
        (folder / name).mkdir()
    for number, (features, boxes, _) in made.items():
        np.savez_compressed(folder / "cocobu_att" / f"{number}.npz", feat=features)
        np.save(folder / "cocobu_box" / f"{number}.npy", boxes)
        np.save(folder / "cocobu_fc" / f"{number}.npy", features.mean(0))
    return folder


def as_hdf5(folder: Path, made: Made) -> Path:
    """The paper's authors: the picture's file name with .hdf5 behind it, in a folder for each split."""
    for place, (number, (features, boxes, _)) in enumerate(made.items()):
        split = folder / ("train" if place % 2 else "val")
        split.mkdir(exist_ok=True)
        with h5py.File(split / f"{number:012d}.jpg.hdf5", "w") as file:
            file.create_dataset("image_features", data=features)
            file.create_dataset("image_boxes", data=boxes)
    return folder


def as_other_hdf5(folder: Path, made: Made) -> Path:
    for number, (features, boxes, (height, width)) in made.items():
        with h5py.File(folder / f"COCO_train2014_{number:012d}.h5", "w") as file:
            file["features"], file["bbox"], file["image_w"] = features, boxes, width
            file.attrs["image_h"] = height
    return folder


SIZED: list[Writer] = [as_tsv, as_lxmert, as_npz, as_columns, as_other_hdf5]
ALL: list[Writer] = [*SIZED, as_cocobu, as_hdf5]


def imported(source: Path, out: Path, **settings: Any) -> tuple[import_features.ImportFeaturesReport, Listening]:
    reporter = Listening()
    return run(ImportFeaturesConfig(source, out, **settings), reporter), reporter


def folder_of(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("write", ALL, ids=lambda write: write.__name__)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_comes_back_is_what_was_published_rounded(write: Writer, dtype: str, tmp_path: Path) -> None:
    report, _ = imported(write(folder_of(tmp_path), FEW), tmp_path / "features.h5", dtype=dtype)
    assert report.pictures == 4 and report.fit == (3, 0, 0)
    with FeatureStore.open(tmp_path / "features.h5") as store:
        assert store.description.kind == "region" and store.description.dtype == dtype
        assert store.description.row_shape == (3, C)
        rows = store.rows_of(list(FEW))
        features, boxes = store.read(rows), store.boxes(rows)
        sizes = store.sizes[rows].tolist()
    assert boxes is not None
    for place, (expected, expected_boxes, size) in enumerate(FEW.values()):
        assert np.array_equal(features[place], expected.astype(dtype))
        assert np.array_equal(boxes[place], expected_boxes)
        assert sizes[place] == (list(size) if write in SIZED else [0, 0])


def test_the_order_is_that_of_the_file_or_by_id(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    imported(as_tsv(tmp_path / "a", FEW), tmp_path / "tsv.h5")
    imported(as_npz(tmp_path / "b", FEW), tmp_path / "npz.h5")
    assert FeatureStore.open(tmp_path / "tsv.h5").image_ids.tolist() == [42, 9, 285, 1000092795]
    assert FeatureStore.open(tmp_path / "npz.h5").image_ids.tolist() == [9, 42, 285, 1000092795]


def test_pictures_are_read_one_at_a_time(tmp_path: Path) -> None:
    source = open_published(as_tsv(folder_of(tmp_path), FEW))
    assert len(source) == 4
    for (picture, arrays), (number, (features, boxes, size)) in zip(source, FEW.items(), strict=True):
        assert picture.number == number and picture.size == size
        assert np.array_equal(arrays.features, features)
        assert arrays.boxes is not None and np.array_equal(arrays.boxes, boxes)
    source.close()


def test_a_heading_and_windows_line_ends_are_no_obstacle(tmp_path: Path) -> None:
    heading: list[object] = ["image_id", "image_w", "image_h", "num_boxes", "boxes", "features"]
    path = tmp_path / "one.tsv"
    write_rows(path, [heading, *(tsv_row(number, FEW) for number in FEW)])
    assert b"\r\n" in path.read_bytes()
    report, _ = imported(path, tmp_path / "features.h5")
    assert report.pictures == 4


VARIED = make({1: 2, 2: 5, 3: 3, 4: 3})


@pytest.mark.parametrize("write", [as_tsv, as_npz, as_hdf5], ids=lambda write: write.__name__)
def test_varied_numbers_of_regions_need_a_decision(write: Writer, tmp_path: Path) -> None:
    source = write(folder_of(tmp_path), VARIED)
    with pytest.raises(
        CorpusError,
        match=r"2 to 5 regions.*--set regions=36: with that, 4 pictures would be filled with zero rows, and 0",
    ):
        imported(source, tmp_path / "features.h5")
    report, reporter = imported(source, tmp_path / "features.h5", regions=3)
    assert report.fit == (3, 1, 1)
    assert any("1 pictures have fewer than 3 regions" in text and "no mask" in text for text in reporter.warnings)
    assert any("keep the first" in text for text in reporter.notes)
    with FeatureStore.open(tmp_path / "features.h5") as store:
        rows = store.rows_of([1, 2, 3, 4])
        features, boxes = store.read(rows), store.boxes(rows)
        assert store.description.details["filled_pictures"] == 1 and store.description.details["cut_pictures"] == 1
    assert boxes is not None
    assert np.array_equal(features[0, :2], VARIED[1][0].astype(np.float16))
    assert not features[0, 2].any() and not boxes[0, 2].any()
    assert np.array_equal(features[1], VARIED[2][0][:3].astype(np.float16))
    assert np.array_equal(boxes[1], VARIED[2][1][:3])


def test_features_without_boxes_are_said_to_be_so(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    for number, (features, _, _) in FEW.items():
        np.save(folder / f"{number}.npy", features)
    report, reporter = imported(folder, tmp_path / "features.h5")
    assert report.description.details["boxes"] == "unknown"
    assert any("no boxes" in text for text in reporter.warnings)
    np.savez(folder / "7.npz", features=FEW[9][0], boxes=FEW[9][1])
    with pytest.raises(CorpusError, match="4 of 5 pictures.*have no boxes"):
        imported(folder, tmp_path / "other.h5")


def corpus_of(folder: Path, pictures: list[tuple[int, str, tuple[int, int]]]) -> Path:
    """Write a corpus folder of one split with empty picture files."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, name, (height, width) in pictures:
        (folder / "images" / name).write_bytes(b"x")
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        annotations.append({"id": number, "image_id": number, "caption": "a dog"})
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    splits = {"train": {"images": "images", "captions": "captions.json"}}
    (folder / "corpus.json").write_text(json.dumps({"schema": 1, "name": "small", "splits": splits}))
    return folder


def test_a_corpus_decides_which_pictures_and_tells_ids_and_sizes(tmp_path: Path) -> None:
    known = [
        (9, "000000000009.jpg", FEW[9][2]),
        (0, "1000092795.jpg", FEW[1000092795][2]),  # Karpathy numbers the pictures of Flickr30K himself
        (42, "000000000042.jpg", (7, 7)),
        (77, "000000000077.jpg", (5, 5)),
    ]
    corpus = corpus_of(tmp_path / "corpus", known)
    source = as_tsv(folder_of(tmp_path), FEW)
    report, reporter = imported(source, tmp_path / "features.h5", corpus=corpus)
    assert report.missing == (77,) and report.unknown == ("285",) and report.other_sizes == (42,)
    shown = report.to_json()
    assert shown["missing"] == {"count": 1, "first": [77]} and shown["unknown"] == {"count": 1, "first": ["285"]}
    assert json.loads(json.dumps(shown))["pictures"] == 3
    assert any("1 pictures of the corpus have no features (77)" in text for text in reporter.warnings)
    assert any("another size" in text for text in reporter.warnings)
    with FeatureStore.open(tmp_path / "features.h5") as store:
        assert store.image_ids.tolist() == [42, 9, 0]
        assert store.description.corpus == "small"
        assert np.array_equal(store.read(store.rows_of([0]))[0], FEW[1000092795][0].astype(np.float16))


def test_a_corpus_knows_the_sizes_that_the_source_does_not(tmp_path: Path) -> None:
    corpus = corpus_of(
        tmp_path / "corpus", [(number, f"{number:012d}.jpg", size) for number, (_, _, size) in FEW.items()]
    )
    report, reporter = imported(as_hdf5(folder_of(tmp_path), FEW), tmp_path / "features.h5", corpus=corpus)
    assert report.without_size == 0 and not reporter.warnings
    store = FeatureStore.open(tmp_path / "features.h5")
    assert store.sizes[store.rows_of([42])[0]].tolist() == list(FEW[42][2])


def test_features_of_other_pictures_than_the_corpus(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", [(5, "5.jpg", (4, 4))])
    with pytest.raises(CorpusError, match=r"None of the 4 pictures.*such as 42.*belong together"):
        imported(as_tsv(folder_of(tmp_path), FEW), tmp_path / "features.h5", corpus=corpus)


def test_all_damaged_lines_are_found_at_once(tmp_path: Path) -> None:
    good = [tsv_row(number, FEW) for number in FEW]
    short, cut, wide, wordy = ([*row] for row in good)
    short = short[:4]
    cut[5] = str(cut[5])[:-404]
    wide[5] = base64.b64encode(np.ones((3, 2054), np.float32).tobytes()).decode()
    wordy[1] = "wide"
    path = tmp_path / "bad.tsv"
    write_rows(path, [good[0], short, cut, wide, wordy])
    with pytest.raises(CorpusError) as caught:
        imported(path, tmp_path / "features.h5")
    message = str(caught.value)
    assert str(path) in message
    assert "1 lines with another number of columns than 6 or 10 (bad.tsv, line 2: 4)" in message
    assert "1 lines whose boxes or features are cut off (bad.tsv, line 3: image 9)" in message
    assert "1 lines with 2054 channels a region where 2048 were expected (bad.tsv, line 4: image 285)" in message
    assert "no id, width, height and number of boxes (bad.tsv, line 5)" in message
    assert not (tmp_path / "features.h5").exists()


def test_a_file_that_ends_in_the_middle_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "cut.tsv"
    write_rows(path, [tsv_row(number, FEW) for number in FEW])
    path.write_bytes(path.read_bytes()[:-1001])
    with pytest.raises(
        CorpusError, match=r"1 lines whose boxes or features are cut off \(cut.tsv, line 4: image 1000092795\)"
    ):
        imported(path, tmp_path / "features.h5")


def test_a_picture_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    path = tmp_path / "twice.tsv"
    write_rows(path, [tsv_row(number, FEW) for number in (42, 9, 42)])
    with pytest.raises(CorpusError, match=r"there twice \(42 in '.*twice.tsv', line 1 and '.*twice.tsv', line 3\)"):
        imported(path, tmp_path / "features.h5")


def test_numbers_that_cannot_be_are_collected_and_what_is_sound_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_features, "BLOCK", 1)
    made = make(dict.fromkeys(range(1, 8), 2))
    bad = {number: tuple(np.copy(part) for part in made[number][:2]) for number in made}
    bad[2][0][1, 5] = np.nan
    bad[3][0][0, 0] = 70000
    bad[4][1][0] = [50, 10, 40, 20]
    bad[5][1][:] /= 10000
    broken = {number: (*bad[number], made[number][2]) for number in made}
    path = tmp_path / "features.tsv"
    rows = [tsv_row(number, broken) for number in broken]
    rows[5][5] = "*" + str(rows[5][5])[1:]
    write_rows(path, rows)
    with pytest.raises(CorpusError) as caught:
        imported(path, tmp_path / "features.h5")
    message = str(caught.value)
    assert message.startswith(f"5 pictures of '{path}' cannot be used")
    for text in (
        "line 2 (picture 2): features with 1 numbers that are NaN or infinite",
        "line 3 (picture 3): features up to 70000, beyond 65504, the largest float16",
        "line 4 (picture 4): boxes whose right is left of their left",
        "line 5 (picture 5): boxes as shares of the picture",
        "line 6 (picture 6): features that are no base64",
    ):
        assert text in message
    assert not (tmp_path / "features.h5").exists()
    write_rows(path, [tsv_row(number, made) for number in made])
    report, _ = imported(path, tmp_path / "features.h5")
    assert report.resumed == 2
    store = FeatureStore.open(tmp_path / "features.h5")
    for number, (features, _, _) in made.items():
        assert np.array_equal(store.read(store.rows_of([number]))[0], features.astype(np.float16))


def test_damaged_and_foreign_files_of_a_folder_are_found_at_once(tmp_path: Path) -> None:
    folder = as_npz(folder_of(tmp_path), FEW)
    (folder / "1.npz").write_bytes((folder / "9.npz").read_bytes()[:500])
    np.savez(folder / "2.npz", weights=np.ones(3))
    np.savez(folder / "3.npz", features=np.ones((3, 7), np.float32))
    np.savez(folder / "4.npz", features=np.array([None, {}], dtype=object))
    with pytest.raises(CorpusError) as caught:
        imported(folder, tmp_path / "features.h5")
    message = str(caught.value)
    assert "3 files that cannot be read (1.npz:" in message
    assert "2.npz: holds weights and none of image_features, features" in message
    assert "pickled objects" in message
    assert "1 files whose features have another shape (3.npz: (3, 7))" in message


def test_a_damaged_array_inside_a_sound_archive(tmp_path: Path) -> None:
    folder = as_npz(folder_of(tmp_path), FEW)
    stream = io.BytesIO((folder / "9.npz").read_bytes())
    with zipfile.ZipFile(stream) as archive:
        start = archive.getinfo("features.npy").header_offset
    content = bytearray(stream.getvalue())
    content[start + 3000] ^= 255
    (folder / "9.npz").write_bytes(content)
    with pytest.raises(CorpusError, match=r"1 pictures of .*\n- '.*9.npz' \(picture 9\): Bad CRC-32"):
        imported(folder, tmp_path / "features.h5")


def test_damaged_hdf5_files_are_counted(tmp_path: Path) -> None:
    folder = as_hdf5(folder_of(tmp_path), FEW)
    (folder / "train" / "000000000001.jpg.hdf5").write_bytes(b"no HDF5")
    with h5py.File(folder / "val" / "000000000002.jpg.hdf5", "w") as file:
        file["image_boxes"] = np.ones((3, 4))
    with pytest.raises(
        CorpusError, match=r"2 files that cannot be read \(000000000001.jpg.hdf5: .*none of image_features"
    ):
        imported(folder, tmp_path / "features.h5")


def test_sources_that_are_none(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    with pytest.raises(CorpusError, match="has no files of region features"):
        open_published(folder)
    with pytest.raises(CorpusError, match="does not exist"):
        open_published(folder / "absent")
    as_npz(folder, FEW)
    with pytest.raises(CorpusError, match="has no tsv files"):
        open_published(folder, "tsv")
    as_tsv(folder, FEW)
    with pytest.raises(CorpusError, match=r"several formats \(2 tsv, 4 npz\).*--import-format"):
        open_published(folder)
    assert len(open_published(folder, "npz")) == 4
    with pytest.raises(CorpusError, match="Did you mean 'hdf5'"):
        open_published(folder, "hdf")  # type: ignore[arg-type]
    with pytest.raises(CorpusError, match="is a single file"):
        open_published(folder / "9.npz")
    empty = tmp_path / "empty.tsv"
    empty.write_bytes(b"")
    with pytest.raises(CorpusError, match="holds no pictures"):
        open_published(empty)


def test_names_without_a_number_need_a_corpus(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    np.savez(folder / "dog.npz", features=FEW[9][0], boxes=FEW[9][1])
    with pytest.raises(CorpusError, match=r"whose name ends in no number \(dog in .*name the corpus"):
        imported(folder, tmp_path / "features.h5")
    corpus = corpus_of(tmp_path / "corpus", [(5, "dog.jpg", (400, 700))])
    imported(folder, tmp_path / "features.h5", corpus=corpus)
    assert FeatureStore.open(tmp_path / "features.h5").image_ids.tolist() == [5]


class _KilledError(Exception):
    """Stands for the end of the process."""


def test_an_interrupted_import_goes_on_and_ends_in_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_features, "BLOCK", 2)
    source = as_tsv(folder_of(tmp_path), make(dict.fromkeys(range(1, 10), 2)))
    imported(source, tmp_path / "whole.h5")
    read, calls = import_features._read_block, []

    def stop(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 3:
            raise _KilledError
        return read(*arguments)

    monkeypatch.setattr(import_features, "_read_block", stop)
    with pytest.raises(_KilledError):
        imported(source, tmp_path / "features.h5")
    monkeypatch.setattr(import_features, "_read_block", read)
    report, _ = imported(source, tmp_path / "features.h5")
    assert report.resumed == 3
    assert (tmp_path / "features.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_finished_file_is_kept_unless_forced(tmp_path: Path) -> None:
    source = as_tsv(folder_of(tmp_path), FEW)
    imported(source, tmp_path / "features.h5")
    before = (tmp_path / "features.h5").read_bytes()
    for again in (source, tmp_path / "absent"):
        with pytest.raises(CapxaiError, match=r"already there, and it was kept.*--force"):
            imported(again, tmp_path / "features.h5")
    assert (tmp_path / "features.h5").read_bytes() == before
    report, _ = imported(source, tmp_path / "features.h5", dtype="float32", force=True)
    assert report.description.dtype == "float32"


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 regions"):
        ImportFeaturesConfig(tmp_path, regions=0)
