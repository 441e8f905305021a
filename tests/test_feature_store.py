"""The feature file: what is written is read, whole or not at all, by anybody and in any order."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from capxai.data import block_journal, feature_writer
from capxai.data.block_journal import BlockJournal, read_journals
from capxai.data.feature_format import FeatureDescription
from capxai.data.feature_names import journal_path, journal_paths, part_path, shard_path, weights_path
from capxai.data.feature_numbers import finite_and_zero_rows, repeated
from capxai.data.feature_store import FeatureStore
from capxai.data.feature_verify import WEIGHTS_SOUND, verify_features
from capxai.data.feature_writer import FeatureWriter
from capxai.errors import CapxaiError, CorpusError

GRID = FeatureDescription(
    "grid", "compact", "0" * 64, {"image_size": 16}, 6, 5, "float16", (2, 3), "scenes", {"precision": "float32"}
)
REGION = replace(GRID, kind="region", encoder="détecteur", preprocessing=None, dtype="float32", grid=None, details={})
IDS = [30, 10, 20, 50, 40, 70, 60, 90, 80, 100, 110]
SIZES = [(100 + number, 200 + number) for number in range(len(IDS))]
BLOCK = 4


def numbers(description: FeatureDescription, rows: int = len(IDS)) -> NDArray[Any]:
    generator = np.random.default_rng(7)
    return generator.normal(size=(rows, *description.row_shape)).astype(description.numpy_dtype)


def boxes(rows: int = len(IDS)) -> NDArray[np.float32]:
    return np.random.default_rng(8).uniform(0, 100, (rows, 6, 4)).astype(np.float32)


def start(path: Path, description: FeatureDescription = GRID, **keywords: Any) -> FeatureWriter:
    return FeatureWriter.create_or_resume(path, description, IDS, SIZES, block=BLOCK, **keywords)


def fill(writer: FeatureWriter, blocks: list[int] | None = None) -> None:
    description = writer.header.description
    for block in writer.missing_blocks() if blocks is None else blocks:
        rows = writer.header.rows(block)
        part = slice(rows.start, rows.stop)
        writer.write(block, numbers(description)[part], boxes()[part] if description.has_boxes else None)


def make(path: Path, description: FeatureDescription = GRID) -> Path:
    with start(path, description) as writer:
        fill(writer)
        return writer.finish()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_grid_comes_back_as_it_was_written(tmp_path: Path) -> None:
    with FeatureStore.open(make(tmp_path / "features.h5")) as store:
        assert store.description == GRID and len(store) == len(IDS) and store.block == BLOCK
        assert store.image_ids.tolist() == IDS and store.image_ids.dtype == np.int64
        assert store.sizes.tolist() == [list(size) for size in SIZES] and store.sizes.dtype == np.int32
        rows = [10, 0, 3, 3, 7]
        found = store.read(rows)
        assert found.dtype == np.float16 and np.array_equal(found, numbers(GRID)[rows])
        assert store.read([]).shape == (0, 6, 5)
        assert store.boxes([0]) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.h5"]


def test_regions_have_boxes(tmp_path: Path) -> None:
    with FeatureStore.open(make(tmp_path / "features.h5", REGION)) as store:
        assert store.description == REGION
        assert np.array_equal(store.read([4, 1]), numbers(REGION)[[4, 1]])
        found = store.boxes(np.array([4, 1]))
        assert found is not None and np.array_equal(found, boxes()[[4, 1]])


def test_any_hdf5_reader_can_read_it(tmp_path: Path) -> None:
    with h5py.File(make(tmp_path / "features.h5", REGION)) as file:
        assert np.array_equal(file["features"][:], numbers(REGION)) and file["features"].chunks is None
        assert np.array_equal(file["boxes"][:], boxes()) and file["image_ids"][:].tolist() == IDS
        assert file["features"].dtype == "<f4" and file.attrs["encoder"].decode() == "détecteur"


def test_pictures_are_found_by_id(tmp_path: Path) -> None:
    store = FeatureStore.open(make(tmp_path / "features.h5"))
    assert store.rows_of([110, 30, 20]).tolist() == [10, 0, 2]
    assert store.rows_of([]).tolist() == []
    with pytest.raises(CorpusError, match=r"no features of 2 of 3 pictures \(image ids 31, 5000\)"):
        store.rows_of([31, 30, 5000])


def test_rows_that_are_not_there(tmp_path: Path) -> None:
    store = FeatureStore.open(make(tmp_path / "features.h5"))
    for rows in ([11], [-1], [[0, 1]]):
        with pytest.raises(IndexError, match="from 0 to 10"):
            store.read(rows)  # type: ignore[arg-type]
    store.close()
    with pytest.raises(ValueError, match="closed"):
        store.read([0])


def test_the_same_bytes_whatever_happened(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole.h5", REGION)
    time.sleep(1.1)  # a time stamp in the file would show
    other = tmp_path / "other.h5"
    with start(other, REGION) as writer:
        fill(writer, [2])
    with start(other, REGION) as writer:
        assert writer.missing_blocks() == [0, 1]
        fill(writer, [1])
    with start(other, REGION, writer=0) as first, start(other, REGION, writer=1) as second:
        assert second.missing_blocks() == [0]
        fill(second, [0])
        second.close()
        with pytest.raises(CorpusError, match="lacks 1 of 3 blocks"):
            first.finish()
    with start(other, REGION) as first:
        with start(other, REGION, writer=1) as second:
            fill(second)
        first.finish()
    assert digest(other) == digest(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.h5", "whole.h5"]


def test_what_is_not_durable_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies between writing and noting must not count the block; a torn note is none."""
    monkeypatch.setattr(feature_writer, "FLUSH_SECONDS", 1e9)
    path = tmp_path / "features.h5"
    writer = start(path)
    fill(writer, [0])
    writer.flush()
    fill(writer, [1])
    writer.close()  # as a kill does: no flush
    with journal_path(path, 0).open("ab") as journal:
        journal.write(b"\x02\x00\x00\x00half")
    with start(path) as writer:
        assert writer.missing_blocks() == [1, 2]
        fill(writer, [2])
    assert sorted(read_journals(journal_paths(path))) == [0, 2]
    journal_path(path, 0).write_bytes(journal_path(path, 0).read_bytes() + b"\x01" + bytes(11))
    with start(path) as writer:
        assert writer.missing_blocks() == [1]
        fill(writer)
        writer.finish()
    assert digest(path) == digest(make(tmp_path / "whole.h5"))


