"""Writing files as a whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from capxai.errors import CapxaiError, ImageError
from capxai.files import replacing, write_atomically, write_json_atomically


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_text_and_bytes(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.txt", "né\r\nx\n")
    assert (tmp_path / "a.txt").read_bytes() == "né\r\nx\n".encode()
    write_atomically(str(tmp_path / "a.txt"), b"\0new")
    assert (tmp_path / "a.txt").read_bytes() == b"\0new"
    assert names(tmp_path) == ["a.txt"]


def test_json(tmp_path: Path) -> None:
    value = {"caption": "un café", "file": os.fsdecode(b"\xff.jpg"), "numbers": [1, 2.5, None]}
    write_json_atomically(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value and "café" in text and text.endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_atomically(tmp_path / "a.json", {"loss": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


def test_folders_are_made(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "deep" / "a.txt", "x")
    assert (tmp_path / "new" / "deep" / "a.txt").read_text() == "x"


def test_others_may_read_the_file_as_usual(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    write_atomically(tmp_path / "a", "x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_longest_names(tmp_path: Path) -> None:
    name = "n" * 250 + ".json"
    write_atomically(tmp_path / name, "x")
    assert names(tmp_path) == [name]


def test_replacing_gives_a_name_with_the_same_ending(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.npz") as temporary:
        assert temporary.suffix == ".npz" and temporary.parent == tmp_path and not temporary.exists()
        temporary.write_bytes(b"whole")
        assert not (tmp_path / "a.npz").exists()
    assert names(tmp_path) == ["a.npz"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, KeyError, ImageError])
def test_failure_keeps_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a.txt").write_text("old")

    def fail() -> None:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise error("stop")

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    (tmp_path / "a.txt").write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(CapxaiError, match=r"The disk is full: '.*a\.txt' could not .* \([\d,.]+ MiB free there\)"):
        write_atomically(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_full_disk_told_in_words_only(tmp_path: Path) -> None:
    with pytest.raises(CapxaiError, match="The disk is full"), replacing(tmp_path / "a.safetensors"):
        raise RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })')


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_really_full_device(tmp_path: Path) -> None:
    def fill() -> None:
        with replacing(tmp_path / "a.bin") as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_bytes(b"x")

    with pytest.raises(CapxaiError, match="The disk is full"):
        fill()
    assert names(tmp_path) == []


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").touch()
    for target in (tmp_path / "file" / "a.txt", tmp_path / "folder"):
        with pytest.raises(CapxaiError, match=f"'{target}' could not be written .*Check the path and its rights"):
            write_atomically(target, "x")
    assert names(tmp_path) == ["file", "folder"]
