"""The doctor's look at Java and at the caption metrics that need it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping

from capxai.errors import CapxaiError
from capxai.evaluate.java_process import INSTALL_JAVA, JavaLimits, pycocoevalcap_file
from capxai.evaluate.java_tokenizer import tokenize_all_with_java
from capxai.evaluate.spice_models import MODELS, SOURCE, find_models
from capxai.recipes.doctor_check import Check, ability

OLDEST_JAVA = 8
METEOR_FILES = ("meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz")
TRIAL = "A man's dog doesn't bark."
TRIAL_TOKENS = "a man 's dog does n't bark"
TRIAL_LIMITS = JavaLimits("256m", 60)

_VERSION = re.compile(r'version "(\d+)(?:\.(\d+))?')
_WITHOUT = f"METEOR, SPICE and the tokenizer of the COCO metrics need it. {INSTALL_JAVA}"


def java_checks() -> tuple[Check, ...]:
    """Look at Java, the tokenizer (which is tried), METEOR's files and SPICE's models."""
    java = _java()
    return java, _tokenizer(java), _meteor(), _spice()


def metric_abilities(state: Mapping[str, Check]) -> tuple[Check, ...]:
    """Say which caption metrics work here, from the checks by name."""
    java = state["Java"]
    return (
        ability("BLEU, ROUGE-L and CIDEr", state["pycocoevalcap"]),
        ability("captions split as pycocoevalcap does", state["pycocoevalcap"], java, state["Java tokenizer"]),
        ability("METEOR", state["pycocoevalcap"], java, state["METEOR files"]),
        ability("SPICE", state["pycocoevalcap"], java, state["SPICE models"]),
    )


def _java() -> Check:
    program = shutil.which("java")
    if program is None:
        return Check("Java", "note", "not found", _WITHOUT)
    try:
        done = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("Java", "note", f"{program} does not run ({error})", _WITHOUT)
    said = (done.stderr or done.stdout).strip().splitlines()
    found = next((line for line in said if "version" in line), said[0] if said else "no answer")
    if done.returncode != 0 or not said:
        return Check("Java", "note", f"{program} ended with {done.returncode}: {found}", _WITHOUT)
    number = _VERSION.search(found)
    major = int((number.group(2) if number.group(1) == "1" else number.group(1)) or 0) if number else OLDEST_JAVA
    if major < OLDEST_JAVA:
        return Check("Java", "note", f"{found}, which is too old", _WITHOUT)
    return Check("Java", "ok", found)


def _tokenizer(java: Check) -> Check:
    """Tokenize one caption: a Java that tells its version may still lack memory, or the jar its class."""
    advice = "Without it captions are split by the tokenizer in Python, which differs in rare cases."
    if java.status != "ok":
        return Check("Java tokenizer", "note", "not tried, for lack of Java", advice)
    try:
        found = tokenize_all_with_java([TRIAL], TRIAL_LIMITS)[0]
    except CapxaiError as error:
        return Check("Java tokenizer", "note", str(error), advice)
    if found != TRIAL_TOKENS:
        return Check("Java tokenizer", "note", f"'{TRIAL}' became '{found}', not '{TRIAL_TOKENS}'", advice)
    return Check("Java tokenizer", "ok", f"'{TRIAL}' becomes '{found}'")


def _meteor() -> Check:
    try:
        paths = [pycocoevalcap_file(name) for name in METEOR_FILES]
    except CapxaiError as error:
        return Check("METEOR files", "note", str(error), "Install pycocoevalcap again.")
    return Check("METEOR files", "ok", ", ".join(path.name for path in paths))


def _spice() -> Check:
    try:
        from capxai.recipes.builtin_corpus import cache_folder
    except ImportError as error:  # of a package that the doctor reports
        return Check("SPICE models", "note", f"unknown ({error})", "Install what is missing.")
    folder = cache_folder() / "spice"
    try:
        return Check("SPICE models", "ok", ", ".join(map(str, find_models(folder))))
    except CapxaiError:
        return Check(
            "SPICE models",
            "note",
            f"not in {folder}",
            f"Nothing is downloaded by itself. For SPICE fetch {SOURCE} and put {' and '.join(MODELS)} out of it into that folder.",
        )
