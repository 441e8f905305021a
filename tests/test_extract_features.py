"""Extracting features: the numbers are the model's, nothing is lost, and the file is the same however it came to be."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.data import feature_writer
from capxai.data.block_journal import read_journals
from capxai.data.corpus import Corpus
from capxai.data.feature_names import journal_paths, part_path
from capxai.data.feature_store import FeatureStore
from capxai.data.images import read_image
from capxai.data.scenes import write_corpus
from capxai.errors import CapxaiError, ConfigError, CorpusError, ImageError, ModelError
from capxai.models.encoders import build_encoder
from capxai.models.folder import bundled_folder, load
from capxai.recipes.extract_features import ExtractConfig, run, verify
from capxai.recipes.feature_sources import encoder_bytes, load_stored_encoder
from capxai.types import SilentReporter

TRAINING_PICTURES = 24
PICTURES = TRAINING_PICTURES + 4 * 8  # the other splits have at least 8
ROOT = Path(__file__).resolve().parents[1]


class Listener(SilentReporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "scenes"
    write_corpus(folder, TRAINING_PICTURES, 3)
    return folder


@pytest.fixture(scope="module")
def plain(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature file from one process without interruption."""
    out = tmp_path_factory.mktemp("plain") / "features.h5"
    run(small(corpus, out))
    return out


def small(corpus: Path, out: Path, **changes: Any) -> ExtractConfig:
    settings = {"corpus": corpus, "out": out, "batch_size": 4, "workers": 0, "device": "cpu", **changes}
    return ExtractConfig(**settings)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def command(corpus: Path, out: Path, *more: str) -> list[str]:
    typed = ["extract-features", "--corpus", str(corpus), "--out", str(out), "--batch-size", "4", "--workers", "0"]
    return [*typed, "--device", "cpu", "--set", "threads=1", *more]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def test_the_features_are_those_of_the_model(corpus: Path, plain: Path) -> None:
    model = load()
    with FeatureStore.open(plain) as store:
        assert len(store) == PICTURES and store.image_ids.tolist() == sorted(store.image_ids.tolist())
        picture = Corpus.open(corpus).split("test").pictures[5]
        pixels = model.preprocessing.normalize(
            torch.from_numpy(model.preprocessing.resize(read_image(picture.path)))[None]
        )
        with torch.inference_mode():
            expected = model.features(pixels).numpy()
        row = store.rows_of([picture.id])
        np.testing.assert_allclose(store.read(row).astype(np.float32), expected, rtol=1e-3, atol=1e-4)
        assert store.sizes[row].tolist() == [[picture.height, picture.width]]
        assert store.description.grid == (14, 14) and store.description.row_shape == (196, 112)
        assert store.description.preprocessing == model.preprocessing.to_json()
        assert store.description.details["splits"] == ["train", "val", "test", "robust-val", "robust"]


def test_the_encoder_lies_beside_the_features(plain: Path, tmp_path: Path) -> None:
    with FeatureStore.open(plain) as store:
        found = load_stored_encoder(store)
        assert found is not None and not found.training
        own = load().encoder
        assert own is not None and encoder_bytes(found) == encoder_bytes(own)
        assert store.description.weights_sha256 == digest(store.weights_path)
    copied = shutil.copy(plain, tmp_path)
    with FeatureStore.open(copied) as store:
        assert load_stored_encoder(store) is None
        store.weights_path.write_bytes(b"something else")
        with pytest.raises(ModelError, match="is not the encoder that made"):
            load_stored_encoder(store)


def test_the_record_says_how(plain: Path) -> None:
    record = json.loads(plain.with_suffix(".json").read_text())
    assert record["verb"] == "extract-features" and record["weights"] == "bundled model"
    assert record["config"]["batch_size"] == 4 and record["versions"]["torch"] and record["left_out"] == []
    names = sorted(path.name for path in plain.parent.iterdir())
    assert names == ["features.encoder.safetensors", "features.h5", "features.json"]


def test_a_second_run_keeps_what_is_there(corpus: Path, plain: Path) -> None:
    before = digest(plain)
    with pytest.raises(CorpusError, match="already there"):
        run(small(corpus, plain))
    assert digest(plain) == before


def test_workers_change_nothing(corpus: Path, plain: Path, tmp_path: Path) -> None:
    report = run(small(corpus, tmp_path / "features.h5", workers=2))
    assert digest(report.out) == digest(plain)
    assert report.pictures == PICTURES and report.resumed == 0 and 0 <= report.waiting_share <= 1
    assert report.to_json()["pictures_per_second"] > 0


