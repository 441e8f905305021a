"""What determined the figures of an evaluation, so that it can be repeated."""

from __future__ import annotations

import hashlib
import json
import subprocess
from importlib import metadata

from capxai.config import run_record
from capxai.data.corpus import Split
from capxai.errors import DependencyError
from capxai.evaluate.java_process import find_java
from capxai.evaluate.predictions import hash_of_captions, hash_of_ids
from capxai.recipes.evaluation_config import EvaluateConfig
from capxai.recipes.evaluation_scores import Scores
from capxai.recipes.evaluation_subject import Subject
from capxai.types import JsonObject

_BY_JAVA = ("meteor", "spice")


def provenance(config: EvaluateConfig, subject: Subject, scores: Scores) -> JsonObject:
    """Return settings, versions, what made the captions, and hashes of pictures, captions, references and lexicon."""
    pictures = subject.ground.pictures
    record = run_record(
        config,
        verb="eval",
        pictures=len(subject.captions),
        image_list_sha256=hash_of_ids(subject.captions),
        predictions_sha256=hash_of_captions(subject.captions),
        references_sha256=_hash_of_references(pictures),
        **subject.origin,
        **scores.details,
        bootstrap={"draws": config.draws, "seed": config.seed},
    )
    if config.caption_metrics:
        record["versions"]["pycocoevalcap"] = _version("pycocoevalcap")
    if scores.details.get("tokenizer") == "ptb-java" or any(name in scores.metrics for name in _BY_JAVA):
        record["versions"]["java"] = _java_version()
    return record


def _hash_of_references(pictures: Split) -> str:
    rows = [[picture.id, list(pictures.captions[picture.id])] for picture in pictures.pictures]
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _java_version() -> str | None:
    """Return the first line of what Java says of itself; None where it does not answer."""
    try:
        done = subprocess.run([find_java(), "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError, DependencyError):
        return None
    return next(iter(done.stderr.splitlines()), None)
