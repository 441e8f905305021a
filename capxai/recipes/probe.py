"""Tries what may crash, in a process of its own; see `capxai.recipes.doctor`.

A torch and a torchvision that do not belong together raise on import, and a broken driver may end the process. Each
probe stands alone: what it finds, or why it failed, goes into one JSON file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from capxai.types import JsonObject

SIDE = 64
"""Height and width, in pixels, of the picture that is explained as a trial."""


def probe_torch() -> JsonObject:
    """Report torch's version, threads and devices."""
    import torch

    devices = ["cpu"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append(f"cuda:{index} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {"version": torch.__version__, "threads": torch.get_num_threads(), "devices": devices}


def probe_torchvision() -> JsonObject:
    """Report torchvision's version; importing it is the test."""
    import torchvision

    return {"version": torchvision.__version__}


def probe_weights() -> JsonObject:
    """Report which ImageNet weights lie in torchvision's cache, and where the missing ones are published."""
    import torch

    from capxai.models.encoders.imagenet import WEIGHTS

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    urls = {name: entry.url for name, entry in WEIGHTS.items()}
    present = [name for name, url in urls.items() if (folder / url.rsplit("/", 1)[-1]).is_file()]
    return {"folder": str(folder), "present": present, "missing": {k: v for k, v in urls.items() if k not in present}}


def probe_explain() -> JsonObject:
    """Explain a grey gradient with the bundled model and report the seconds it took."""
    import capxai

    shade = np.linspace(0, 255, SIDE, dtype=np.uint8)
    picture = np.broadcast_to(shade[None, :, None], (SIDE, SIDE, 3)).copy()  # (H, W, 3)
    begin = time.perf_counter()
    explanation = capxai.explain(capxai.load(), picture, method="lrp")
    return {"seconds": round(time.perf_counter() - begin, 2), "words": len(explanation.tokens)}


PROBES: dict[str, Callable[[], JsonObject]] = {
    "torch": probe_torch,
    "torchvision": probe_torchvision,
    "weights": probe_weights,
    "explain": probe_explain,
}


def run_probes(path: Path) -> None:
    """Run every probe and write ``{name: {"found": ...} or {"error": text}}`` to a JSON file, anew after each of them.

    What was written before a probe takes the process down is thereby kept.
    """
    results: JsonObject = {}
    for name, probe in PROBES.items():
        try:
            results[name] = {"found": probe()}
        except Exception as error:  # whatever a broken installation raises is the finding
            results[name] = {"error": f"{type(error).__name__}: {error}"}
        path.write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    run_probes(Path(sys.argv[1]))