def test_random_weights_are_kept_and_the_same_for_a_seed(corpus: Path, tmp_path: Path) -> None:
    config = small(
        corpus, tmp_path / "one.h5", encoder="resnet50", encoder_weights="random", image_size=64, split=("val",)
    )
    state = torch.get_rng_state()
    one = run(config)
    assert torch.equal(torch.get_rng_state(), state)
    again = run(replace(config, out=tmp_path / "two.h5"))
    other = run(replace(config, out=tmp_path / "three.h5", seed=1))
    assert digest(one.out) == digest(again.out) != digest(other.out)
    assert one.weights is not None and other.weights is not None and digest(one.weights) != digest(other.weights)
    given = run(replace(config, out=tmp_path / "four.h5", encoder_weights=str(one.weights), dtype="float32"))
    with FeatureStore.open(one.out) as store, FeatureStore.open(given.out) as wide:
        assert wide.description.weights_sha256 == store.description.weights_sha256
        assert np.array_equal(wide.read([3]).astype(np.float16), store.read([3]))
        rebuilt, named = load_stored_encoder(store), build_encoder("resnet50")
        assert rebuilt is not None and named is not None and type(rebuilt) is type(named)


def test_half_precision_is_near_and_says_so(corpus: Path, plain: Path, tmp_path: Path) -> None:
    report = run(small(corpus, tmp_path / "features.h5", precision="bfloat16", split=("val",)))
    assert report.description["details"]["precision"] == "bfloat16"
    with FeatureStore.open(report.out) as store, FeatureStore.open(plain) as exact:
        expected = exact.read(exact.rows_of(store.image_ids)).astype(np.float32)
        error = np.abs(store.read(range(8)).astype(np.float32) - expected).max()
        assert 0 < error < 0.1 * expected.max()


def test_regions_come_with_boxes(corpus: Path, tmp_path: Path) -> None:
    config = small(
        corpus, tmp_path / "regions.h5", encoder="regions", encoder_weights="random", image_size=64, split=("val",)
    )
    report = run(config)
    assert report.weights is None and report.description["kind"] == "region"
    with FeatureStore.open(report.out) as store:
        boxes = store.boxes(range(8))
        assert boxes is not None and store.description.row_shape == (36, 2048)
        assert (boxes >= 0).all() and (boxes <= 112).all() and (boxes[..., 2:] >= boxes[..., :2]).all()
        assert store.read([0]).any()
    assert verify(report.out).problems == ()


def test_parts_hold_the_same_rows(corpus: Path, plain: Path, tmp_path: Path) -> None:
    config = small(corpus, tmp_path / "features.h5")
    for number in (3, 1, 2):
        report = run(replace(config, shard=f"{number}/3"))
        assert report.out.name == f"features.{number}-of-3.h5"
    with FeatureStore.open(config.out) as parts, FeatureStore.open(plain) as whole:
        assert np.array_equal(parts.image_ids, whole.image_ids) and np.array_equal(parts.sizes, whole.sizes)
        assert np.array_equal(parts.read(range(PICTURES)), whole.read(range(PICTURES)))
        assert load_stored_encoder(parts) is not None
    assert verify(config.out).problems == ()
    (tmp_path / "features.1-of-3.h5").unlink()
    with pytest.raises(CorpusError, match="holds other weights"):
        run(replace(config, shard="1/3", encoder="compact", encoder_weights="random"))


def test_unreadable_pictures_are_all_named_and_the_rest_is_kept(corpus: Path, plain: Path, tmp_path: Path) -> None:
    folder, config = damaged(corpus, tmp_path)
    with pytest.raises(ImageError) as caught:
        run(config)
    message = str(caught.value)
    assert f"2 of {PICTURES} pictures cannot be read" in message and "--skip-unreadable" in message
    with pytest.raises(CorpusError, match="other settings: now dtype 'float32' instead of 'float16'"):
        run(replace(config, dtype="float32"))
    for picture in Corpus.open(folder).split("val").pictures[1:6:4]:
        assert str(picture.path) in message
        shutil.copy(corpus / picture.path.relative_to(folder), picture.path)
    notes = tmp_path / "features.h5.unreadable.json"
    assert len(json.loads(notes.read_text())) == 2
    assert not config.out.exists() and part_path(config.out).exists()
    report = run(config)
    assert report.resumed == PICTURES - 8 and digest(report.out) == digest(plain) and not notes.exists()