def test_a_kill_while_the_file_is_made_leaves_nothing_that_is_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    (tmp_path / "features.h5.part.new").write_bytes(b"half of a header")
    journal_path(path, 3).write_bytes(block_journal._entry(0, 1) * 2)  # of an earlier file
    with start(path) as writer:
        assert writer.missing_blocks() == [0, 1, 2]
        fill(writer)
        writer.finish()
    assert [item.name for item in tmp_path.iterdir()] == ["features.h5"]


def test_an_unfinished_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    start(path).close()
    with pytest.raises(CorpusError, match="is not finished"):
        FeatureStore.open(path)
    with pytest.raises(CorpusError, match="There is no feature file"):
        FeatureStore.open(tmp_path / "elsewhere.h5")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "float32"}, "dtype 'float32' instead of 'float16'"),
        ({"weights_sha256": "1" * 64}, "weights_sha256 '11"),
        ({"details": {"precision": "bfloat16"}}, "details {'precision': 'bfloat16'} instead"),
    ],
)
def test_unfinished_work_of_other_settings(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "features.h5"
    with start(path) as writer:
        fill(writer, [0])
    with pytest.raises(CorpusError, match=f"other settings: now {said}"):
        start(path, replace(GRID, **change))
    with pytest.raises(CorpusError, match="block 2 instead of 4"):
        FeatureWriter.create_or_resume(path, GRID, IDS, SIZES, block=2)
    with pytest.raises(CorpusError, match="10 pictures that are not the same 11"):
        FeatureWriter.create_or_resume(path, GRID, IDS[1:], SIZES[1:], block=BLOCK)
    with start(path) as writer:
        assert writer.missing_blocks() == [1, 2]  # nothing was lost by asking
    with start(path, replace(GRID, **change), force=True) as writer:
        assert writer.missing_blocks() == [0, 1, 2]


def test_a_finished_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = make(tmp_path / "features.h5")
    before = digest(path)
    with pytest.raises(CorpusError, match="already there.*--force"):
        start(path)
    with start(path, replace(GRID, corpus="coco"), force=True) as writer:
        fill(writer, [0])
        assert digest(path) == before
        fill(writer)
        writer.finish()
    assert FeatureStore.open(path).description.corpus == "coco"


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    with start(tmp_path / "features.h5"), pytest.raises(CorpusError, match="Another process is writing"):
        start(tmp_path / "features.h5")
    start(tmp_path / "features.h5").close()


@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
def test_odd_rows_are_seen(dtype: str) -> None:
    values = np.ones((7, 3, 5), dtype)
    values[1, 2, 4], values[2, 0, 0], values[3, 1, 1] = np.inf, -np.inf, np.nan
    values[4] = 0
    values[4, 0] = -0.0
    values[5], values[5, 0, 0] = 0, np.finfo(dtype).smallest_subnormal
    values[6] = -np.finfo(dtype).max
    finite, zero = finite_and_zero_rows(values)
    assert finite.tolist() == [True, False, False, False, True, True, True]
    assert zero.tolist() == [False, False, False, False, True, False, False]


def test_repeated_numbers() -> None:
    assert repeated(np.array([5])).tolist() == [] == repeated(np.arange(9)).tolist()
    assert repeated(np.array([4, 1, 4, 3, 1, 4])).tolist() == [1, 4] and repeated(np.array([3, 2, 1])).tolist() == []


def test_what_cannot_be_stored(tmp_path: Path) -> None:
    with start(tmp_path / "features.h5") as writer:
        values = numbers(GRID)[:4].astype(np.float32)
        values[2, 0, 0] = 70000
        with pytest.raises(CorpusError, match=r"1 pictures \(image ids \[20\]\).*float16.*70000.*--dtype float32"):
            writer.write(0, values)
        values[2, 0, 0] = np.nan
        with pytest.raises(CorpusError, match="not finite"):
            writer.write(0, values)
        with pytest.raises(CorpusError, match="shape"):
            writer.write(2, values)
        assert writer.missing_blocks() == [0, 1, 2]
    with start(tmp_path / "regions.h5", REGION) as writer, pytest.raises(CorpusError, match="without boxes"):
        writer.write(0, numbers(REGION)[:4])


def test_impossible_files(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="more than once: \\[3\\]"):
        FeatureWriter.create_or_resume(tmp_path / "x.h5", GRID, [3, 4, 3], [(1, 1)] * 3)
    with pytest.raises(CorpusError, match="0 pictures"):
        FeatureWriter.create_or_resume(tmp_path / "x.h5", GRID, [], [])
    with pytest.raises(CorpusError, match="grid \\(2, 2\\) cannot be"):
        replace(GRID, grid=(2, 2))
    assert not list(tmp_path.iterdir())


def test_a_changed_block_is_found_before_the_file_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    with start(path) as writer:
        fill(writer)
    flip(part_path(path), writer._layout.features + 5 * GRID.row_bytes)
    with start(path) as writer, pytest.raises(CorpusError, match="1 blocks of .* not as they were written"):
        writer.finish()
    with start(path) as writer:
        assert writer.missing_blocks() == [1]
        fill(writer)
        writer.finish()
    assert digest(path) == digest(make(tmp_path / "whole.h5"))


def flip(path: Path, place: int) -> None:
    with path.open("rb+") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 4]))


