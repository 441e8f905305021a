"""The folder of an explanation: ``explanation.npz``, ``.json``, ``.png`` (the sheet) and ``.html`` (the page)."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import uuid
import webbrowser
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capxai import __version__
from capxai.errors import CapxaiError
from capxai.explain.colors import Scale
from capxai.explain.explanation import KEPT, Contrast, Explanation
from capxai.explain.page import render_page
from capxai.explain.sheet import render_sheet
from capxai.types import JsonObject

SCHEMA_VERSION = 1
FILES = ("explanation.npz", "explanation.json", "explanation.png", "explanation.html")

_ALWAYS = ("token_ids", "logits", "probability", "image")
_TEXTS = ("tokens", "before", "after")
_OPTIONAL = ("pixel_relevance", "region_relevance", "word_relevance", "attention", "sentinel")


def describe(explanation: Explanation, scale: Scale = "caption") -> JsonObject:
    """Return what ``explanation.json`` holds (schema version 1); every number is finite, a missing one is None.

    ``words`` are the explained ones, ``before`` and ``after`` the rest of the caption around them. ``contrast`` is None, or the word that
    the one explained word is set against: ``token``, ``token_id``, ``logit`` and ``probability`` at the same step, and
    ``logit_difference``, whose parts ``relevance`` and ``share`` of the word are then.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "capxai_version": __version__,
        "caption": explanation.caption,
        "method": explanation.method,
        "model": explanation.model,
        "notes": list(explanation.notes),
        "source": explanation.source,
        "image_size": {"height": explanation.image.shape[0], "width": explanation.image.shape[1]},
        "grid": None if explanation.grid is None else list(explanation.grid),
        "scale": scale,
        "share_of": _whole(explanation),
        "before": list(explanation.before),
        "after": list(explanation.after),
        "contrast": None
        if explanation.contrast is None
        else {**explanation.contrast.to_json(), "logit_difference": explanation.explained(0)},
        "words": [_describe_word(explanation, word) for word in range(len(explanation.tokens))],
    }


def _whole(explanation: Explanation) -> str:
    if not explanation.conserved:
        return "sum of absolute totals"
    return "logit" if explanation.contrast is None else "difference of logits"


def _describe_word(explanation: Explanation, word: int) -> JsonObject:
    return {
        "token": explanation.tokens[word],
        "id": int(explanation.token_ids[word]),
        "logit": float(explanation.logits[word]),
        "probability": float(explanation.probability[word]),
        "relevance": explanation.totals(word).to_json(),
        "share": explanation.shares(word).to_json(),
    }


def write_folder(explanation: Explanation, folder: Path, scale: Scale = "caption", force: bool = False) -> Path:
    """Write the four files; see ``Explanation.save``.

    They are written to a hidden folder beside this one first, so that an interruption leaves no torn explanation.

    Raises:
        CapxaiError: If an explanation is there already, or the folder cannot be written.
    """
    existing = [name for name in FILES if (folder / name).exists()]
    if existing and not force:
        raise CapxaiError(
            f"{folder} already holds an explanation ({existing[0]}); expected a folder without one. "
            "Use --force (force=True) to replace it, or choose another folder."
        )
    target = folder.absolute()
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        partial.mkdir(parents=True)
        _write_files(explanation, partial, scale)
        _move(partial, target)
    except OSError as error:
        raise CapxaiError(
            f"Cannot write to {folder}: {error.strerror or error}. Choose a folder that can be written."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_files(explanation: Explanation, folder: Path, scale: Scale) -> None:
    present = [name for name in _OPTIONAL if getattr(explanation, name) is not None]
    arrays: dict[str, NDArray[Any]] = {name: getattr(explanation, name) for name in (*_ALWAYS, *present)}
    if explanation.contrast is not None:
        arrays |= {f"contrast_{name}": np.array(value) for name, value in explanation.contrast.to_json().items()}
    texts = {name: np.array(getattr(explanation, name), dtype=np.str_) for name in _TEXTS if getattr(explanation, name)}
    np.savez_compressed(folder / "explanation.npz", allow_pickle=False, **texts, **arrays)
    text = json.dumps(describe(explanation, scale), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "explanation.json").write_text(text + "\n", encoding="utf-8")
    render_sheet(explanation, scale).save(folder / "explanation.png")
    (folder / "explanation.html").write_text(render_page(explanation, scale), encoding="utf-8")


def _move(partial: Path, folder: Path) -> None:
    """Rename a finished folder into place; where the place is taken, rename its files into it one by one."""
    if not folder.exists():
        partial.rename(folder)
        return
    for name in FILES:
        os.replace(partial / name, folder / name)


def read_folder(folder: Path) -> Explanation:
    """Read an explanation back; see ``Explanation.load``.

    Raises:
        CapxaiError: If a file is missing, torn, of another schema version, or the two contradict each other.
    """
    try:
        with np.load(folder / "explanation.npz", allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        described = json.loads((folder / "explanation.json").read_text(encoding="utf-8"))
        if described["schema_version"] != SCHEMA_VERSION:
            raise CapxaiError(
                f"{folder / 'explanation.json'} has schema version {described['schema_version']}; expected "
                f"{SCHEMA_VERSION}. Read it with the capxai version that it names, or explain the picture again."
            )
        if [word["token"] for word in described["words"]] != arrays["tokens"].tolist():
            raise ValueError("explanation.json and explanation.npz hold different words")
        if (described.get("contrast") is None) != ("contrast_token" not in arrays):
            raise ValueError("only one of explanation.json and explanation.npz holds a contrast")
        return Explanation(**_fields(arrays, described))
    except FileNotFoundError as error:
        raise CapxaiError(
            f"{error.filename} is missing; expected a folder that 'capxai explain' wrote. Give such a folder."
        ) from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CapxaiError(f"The explanation in {folder} cannot be read: {error}. Explain the picture again.") from error


def _fields(arrays: dict[str, NDArray[Any]], described: JsonObject) -> dict[str, Any]:
    """Bring together what the two files hold; what is kept lives in the JSON file, per word."""
    kept = {part: [word["relevance"].get(part) for word in described["words"]] for part in KEPT}
    return {
        **{name: arrays[name] for name in _ALWAYS},
        **{name: arrays[name] for name in _OPTIONAL if name in arrays},
        **{f"{part}_relevance": np.array(values, np.float32) for part, values in kept.items() if None not in values},
        **{name: described[name] for name in ("method", "model", "source", "notes")},
        **{name: tuple(arrays[name].tolist()) for name in _TEXTS if name in arrays},
        "contrast": _contrast(arrays),
        "grid": None if described["grid"] is None else (int(described["grid"][0]), int(described["grid"][1])),
    }


def _contrast(arrays: dict[str, NDArray[Any]]) -> Contrast | None:
    if "contrast_token" not in arrays:
        return None
    return Contrast(
        str(arrays["contrast_token"]),
        int(arrays["contrast_token_id"]),
        float(arrays["contrast_logit"]),
        float(arrays["contrast_probability"]),
    )


def show_explanation(explanation: Explanation, scale: Scale = "caption") -> Path | None:
    """Show the sheet in a notebook, or else open the page in a browser; see ``Explanation.show``."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None and hasattr(shell, "kernel"):
        ipython.display.display(render_sheet(explanation, scale))
        return None
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise CapxaiError(
            "No display was found; expected a desktop or a notebook. "
            "Use save(folder) and open explanation.html where there is one."
        )
    page = Path(tempfile.mkdtemp(prefix="capxai-")) / "explanation.html"
    page.write_text(render_page(explanation, scale), encoding="utf-8")
    webbrowser.open(page.as_uri())
    return page
