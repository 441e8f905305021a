"""The guard around Java: its real errors, its limits, and no process left behind. A script stands in for Java where it can."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from capxai.errors import ConfigError, DependencyError
from capxai.evaluate.java_meteor import meteor
from capxai.evaluate.java_process import JavaLimits, java, pycocoevalcap_file
from capxai.evaluate.java_spice import spice
from capxai.evaluate.java_tokenizer import tokenize_all_with_java
from capxai.evaluate.spice_models import MODELS, find_models

LIMITS = JavaLimits(seconds=60)
MakeJava = Callable[[str], None]

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeJava:
    """Return a function that puts a Python script in the place of Java; it leaves its process id and folder in files."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(body: str) -> None:
        notes = f"open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}} {{os.getcwd()}}')"
        text = f"#!{sys.executable}\nimport os, sys, time\n{notes}\n{body}\n"
        path = folder / "java"
        path.write_text(text, encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return make


def _is_gone(tmp_path: Path) -> bool:
    """Tell whether the stand-in has ended and was waited for, and its folder was removed."""
    number, folder = (tmp_path / "pid").read_text().split(" ", 1)
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return not Path(folder).exists()
    return False


def test_questions_and_answers_flow_at_the_same_time(stand_in: MakeJava, tmp_path: Path) -> None:
    stand_in("for line in sys.stdin: sys.stdout.write(line.upper())")
    lines = [f"line {number} " + "x" * 50 for number in range(30_000)]  # more than any pipe holds
    with java([], "a test", LIMITS) as process:
        assert process.ask(["first"], 1) == ["FIRST"]
        assert process.ask_all(lines) == [line.upper() for line in lines]
    assert _is_gone(tmp_path)


def test_javas_own_words_are_in_the_error(stand_in: MakeJava, tmp_path: Path) -> None:
    stand_in("print('Exception in thread main\\n\\tat line 5', file=sys.stderr); sys.exit(3)")
    with pytest.raises(DependencyError) as raised:
        tokenize_all_with_java(["a dog"], LIMITS)
    assert "Java failed at tokenizing captions: it ended with exit code 3." in str(raised.value)
    assert "  Exception in thread main\n  \tat line 5" in str(raised.value)
    assert _is_gone(tmp_path)
    with pytest.raises(DependencyError, match="Java failed at METEOR: it ended after 0 of 1 answers"):
        meteor(["a dog"], [["a dog"]], LIMITS)


def test_a_hanging_process_is_stopped(stand_in: MakeJava, tmp_path: Path) -> None:
    stand_in("time.sleep(600)")
    start = time.monotonic()
    with pytest.raises(DependencyError, match=r"METEOR: it was stopped after 0.5 s. Allow more time \(java_seconds\)"):
        meteor(["a dog"], [["a dog"]], JavaLimits(seconds=0.5))
    assert time.monotonic() - start < 30
    assert _is_gone(tmp_path)


def test_ctrl_c_leaves_no_process(stand_in: MakeJava, tmp_path: Path) -> None:
    stand_in("print('ready', flush=True); time.sleep(600)")

    def interrupted() -> None:
        with java([], "a test", LIMITS) as process:
            assert process.ask([], 1) == ["ready"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert _is_gone(tmp_path)


def test_lack_of_memory_is_told_apart(stand_in: MakeJava) -> None:
    stand_in("print('java.lang.OutOfMemoryError: Java heap space', file=sys.stderr); sys.exit(1)")
    with pytest.raises(DependencyError, match=r"512m of memory did not do. Allow more memory \(java_memory\)"):
        tokenize_all_with_java(["a dog"], JavaLimits("512m"))


def test_more_memory_than_there_is_is_told_apart(stand_in: MakeJava) -> None:
    stand_in("print('Could not reserve enough space for 1048574951424KB object heap', file=sys.stderr); sys.exit(1)")
    with pytest.raises(DependencyError, match=r"900000G of memory are not to be had. Allow less \(java_memory\)"):
        tokenize_all_with_java(["a dog"], JavaLimits("900000G"))


def test_answers_that_do_not_fit_are_refused(stand_in: MakeJava) -> None:
    stand_in("print('a dog')")
    with pytest.raises(DependencyError, match="it returned 1 lines for 2 captions"):
        tokenize_all_with_java(["a dog", "a cat"], LIMITS)
    stand_in("print('Error: specify hypothesis', flush=True); time.sleep(600)")
    with pytest.raises(DependencyError, match="it answered 'Error: specify hypothesis' where 23 numbers were expected"):
        meteor(["a dog"], [["a dog"]], LIMITS)


def test_limits_and_encoding_reach_java(stand_in: MakeJava) -> None:
    stand_in("print(' '.join(sys.argv[1:]))")
    command = tokenize_all_with_java(["a dog"], JavaLimits("768m"))[0].split()
    assert command[0] == "-Xmx768m"
    assert "-Dfile.encoding=UTF-8" in command
    assert any(part.startswith("-Djava.io.tmpdir=") for part in command)
    assert command[-3:] == ["-lowerCase", "-encoding", "UTF-8"]


def test_a_java_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="Java was not found on the PATH"):
        tokenize_all_with_java(["a dog"], LIMITS)
    (tmp_path / "java").write_bytes(b"\x00 no program")
    (tmp_path / "java").chmod(0o755)
    with pytest.raises(DependencyError, match=r"could not be started \(Exec format error\)"):
        tokenize_all_with_java(["a dog"], LIMITS)
    assert tokenize_all_with_java([], LIMITS) == []


def test_spice_reads_the_file_that_its_program_writes(stand_in: MakeJava, tmp_path: Path) -> None:
    """The protocol alone: the models are not part of any package, so the scores here are the stand-in's."""
    stand_in(
        "import json\n"
        "print('Parsing ...')\n"
        "given = json.load(open('in.json'))\n"
        "scores = [{'image_id': e['image_id'], 'scores': {'All': {'f': 0.25 * len(e['refs'])}}} for e in given[::-1]]\n"
        "json.dump(scores, open('out.json', 'w'))\n"
    )
    found = spice(["a dog", "a cat"], [["a dog"], ["a", "b"]], [Path("a.jar"), Path("b.jar")], LIMITS)
    assert found.per_picture.tolist() == [0.25, 0.5]
    assert found.value == 0.375
    assert _is_gone(tmp_path)
    stand_in("open('out.json', 'w').write('[]')")
    with pytest.raises(DependencyError, match="Java failed at SPICE: it returned 0 scores for 1 pictures"):
        spice(["a dog"], [["a dog"]], [], LIMITS)
    stand_in("pass")
    with pytest.raises(DependencyError, match="its output cannot be read"):
        spice(["a dog"], [["a dog"]], [], LIMITS)


def test_the_models_of_spice_are_found_where_the_user_put_them(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="capxai downloads nothing by itself"):
        find_models(tmp_path)
    for name in MODELS:
        (tmp_path / name).write_bytes(b"")
    assert find_models(tmp_path) == tuple(tmp_path / name for name in MODELS)


def test_a_package_that_is_not_whole() -> None:
    assert pycocoevalcap_file("meteor/meteor-1.5.jar").is_file()
    with pytest.raises(DependencyError, match=r"file no/such.jar was not found in .* pip install --force-reinstall"):
        pycocoevalcap_file("no/such.jar")


@pytest.mark.parametrize("memory", ["", "2 G", "0G", "-1G", "2T", "G"])
def test_memory_is_checked(memory: str) -> None:
    with pytest.raises(ConfigError, match="Expected a number and a unit"):
        JavaLimits(memory)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_time_is_checked(seconds: float) -> None:
    with pytest.raises(ConfigError, match="Expected more than 0, and 2592000 at most"):
        JavaLimits(seconds=seconds)


@needs_java
def test_a_real_java_with_too_little_memory_says_so() -> None:
    with pytest.raises(DependencyError, match=r"100k of memory did not do[^!]*Java says:\n[^!]*maximum heap"):
        tokenize_all_with_java(["a dog"], JavaLimits("100k", 60))
