"""The model folder: ``model.safetensors`` (weights) and ``model.json`` (all the rest). Loading it executes nothing."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.overrides import TorchFunctionMode

from capxai import __version__
from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.errors import ModelError
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.repair import DESCRIPTION_FILE as DESCRIPTION_FILE
from capxai.models.repair import PREVIOUS, STAGED, kept_weights
from capxai.models.repair import WEIGHTS_FILE as WEIGHTS_FILE
from capxai.models.repair import WEIGHTS_HASH as WEIGHTS_HASH
from capxai.models.specification import Specification
from capxai.types import JsonObject

SCHEMA = 1
"""Version of ``model.json`` that this capxai writes, and the newest that it reads."""

_SECTIONS = ("specification", "vocabulary", "preprocessing", "lineage")
_SHOWN = 5
_RESTORE = "Restore the model folder from where it came, or make the model again."


def save_model(model: Captioner, folder: Path, force: bool = False) -> None:
    """Write a model folder: all of it, or nothing.

    Both files are completed under a temporary name first. An existing model stays whole until then, and anything else
    in its folder (logs, a training state) is left alone. Weights are stored as float32.

    Args:
        model: The model; its ``lineage`` must be JSON. The hash of the weights is added to the stored copy.
        folder: Where to; made if it is not there.
        force: Replace a model that is there already.

    Raises:
        ModelError: A model is there already and ``force`` is off, or the folder cannot be written.
    """
    folder = Path(folder)
    present = [name for name in (WEIGHTS_FILE, DESCRIPTION_FILE) if (folder / name).exists()]
    if present and not force:
        raise ModelError(
            f"'{folder}' already holds a model ({', '.join(present)}), and it was kept. Choose another folder, or "
            "replace it with --force."
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside a new folder, so that one rename makes it; inside an existing one, which may be a file system's root.
        with _staging(folder if folder.is_dir() else folder.parent) as staged:
            _write(model, staged)
            if folder.is_dir():
                _replace_files(staged, folder)
            else:
                staged.rename(folder)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"The model cannot be written to '{folder}' ({_reason(error)}). "
            "Expected a folder that may be written and room for the weights. Choose another one."
        ) from error


def load_model(folder: str | Path, device: str | torch.device = "cpu") -> Captioner:
    """Load a model folder, strictly, in evaluation mode. Nothing in it is executed, and no random number is drawn.

    Raises:
        ModelError: There is no such folder, a file of it is missing, torn, changed or of a newer version, or the
            weights do not fit.
        VocabularyError: The stored vocabulary cannot be used.
    """
    folder = Path(folder)
    _refuse_what_is_no_model(folder)
    description = _read_description(folder / DESCRIPTION_FILE)
    expected_hash = description["lineage"].get(WEIGHTS_HASH)
    specification = Specification.from_json(description["specification"])
    vocabulary = Vocabulary.from_json(description["vocabulary"])
    if len(vocabulary) != specification.vocabulary_size:
        raise ModelError(
            f"'{folder / DESCRIPTION_FILE}' has a vocabulary of {len(vocabulary)} words for an architecture of "
            f"{specification.vocabulary_size}. Expected the same number. {_RESTORE}"
        )
    weights = _read_weights(kept_weights(folder, expected_hash) or folder / WEIGHTS_FILE, expected_hash)
    preprocessing = Preprocessing.from_json(description["preprocessing"])
    model = _skeleton(specification, vocabulary, preprocessing, folder / DESCRIPTION_FILE)
    _refuse_misfit(model.state_dict(), weights, folder / WEIGHTS_FILE)
    model.load_state_dict(weights, strict=True, assign=True)
    model.lineage = dict(description["lineage"])
    return model.to(device).eval()


def load(path: str | Path | None = None, device: str | torch.device = "cpu") -> Captioner:
    """Load a model: a model folder, or the bundled model where no path is given.

    Raises:
        ModelError: See `load_model` and `bundled_folder`.
    """
    return load_model(bundled_folder() if path is None else path, device)


def bundled_folder() -> Path:
    """Return the folder of the model that comes with capxai.

    Raises:
        ModelError: This installation has none.
    """
    folder = Path(str(importlib.resources.files("capxai.models"))) / "bundled"
    if not (folder / DESCRIPTION_FILE).is_file():
        raise ModelError(
            f"This installation of capxai has no bundled model (expected it in '{folder}'). Install capxai again, or "
            "name a model folder with --model."
        )
    return folder


def newest_run(root: Path = Path("runs")) -> Path | None:
    """Return the model folder directly under ``root`` whose model was written last; None where there is none."""
    runs = [(file.stat().st_mtime_ns, file.parent.name, file.parent) for file in root.glob(f"*/{DESCRIPTION_FILE}")]
    return max(runs)[2] if runs else None


@contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """Yield a new hidden folder in ``parent``, and remove what is left of it afterwards."""
    staged = parent / f"{STAGED}{uuid.uuid4().hex[:12]}"
    staged.mkdir()
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _write(model: Captioner, folder: Path) -> None:
    """Write both files and make sure that they have reached the disk."""
    weights = {name: _stored(tensor) for name, tensor in model.state_dict().items()}
    # Written by us, because safetensors makes a file that nobody else may read, whatever the umask says.
    (folder / WEIGHTS_FILE).write_bytes(safetensors.torch.save(weights))
    description = {
        "schema": SCHEMA,
        "capxai": __version__,
        "specification": model.specification.to_json(),
        "vocabulary": model.vocabulary.to_json(),
        "preprocessing": model.preprocessing.to_json(),
        "lineage": {**model.lineage, WEIGHTS_HASH: hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()},
    }
    text = json.dumps(description, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
    for name in (WEIGHTS_FILE, DESCRIPTION_FILE):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())


def _stored(tensor: Tensor) -> Tensor:
    """Copy a tensor, because safetensors refuses weights that share memory."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", dtype).clone(memory_format=torch.contiguous_format)