def test_unreadable_pictures_can_be_left_out(corpus: Path, plain: Path, tmp_path: Path) -> None:
    folder, config = damaged(corpus, tmp_path)
    listener = Listener()
    report = run(replace(config, skip_unreadable=True), listener)
    gone = [picture.id for picture in Corpus.open(folder).split("val").pictures[1:6:4]]
    assert "2 pictures cannot be read and are left out" in listener.warnings[0]
    assert len(report.left_out) == 2 and len(report.to_json()["left_out"]) == 2
    with FeatureStore.open(report.out) as store, FeatureStore.open(plain) as whole:
        assert set(whole.image_ids) - set(store.image_ids) == set(gone)
    assert len(json.loads(report.out.with_suffix(".json").read_text())["left_out"]) == 2


def damaged(corpus: Path, tmp_path: Path) -> tuple[Path, ExtractConfig]:
    """Copy the corpus and cut two of its pictures off."""
    folder = tmp_path / "damaged"
    shutil.copytree(corpus, folder)
    for picture in Corpus.open(folder).split("val").pictures[1:6:4]:
        picture.path.write_bytes(picture.path.read_bytes()[:300])
    return folder, small(folder, tmp_path / "features.h5")


def test_a_picture_of_another_size_is_a_warning(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(corpus, folder)
    path = Corpus.open(folder).split("val").pictures[0].path
    Image.new("RGB", (50, 40)).save(path)
    listener = Listener()
    run(small(folder, tmp_path / "features.h5", split=("val",)), listener)
    assert any("1 pictures have another size" in text for text in listener.warnings)


def test_settings_that_cannot_be_used(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch_size is 0.*\n.*shard is '3/2'.*\n.*out is 'x'"):
        ExtractConfig(batch_size=0, shard="3/2", out=Path("x"))
    with pytest.raises(ConfigError, match="has the encoder 'compact', and encoder 'vgg16' was asked for"):
        run(small(corpus, tmp_path / "a.h5", model=bundled_folder(), encoder="vgg16"))
    with pytest.raises(ConfigError, match="Leave --model and --precision out"):
        run(small(corpus, tmp_path / "a.h5", encoder="regions", precision="bfloat16"))
    with pytest.raises(ConfigError, match="Raise image_size"):
        run(small(corpus, tmp_path / "a.h5", image_size=4))
    with pytest.raises(CorpusError, match="Unknown split 'vall'.*Did you mean 'val'"):
        run(small(corpus, tmp_path / "a.h5", split=("vall",)))
    with pytest.raises(ModelError, match="No weights at"):
        run(small(corpus, tmp_path / "a.h5", encoder="compact", encoder_weights=str(tmp_path / "none.pth")))
    assert not list(tmp_path.iterdir())


def test_the_command(corpus: Path, plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.h5"
    result = CliRunner().invoke(app, command(corpus, out, "--json", "--quiet"))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["pictures"] == PICTURES and digest(out) == digest(plain)
    result = CliRunner().invoke(app, command(corpus, tmp_path / "val.h5", "--split", "val,test", "--shard", "1/2"))
    assert result.exit_code == 0 and "Written to" in result.stdout and "196 x 112 float16, grid" in result.stdout
    refused = CliRunner().invoke(app, command(corpus, out))
    assert refused.exit_code == 1 and "--force" in refused.stderr


def test_the_command_verifies(plain: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copy(plain, tmp_path))
    sound = CliRunner().invoke(app, ["extract-features", "--verify", str(copied)])
    assert sound.exit_code == 0 and "sound" in sound.stdout and "not beside the file" in sound.stdout
    content = bytearray(copied.read_bytes())
    content[len(content) // 2] ^= 1
    copied.write_bytes(content)
    found = CliRunner().invoke(app, ["extract-features", "--verify", str(copied), "--json"])
    assert found.exit_code == 1 and len(json.loads(found.stdout)["damaged_blocks"]) == 1
    mixed = CliRunner().invoke(app, ["extract-features", "--verify", str(copied), "--encoder", "vgg16"])
    assert mixed.exit_code == 1 and "--verify came with --encoder" in mixed.stderr


def test_the_command_imports(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    lines = []
    for image_id, regions in ((7, 2), (5, 3)):
        numbers = [generator.uniform(0, 9, (regions, width)).astype(np.float32) for width in (4, 2048)]
        numbers[0].sort(axis=1)  # left and top before right and bottom
        cells = [
            str(image_id),
            "30",
            "20",
            str(regions),
            *(base64.b64encode(item.tobytes()).decode() for item in numbers),
        ]
        lines.append("\t".join(cells) + "\n")
    source, out = tmp_path / "published.tsv", tmp_path / "features.h5"
    source.write_text("".join(lines))
    typed = ["extract-features", "--import", str(source), "--out", str(out)]
    refused = CliRunner().invoke(app, typed)
    assert refused.exit_code == 1 and "--set regions=" in refused.stderr
    result = CliRunner().invoke(app, [*typed, "--set", "regions=2", "--dtype", "float32"])
    assert result.exit_code == 0 and "2 x 2048 float32, region" in result.stdout, result.output
    with FeatureStore.open(out) as store:
        assert sorted(store.image_ids.tolist()) == [5, 7] and store.description.kind == "region"
        assert np.array_equal(store.read(store.rows_of([5]))[0], numbers[1][:2])
    mixed = CliRunner().invoke(app, [*typed, "--encoder", "vgg16"])
    assert mixed.exit_code == 1 and "Unknown setting 'encoder' as an option" in mixed.stderr
    alone = CliRunner().invoke(app, ["extract-features", "--import-format", "tsv", "--out", str(tmp_path / "other.h5")])
    assert alone.exit_code == 1 and "Unknown setting 'import_format'" in alone.stderr


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(corpus: Path, plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.h5"
    slow = command(corpus, out, "--encoder", "resnet50", "--encoder-weights", "random", "--set", "image_size=160")
    process = subprocess.Popen(
        [sys.executable, "-m", "capxai", *slow], env=environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: any(path.stat().st_size for path in journal_paths(out)), process)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=180)[1]
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Run the same command again to go on" in said and said.rstrip().endswith("Interrupted.")
    assert "Traceback" not in said
    listener = Listener()
    config = small(corpus, out, encoder="resnet50", encoder_weights="random", image_size=160, threads=1)
    resumed = run(config, listener)
    assert 0 < resumed.resumed < PICTURES and any("Going on with" in note for note in listener.notes)
    whole = run(replace(config, out=tmp_path / "whole.h5"))
    assert digest(out) == digest(whole.out)


def wait_for(reached: Any, process: subprocess.Popen[str], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.slow
def test_kill_at_twenty_random_moments(
    corpus: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is killed at a moment of its own, from before the file exists to after its last block; each is taken up again."""
    monkeypatch.setattr(feature_writer, "FLUSH_SECONDS", 0.02)  # many durable states in a short run
    choose, expected, states = random.Random(11), digest(plain), []
    started = time.monotonic()
    run(small(corpus, tmp_path / "timed.h5", threads=1))
    duration = time.monotonic() - started
    for number in range(20):
        config = small(corpus, tmp_path / f"{number}.h5", threads=1)
        _run_until_killed(config, choose.uniform(0, duration))
        done = len(read_journals(journal_paths(config.out)))
        states.append("finished" if config.out.exists() else "some" if done else "none")
        if not config.out.exists():
            assert run(config).resumed == 4 * done
        assert digest(config.out) == expected
        left = {path.name for path in tmp_path.glob(f"{number}.*")}
        assert left == {f"{number}.h5", f"{number}.json", f"{number}.encoder.safetensors"}
    assert states.count("some") >= 3, states


def _run_until_killed(config: ExtractConfig, seconds: float) -> None:
    """Run in a process of its own, which is killed after a time, without a chance to do anything about it."""
    process = os.fork()
    if not process:
        try:
            run(config)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


@pytest.mark.slow
def test_two_processes_write_the_same_file(corpus: Path, plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.h5"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port), "-m", "capxai"]
    found = subprocess.run(
        [sys.executable, *launch, *command(corpus, out, "--json")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert digest(out) == digest(plain)
    assert json.loads(found.stdout)["pictures"] == PICTURES
    assert json.loads(out.with_suffix(".json").read_text())["processes"] == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk in memory; only root can make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a small disk cannot be made here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_loses_nothing(corpus: Path, plain: Path, small_disk: Path) -> None:
    config = small(corpus, small_disk / "features.h5")
    with pytest.raises(CapxaiError, match=r"The disk is full: .*features\.h5"):
        run(config)
    assert not [path for path in small_disk.iterdir() if path.stat().st_size]  # found before any work
    size = plain.stat().st_size + 400_000  # the features fit, the encoder beside them does not
    subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
    with pytest.raises(CapxaiError, match=r"The disk is full: .*features\.encoder\.safetensors"):
        run(config)
    assert not config.out.exists()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert run(config).resumed == PICTURES
    assert digest(config.out) == digest(plain)
