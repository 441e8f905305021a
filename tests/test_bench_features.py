"""The benchmark of features measures what it says, and its report can be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from capxai.data.feature_store import FeatureStore
from capxai.data.feature_verify import verify_features
from capxai.errors import ConfigError
from capxai.recipes.bench_feature_subjects import SIZES, Extraction, Storage
from capxai.recipes.bench_features import BARE, DELIVERED, OURS, READ, READ_TOGETHER, WRITE, BenchFeaturesConfig, run

SMALL = SIZES["small"]


def test_the_full_size_is_the_one_that_figures_are_stated_for() -> None:
    full = SIZES["full"]
    assert (full.encoder, full.image_size, full.row_shape) == ("vgg16", 224, (36, 2048))


def test_ours_and_the_bare_loop_compute_the_same(tmp_path: Path) -> None:
    extraction = Extraction(SMALL, tmp_path, workers=0, batch_size=4)
    extraction.ours()
    bare = extraction.bare()  # (2, C, 4, 4): the last of two batches
    assert extraction.last is not None
    with FeatureStore.open(extraction.last) as store:
        found = torch.from_numpy(store.read([4, 5])).float()
        assert len(store) == 6
    torch.testing.assert_close(found, bare.flatten(2).transpose(1, 2), rtol=2e-3, atol=1e-4)
    first = extraction.last
    extraction.ours()
    assert extraction.last != first and not first.exists()


def test_the_store_is_whole_and_read_at_random(tmp_path: Path) -> None:
    storage = Storage(SMALL, tmp_path)
    assert verify_features(storage.store.path).problems == () and len(storage.store) == 64
    storage.write()
    storage.write()
    assert storage.store.path.exists() and len(list(tmp_path.iterdir())) == 2
    for wall, cpu in (storage.read(0), storage.read(2), storage.deliver(2)):
        assert wall > 0 and cpu >= 0


def test_the_report(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    config = BenchFeaturesConfig(size="small", threads=1, workers=0, readers=2, repeat=2, folder=tmp_path)
    report = run(config)
    assert torch.get_num_threads() == threads and not list(tmp_path.iterdir())
    assert list(report.subjects) == [OURS, BARE, READ, READ_TOGETHER.format(2), DELIVERED.format(2), WRITE]
    for found in report.subjects.values():
        times = found.measurement
        assert 0 < times.fastest <= times.seconds <= times.slowest
    ours, bare = report.subjects[OURS].measurement, report.subjects[BARE].measurement
    assert report.throughput_over_bare_fastest == pytest.approx(bare.fastest / ours.fastest)
    assert report.throughput_over_bare_cpu == pytest.approx(bare.cpu_seconds / ours.cpu_seconds)
    bounds = sorted((bare.fastest / ours.slowest, bare.slowest / ours.fastest))
    assert bounds[0] <= report.throughput_over_bare <= bounds[1]
    together = report.subjects[READ_TOGETHER.format(2)]
    assert report.milliseconds_from_readers == pytest.approx(2 * together.to_json()["milliseconds"])
    written = json.loads(json.dumps(report.to_json(), allow_nan=False))
    row = written["subjects"][WRITE]
    assert row["mib_per_second"] == pytest.approx(row["items_per_second"] * np.prod(SMALL.row_shape) * 2 / 2**20)
    assert written["subjects"][OURS]["mib_per_second"] is None
    assert written["provenance"]["config"]["readers"] == 2


def test_settings_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match=r"threads is 0.*\n.*readers is 0"):
        BenchFeaturesConfig(threads=0, readers=0)