def _replace_files(staged: Path, folder: Path) -> None:
    """Put two complete files in the place of the old ones; where that fails half-way, put the old weights back."""
    weights, kept = folder / WEIGHTS_FILE, staged / PREVIOUS
    if weights.exists():
        weights.rename(kept)
    try:
        (staged / WEIGHTS_FILE).replace(weights)
        (staged / DESCRIPTION_FILE).replace(folder / DESCRIPTION_FILE)
    except BaseException:
        if kept.exists():
            kept.replace(weights)
        raise


def _refuse_what_is_no_model(folder: Path) -> None:
    missing = [name for name in (DESCRIPTION_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing == [WEIGHTS_FILE] and any(folder.glob(f"{STAGED}*/{PREVIOUS}")):
        return
    if not missing:
        return
    places = (Path("runs"), folder, folder.parent)
    found = sorted({str(file.parent) for place in places for file in place.glob(f"*/{DESCRIPTION_FILE}")})
    advice = f"Model folders here: {_first(found)}." if found else "None is here or under 'runs'; train one first."
    if folder.is_dir():
        problem = f"'{folder}' is no model folder: {' and '.join(missing)} missing."
    elif folder.is_file():
        problem = f"'{folder}' is a file."
    else:
        problem = f"There is no model folder '{folder}'."
    raise ModelError(f"{problem} Expected a folder with {DESCRIPTION_FILE} and {WEIGHTS_FILE}. {advice}")


def _read_description(path: Path) -> JsonObject:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _torn(path, _reason(error)) from error
    if not isinstance(value, dict):
        raise _torn(path, "it is no JSON object")
    schema = value.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise ModelError(
            f"'{path}' has schema {schema}, written by capxai {value.get('capxai', 'of an unknown version')}. This is "
            f"capxai {__version__}, which reads schemas up to {SCHEMA}. Upgrade capxai."
        )
    if isinstance(schema, bool) or schema != SCHEMA:
        raise _torn(path, f"its schema is {schema!r}, not {SCHEMA}")
    if missing := [name for name in _SECTIONS if not isinstance(value.get(name), dict)]:
        raise _torn(path, f"no {' and no '.join(missing)} in it")
    return value


def _read_weights(path: Path, expected_hash: object) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _torn(path, _reason(error)) from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected_hash:
        raise ModelError(
            f"'{path}' is not the file that {DESCRIPTION_FILE} describes: it was changed, cut off or exchanged. Its "
            f"SHA-256 is {found}, expected {expected_hash}. {_RESTORE}"
        )
    try:
        # Cloned into memory of its own: the file's content is not aligned as kernels like it.
        return {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}
    except (SafetensorError, ValueError, KeyError) as error:
        raise _torn(path, _reason(error)) from error


class _WithoutDrawing(TorchFunctionMode):
    """Skips the initialization of weights that are replaced anyway: for VGG16 it takes seconds."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else keywords["tensor"]
        return func(*args, **keywords)


def _skeleton(
    specification: Specification, vocabulary: Vocabulary, preprocessing: Preprocessing, description: Path
) -> Captioner:
    """Build the modules without memory for their weights, so that absurd sizes in a damaged file cost nothing."""
    try:
        with torch.device("meta"), _WithoutDrawing():
            return build_captioner(specification, vocabulary, preprocessing)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise _torn(description, f"its architecture cannot be built: {_reason(error)}") from error


def _refuse_misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Name every weight that is missing, unexpected, or of another shape or type.

    Raises:
        ModelError: There is one.
    """
    misfits = [
        f"{name} is {_kind(found[name])} instead of {_kind(expected[name])}"
        for name in expected
        if name in found and _kind(found[name]) != _kind(expected[name])
    ]
    groups = {
        "missing": [name for name in expected if name not in found],
        "unexpected": sorted(name for name in found if name not in expected),
        "of another shape or type": misfits,
    }
    if problems := [f"{len(names)} {label}: {_first(names)}" for label, names in groups.items() if names]:
        raise ModelError(
            f"The weights in '{path}' do not fit the architecture in {DESCRIPTION_FILE}: {'; '.join(problems)}. "
            f"Expected exactly the weights of the architecture. {_RESTORE}"
        )


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _torn(path: Path, reason: str) -> ModelError:
    return ModelError(f"'{path}' cannot be read: {reason}. Expected what capxai writes on saving a model. {_RESTORE}")


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.splitlines() or [type(error).__name__])[0].rstrip(".")


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
