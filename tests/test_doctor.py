"""The doctor: it says what is broken and what to do, and never breaks itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.evaluate.spice_models import MODELS
from capxai.recipes import doctor, doctor_java, probe
from capxai.recipes.doctor import DoctorConfig, DoctorReport
from capxai.recipes.doctor_check import Check

SOUND: dict[str, Any] = {
    "torch": {"found": {"version": "2.9", "threads": 2, "devices": ["cpu", "cuda:0 (A, 80 GiB)"]}},
    "torchvision": {"found": {"version": "0.24"}},
    "weights": {
        "found": {"folder": "/cache", "present": ["vgg16"], "missing": {"resnet50": "https://example.org/r.pth"}}
    },
    "explain": {"found": {"seconds": 0.5, "words": 9}},
}


SOUND_JAVA = (
    Check("Java", "ok", 'openjdk version "17.0.1"'),
    Check("Java tokenizer", "ok", "a dog"),
    Check("METEOR files", "ok", "meteor-1.5.jar"),
    Check("SPICE models", "note", "not in /cache", "Fetch them."),
)


def _examine(monkeypatch: pytest.MonkeyPatch, real_java: bool = False, **changed: object) -> DoctorReport:
    monkeypatch.setattr(doctor, "_probe", lambda: {**SOUND, **changed})
    if not real_java:
        monkeypatch.setattr(doctor, "java_checks", lambda: SOUND_JAVA)
    return doctor.run(DoctorConfig())


def _find(checks: tuple[Check, ...], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_a_sound_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _examine(monkeypatch)
    assert report.can_explain
    assert _find(report.checks, "torch").found == "2.9"
    assert _find(report.checks, "devices") == Check("devices", "ok", "cpu, cuda:0 (A, 80 GiB)")
    assert _find(report.works, "VGG16 and ResNet encoders").status == "ok"
    weights = _find(report.checks, "ImageNet weights")
    assert weights.status == "note"
    assert "resnet50: https://example.org/r.pth" in weights.advice
    assert "vgg16 in /cache" in weights.found
    json.dumps(report.to_json(), allow_nan=False)


def test_torch_and_torchvision_of_different_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    error = {"error": "RuntimeError: operator torchvision::nms does not exist"}
    report = _examine(monkeypatch, torchvision=error, weights=error)
    check = _find(report.checks, "torchvision")
    assert check.status == "fail"
    assert "different places" in check.advice
    assert "--index-url https://download.pytorch.org/whl/cpu" in check.advice
    assert _find(report.works, "VGG16 and ResNet encoders").status == "fail"
    assert _find(report.works, "train on the built-in corpus").status != "fail"
    assert _find(report.works, "analyze explanations and detect hallucinations").status != "fail"
    assert report.can_explain


def test_without_torch_nothing_works_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    error = {"error": "ModuleNotFoundError: No module named 'torch'"}
    report = _examine(monkeypatch, **dict.fromkeys(SOUND, error))
    assert not report.can_explain
    assert "No module named 'torch'" in _find(report.checks, "torch").found
    assert _find(report.works, "train on the built-in corpus").status == "fail"
    assert _find(report.works, "analyze explanations and detect hallucinations").status == "fail"


def test_the_metrics_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _examine(monkeypatch)
    assert {check.name: check.status for check in report.works[-4:]} == {
        "BLEU, ROUGE-L and CIDEr": "ok",
        "captions split as pycocoevalcap does": "ok",
        "METEOR": "ok",
        "SPICE": "note",
    }
    assert _find(report.works, "SPICE").advice == "See SPICE models."


def test_without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    report = _examine(monkeypatch, real_java=True)
    java = _find(report.checks, "Java")
    assert (java.status, java.found) == ("note", "not found")
    assert "apt install default-jre-headless" in java.advice
    assert _find(report.checks, "Java tokenizer").found == "not tried, for lack of Java"
    assert "split by the tokenizer in Python" in _find(report.checks, "Java tokenizer").advice
    assert _find(report.checks, "METEOR files").status == "ok"
    assert _find(report.works, "METEOR") == Check("METEOR", "note", "Java: not found", "See Java.")
    assert _find(report.works, "BLEU, ROUGE-L and CIDEr").status == "ok"


@pytest.mark.parametrize(
    ("answer", "code", "status", "found"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 0, "ok", 'openjdk version "17.0.15" 2025-04-15'),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1G\njava version "1.8.0_401"', 0, "ok", 'java version "1.8.0_401"'),
        ('java version "1.7.0_80"', 0, "note", 'java version "1.7.0_80", which is too old'),
        ("Unable to locate a Java Runtime.", 1, "note", "ended with 1: Unable to locate a Java Runtime."),
    ],
)
def test_versions_of_java(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, code: int, status: str, found: str
) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!{sys.executable}\nimport sys\nprint({answer!r}, file=sys.stderr)\nsys.exit({code})\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    check = doctor_java.java_checks()[0]
    assert check.status == status
    assert check.found.endswith(found)


def test_a_java_whose_tokenizer_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text(
        f"#!{sys.executable}\nimport sys\nif '-version' not in sys.argv: sys.exit('no heap')\nprint('version \"17\"')\n"
    )
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    report = _examine(monkeypatch, real_java=True)
    assert _find(report.checks, "Java").status == "ok"
    assert "no heap" in _find(report.checks, "Java tokenizer").found
    assert _find(report.works, "captions split as pycocoevalcap does").status == "note"


def test_the_models_of_spice_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    missing = _find(doctor_java.java_checks(), "SPICE models")
    assert missing.found == f"not in {tmp_path / 'capxai' / 'spice'}"
    assert "Nothing is downloaded by itself" in missing.advice
    (tmp_path / "capxai" / "spice").mkdir(parents=True)
    for name in MODELS:
        (tmp_path / "capxai" / "spice" / name).touch()
    assert _find(doctor_java.java_checks(), "SPICE models").status == "ok"


@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_the_real_tokenizer_is_tried() -> None:
    check = _find(doctor_java.java_checks(), "Java tokenizer")
    assert (check.status, check.advice) == ("ok", "")
    assert check.found.endswith("becomes 'a man 's dog does n't bark'")


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", (*doctor.PACKAGES, "no-such-package-of-capxai"))
    check = _find(_examine(monkeypatch).checks, "no-such-package-of-capxai")
    assert check == Check(check.name, "fail", "not installed", "Install it: pip install no-such-package-of-capxai")


def test_each_probe_stands_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(probe, "PROBES", {"first": broken, "second": lambda: {"version": "1"}})
    probe.run_probes(tmp_path / "probes.json")
    assert json.loads((tmp_path / "probes.json").read_text()) == {
        "first": {"error": "RuntimeError: operator torchvision::nms does not exist"},
        "second": {"found": {"version": "1"}},
    }


def test_a_process_that_dies_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], -11, "", "line one\nSegmentation fault")

    monkeypatch.setattr(subprocess, "run", dies)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    report = doctor.run(DoctorConfig())
    assert not report.can_explain
    assert _find(report.checks, "torch").found == "the process ended with -11: Segmentation fault"


def test_a_torchvision_that_does_not_fit_is_seen_by_the_real_probe(tmp_path: Path) -> None:
    broken = tmp_path / "torchvision"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    found = tmp_path / "probes.json"
    source = Path(doctor.__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(source)])}
    command = [sys.executable, "-m", "capxai.recipes.probe", str(found)]
    subprocess.run(command, env=environment, check=True, timeout=120, cwd=tmp_path)
    probes = json.loads(found.read_text())
    assert "torchvision::nms" in probes["torchvision"]["error"]
    assert "version" in probes["torch"]["found"]


def test_the_command_exits_with_1_where_nothing_can_be_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_probe", lambda: {**SOUND, "explain": {"error": "ModelError: no bundled model"}})
    monkeypatch.setattr(doctor, "java_checks", lambda: SOUND_JAVA)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "ModelError: no bundled model" in result.stdout
    assert "What works here" in result.stdout


def test_the_command_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_probe", lambda: SOUND)
    monkeypatch.setattr(doctor, "java_checks", lambda: SOUND_JAVA)
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["can_explain"] is True