def test_verify_finds_every_flipped_bit(tmp_path: Path) -> None:
    path = make(tmp_path / "features.h5", REGION)
    assert verify_features(path).problems == ()
    with h5py.File(path) as file:
        places = {name: file[name].id.get_offset() for name in ("features", "boxes", "checksums")}
    damaged = {places["features"]: 0, places["features"] + 9 * REGION.row_bytes: 2, places["boxes"] + 500: 1}
    damaged[places["checksums"] + 4] = 1
    for place, block in damaged.items():
        flip(path, place)
        found = verify_features(path)
        assert found.damaged_blocks == (("features.h5", block),)
        assert "blocks are not as they were written" in found.problems[0] and not found.to_json()["sound"]
        flip(path, place)
    assert verify_features(path).problems == ()


def test_verify_names_odd_pictures_and_foreign_weights(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    values = numbers(GRID)
    values[3] = 0
    weights_path(path).write_bytes(b"weights")
    sound = hashlib.sha256(b"weights").hexdigest()
    with start(path, replace(GRID, weights_sha256=sound)) as writer:
        for block in range(3):
            writer.write(block, values[block * 4 : block * 4 + 4])
        writer.finish()
    with h5py.File(path, "r+") as file:
        file["features"][6, 0, 0] = np.inf
    found = verify_features(path)
    assert found.all_zero == (50,) and found.not_finite == (60,) and found.damaged_blocks == (("features.h5", 1),)
    assert found.weights == WEIGHTS_SOUND and found.pictures == 11 and found.blocks == 3
    weights_path(path).write_bytes(b"other weights")
    assert "SHA-256" in verify_features(path).problems[-1]


def shards(folder: Path) -> list[Path]:
    parts = []
    for number, rows in enumerate((slice(0, 4), slice(4, 8), slice(8, 11)), start=1):
        path = shard_path(folder / "features.h5", number, 3)
        sizes = SIZES[rows]
        with FeatureWriter.create_or_resume(path, GRID, IDS[rows], sizes, block=BLOCK, shard=(number, 3)) as writer:
            writer.write(0, numbers(GRID)[rows])
            parts.append(writer.finish())
    return parts


def test_parts_are_one_store(tmp_path: Path) -> None:
    parts = shards(tmp_path)
    assert parts[1].name == "features.2-of-3.h5"
    whole = FeatureStore.open(make(tmp_path / "whole.h5"))
    rows = [10, 0, 4, 3, 8, 7]
    for given in (tmp_path / "features.h5", parts[2], tmp_path / "features.*.h5", parts[::-1]):
        with FeatureStore.open(given) as store:
            assert store.paths == tuple(parts) and store.image_ids.tolist() == IDS
            assert np.array_equal(store.read(rows), whole.read(rows))
            assert store.rows_of([90]).tolist() == [7]
            assert store.weights_path == tmp_path / "features.encoder.safetensors"
    assert verify_features(tmp_path / "features.h5").pictures == 11


def test_missing_and_foreign_parts(tmp_path: Path) -> None:
    parts = shards(tmp_path)
    parts[1].rename(tmp_path / "kept")
    with pytest.raises(CorpusError, match=r"1 of 3 parts .* missing: .*features\.2-of-3\.h5"):
        FeatureStore.open(parts[0])
    with pytest.raises(CorpusError, match="missing"):
        verify_features(tmp_path / "features.h5")
    parts[0].rename(parts[1])
    (tmp_path / "kept").rename(parts[0])
    with pytest.raises(CorpusError, match="its name says"):
        FeatureStore.open(parts[2])
    with pytest.raises(CorpusError, match="not the parts of one"):
        FeatureStore.open([parts[2], make(tmp_path / "whole.h5")])


def test_a_torn_file_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = make(tmp_path / "features.h5", replace(GRID, regions=60, grid=(6, 10), channels=50))
    content = path.read_bytes()
    store = FeatureStore.open(path)
    for length in (0, 100, 3000, len(content) - 40000):
        path.write_bytes(content[:length])
        with pytest.raises(CorpusError, match="cannot be read|cut off"):
            FeatureStore.open(path)
    with pytest.raises(CorpusError, match="in the middle of a row"):
        store.read([10])  # still open while it shrinks
    path.write_bytes(b"This is no HDF5 file." * 100)
    with pytest.raises(CorpusError, match="cannot be read"):
        FeatureStore.open(path)
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["features"] = np.zeros(3)
    with pytest.raises(CorpusError, match="another kind of HDF5"):
        FeatureStore.open(tmp_path / "foreign.h5")


def _sum(store: FeatureStore, rows: list[int]) -> float:
    return float(store.read(rows).astype(np.float64).sum())


def test_many_readers(tmp_path: Path) -> None:
    store = FeatureStore.open(make(tmp_path / "features.h5"))
    jobs = [[number % 11, (number * 7) % 11] for number in range(40)]
    expected = [_sum(store, rows) for rows in jobs]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda rows: _sum(store, rows), jobs)) == expected
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.starmap(_sum, [(store, rows) for rows in jobs[:6]]) == expected[:6]
    assert np.array_equal(pickle.loads(pickle.dumps(store)).read([5]), store.read([5]))


def test_a_full_disk_is_found_before_any_work(tmp_path: Path) -> None:
    """The limit on the size of files stands for the disk."""
    path = tmp_path / "features.h5"
    large = replace(GRID, regions=600, grid=(20, 30), channels=512)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
        with pytest.raises(CapxaiError, match=r"The disk is full: .*features\.h5.*Free some space"):
            start(path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not path.exists() and not part_path(path).exists()
    make(path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CapxaiError, match="could not be written"):
        start(tmp_path / "file" / "features.h5")


def test_a_journal_belongs_to_one(tmp_path: Path) -> None:
    first = BlockJournal(tmp_path / "notes")
    first.add({3: 2**32 - 1, 0: 0})
    assert read_journals([tmp_path / "notes"]) == {3: 2**32 - 1, 0: 0}
    with pytest.raises(CorpusError):
        BlockJournal(tmp_path / "notes")
    first.close()
    assert os.stat(tmp_path / "notes").st_size == 24
    BlockJournal(tmp_path / "notes").close()
