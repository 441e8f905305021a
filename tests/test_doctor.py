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
from capxai.recipes import doctor, probe
from capxai.recipes.doctor import Check, DoctorConfig, DoctorReport

SOUND: dict[str, Any] = {
    "torch": {"found": {"version": "2.9", "threads": 2, "devices": ["cpu", "cuda:0 (A, 80 GiB)"]}},
    "torchvision": {"found": {"version": "0.24"}},
    "weights": {
        "found": {"folder": "/cache", "present": ["vgg16"], "missing": {"resnet50": "https://example.org/r.pth"}}
    },
    "explain": {"found": {"seconds": 0.5, "words": 9}},
}


def _examine(monkeypatch: pytest.MonkeyPatch, **changed: object) -> DoctorReport:
    monkeypatch.setattr(doctor, "_probe", lambda: {**SOUND, **changed})
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
    assert report.can_explain


def test_without_torch_nothing_works_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    error = {"error": "ModuleNotFoundError: No module named 'torch'"}
    report = _examine(monkeypatch, **dict.fromkeys(SOUND, error))
    assert not report.can_explain
    assert "No module named 'torch'" in _find(report.checks, "torch").found
    assert _find(report.works, "train on the built-in corpus").status == "fail"


def test_without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    report = _examine(monkeypatch)
    java = _find(report.checks, "Java")
    assert (java.status, java.found) == ("note", "not found")
    assert "apt install default-jre-headless" in java.advice


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
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "ModelError: no bundled model" in result.stdout
    assert "What works here" in result.stdout


def test_the_command_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_probe", lambda: SOUND)
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["can_explain"] is True
