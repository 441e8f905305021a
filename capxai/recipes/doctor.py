"""Examines the installation: what is here, what works, and what to do about what does not."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from capxai.recipes.doctor_check import Check, ability
from capxai.recipes.doctor_java import java_checks, metric_abilities
from capxai.types import SILENT, JsonObject, Reporter

PACKAGES = ("numpy", "pillow", "safetensors", "h5py", "pycocotools", "pycocoevalcap", "typer", "rich")
PROBE_SECONDS = 180.0
NEEDED_DISK = 2 * 2**30  # bytes; the default corpus, one run with its checkpoints, and room to spare
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class DoctorConfig:
    """Settings of the examination.

    Attributes:
        folder: Whose disk is measured: where outputs would go.
    """

    folder: Path = Path()


@dataclass(frozen=True)
class DoctorReport:
    """What was found.

    Attributes:
        checks: Everything that was looked at.
        works: What capxai does, and whether it works here.
        can_explain: Whether the bundled model explained a picture.
    """

    checks: tuple[Check, ...]
    works: tuple[Check, ...]
    can_explain: bool

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        return asdict(self)


def run(config: DoctorConfig, reporter: Reporter = SILENT) -> DoctorReport:
    """Examine the installation. Nothing that is broken makes this fail."""
    reporter.note("Trying torch, torchvision and the bundled model in a process of their own ...")
    probes = _probe()
    checks = (
        *_versions(),
        _torch(probes),
        _torchvision(probes),
        _devices(probes),
        _weights(probes),
        *java_checks(),
        _chromium(),
        _disk(config.folder),
        _memory(),
        _threads(probes),
    )
    return DoctorReport(checks, _abilities(probes, checks), can_explain="found" in probes["explain"])


def _probe() -> JsonObject:
    """Run `capxai.recipes.probe` in a process of its own and return its results; a probe not reached gets an error."""
    from capxai.recipes.probe import PROBES

    source = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])}
    with tempfile.TemporaryDirectory(prefix="capxai-") as folder:
        path = Path(folder) / "probes.json"
        command = [sys.executable, "-m", "capxai.recipes.probe", str(path)]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
            )
            ending = f"the process ended with {done.returncode}: {_last_line(done.stderr)}"
        except subprocess.TimeoutExpired:
            ending = f"it did not answer within {PROBE_SECONDS:.0f} s"
        except OSError as error:
            ending = f"Python could not be started ({error})"
        results: JsonObject = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: results.get(name, {"error": ending}) for name in PROBES}


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"


def _versions() -> list[Check]:
    import capxai

    checks = [
        Check("capxai", "ok", capxai.__version__),
        Check("Python", "ok", f"{platform.python_version()} on {platform.platform()}"),
    ]
    for package in PACKAGES:
        try:
            checks.append(Check(package, "ok", importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            checks.append(Check(package, "fail", "not installed", f"Install it: pip install {package}"))
    return checks


def _torch(probes: Mapping[str, JsonObject]) -> Check:
    if "found" in probes["torch"]:
        return Check("torch", "ok", probes["torch"]["found"]["version"])
    return Check(
        "torch", "fail", probes["torch"]["error"], "Install it again: pip install --force-reinstall torch torchvision"
    )


def _torchvision(probes: Mapping[str, JsonObject]) -> Check:
    if "found" in probes["torchvision"]:
        return Check("torchvision", "ok", probes["torchvision"]["found"]["version"])
    error = probes["torchvision"]["error"]
    if "torchvision::nms" not in error:
        return Check("torchvision", "fail", error, "Install it again: pip install --force-reinstall torch torchvision")
    return Check(
        "torchvision",
        "fail",
        error,
        "torch and torchvision come from different places (a CPU build of one, a CUDA build of the other). "
        "Install both from one: "
        "pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cpu",
    )


def _devices(probes: Mapping[str, JsonObject]) -> Check:
    found = probes["torch"].get("found")
    if found is None:
        return Check("devices", "fail", "unknown, torch cannot be imported", "See torch.")
    advice = (
        ""
        if len(found["devices"]) > 1
        else "No GPU was found. The CPU does for explaining; training on large corpora wants a GPU."
    )
    return Check("devices", "note" if advice else "ok", ", ".join(found["devices"]), advice)


def _weights(probes: Mapping[str, JsonObject]) -> Check:
    found = probes["weights"].get("found")
    if found is None:
        return Check("ImageNet weights", "note", f"unknown ({probes['weights']['error']})", "See torchvision.")
    if not found["missing"]:
        return Check("ImageNet weights", "ok", f"{', '.join(found['present'])} in {found['folder']}")
    present = ", ".join(found["present"]) or "none"
    where = "\n".join(f"  {name}: {url}" for name, url in found["missing"].items())
    return Check(
        "ImageNet weights",
        "note",
        f"{present} in {found['folder']}",
        f"Missing ones are downloaded when they are needed. Without internet, put the files into that folder:\n{where}",
    )


def _chromium() -> Check:
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser and driver:
        return Check("Chromium", "ok", f"{browser}, {driver}")
    found = browser or driver or "not found"
    return Check("Chromium", "note", found, "Only the page's own tests need it: apt install chromium chromium-driver")


def _disk(folder: Path) -> Check:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("free disk", "note", f"unknown ({error})", "Choose an output folder that exists.")
    advice = (
        ""
        if free >= NEEDED_DISK
        else f"Training needs up to {NEEDED_DISK / 2**30:.0f} GiB. Free some, or give --out another disk."
    )
    return Check("free disk", "note" if advice else "ok", f"{free / 2**30:.1f} GiB at {folder.absolute()}", advice)


def _memory() -> Check:
    try:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return Check("memory", "ok", "not known on this system")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    size = min(size, int(text)) if text.isdigit() else size
    return Check("memory", "ok", f"{size / 2**30:.1f} GiB")


def _threads(probes: Mapping[str, JsonObject]) -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = probes["torch"].get("found")
    used = f"; torch uses {found['threads']} threads" if found else ""
    return Check("processor", "ok", f"{cores} cores{used}")


def _abilities(probes: Mapping[str, JsonObject], checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """Say for each thing that capxai does whether it works here."""
    state = {check.name: check for check in checks}
    trial = probes["explain"]
    if "found" in trial:
        explain = Check(
            "explain and caption with the bundled model", "ok", f"a trial took {trial['found']['seconds']} s"
        )
    else:
        explain = Check(
            "explain and caption with the bundled model",
            "fail",
            trial["error"],
            "Install capxai again: pip install capxai",
        )
    return (
        explain,
        ability("train on the built-in corpus", state["torch"], state["pycocotools"], state["free disk"]),
        ability("analyze explanations and detect hallucinations", state["torch"], state["pycocotools"]),
        ability("VGG16 and ResNet encoders", state["torch"], state["torchvision"]),
        ability("ImageNet weights without internet", state["ImageNet weights"]),
        *metric_abilities(state),
    )
