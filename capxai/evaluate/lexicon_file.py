"""Reading the word list of the original CHAIR metric, and its rules for double words (Rohrbach et al. 2018, and their released code).

The list: one category a line, words separated by commas, the first of them the category. The rules, which the release keeps in its code:
words of a caption are made singular one by one; then pairs of words are looked for from left to right, some of which stand for
another word ("baby elephant" for elephant, "bow tie" for tie) or for nothing ("home plate"); a seat does not count in a caption that has a
toilet; every word left that is in the list is a mention. Three words never match together: "stove top oven" mentions a stove and an oven.

Differs from the published code: plurals are made when the list is read, by rules and a table, where its singulariser lost "bus",
"glass" and "tennis" in captions; spaces around a word of the list do not belong to it (the release never finds "motor bike"); capitals
of the list do not matter ("iPhone").
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path

from capxai.errors import ConfigError
from capxai.evaluate.lexicon import NO_OBJECT, Lexicon, Rules, Words
from capxai.evaluate.lexicon_plurals import word_forms

LARGEST_FILE = 2**20
"""Bytes. The original list has 5,000."""

LONGEST_NAME = 60
"""Characters."""

_NAME = re.compile(r"[^\W_]+(?:['’ -][^\W_]+)*", re.UNICODE)
_NAMED_AT_MOST = 5
_PAIR = 2
_EXPECTED = "Expected one category a line: its name and further words for it, separated by commas, as in 'bicycle, bike, trike'."

DOUBLE_WORDS: tuple[str, ...] = (
    "motor bike", "motor cycle", "air plane", "traffic light", "street light", "traffic signal", "stop light", "fire hydrant",
    "stop sign", "parking meter", "suit case", "sports ball", "baseball bat", "baseball glove", "tennis racket", "wine glass",
    "hot dog", "cell phone", "mobile phone", "teddy bear", "hair drier", "potted plant", "bow tie", "laptop computer", "home plate",
    "train track",
)  # fmt: skip
"""Pairs that are one word; one that is not in the list names nothing."""

QUALIFIERS: dict[str, tuple[str, ...]] = {
    "baby": ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub"),
    "adult": ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub"),
    "passenger": ("jet", "train"),
}
"""Words that name a person, and the words before which they do not."""

STANDS_FOR: dict[str, str] = {
    "bow tie": "tie",
    "toilet seat": "toilet",
    **{f"{first} {second}": second for first, seconds in QUALIFIERS.items() for second in seconds},
}
"""Pairs that stand for one word."""

_BESIDE_A_TOILET = frozenset({"toilet", "toilets", "toilet's"})
RULES = Rules(dropped_beside=dict.fromkeys(("seat", "seats", "seat's"), _BESIDE_A_TOILET))


@dataclass
class _List:
    """The entries of a file, and what is odd about it."""

    categories: list[str] = field(default_factory=list)
    entries: dict[str, tuple[str, int]] = field(default_factory=dict)  # name -> (category, line)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, category: str, line: int) -> None:
        """Take an entry; of a name in two categories the later line counts, as in the published code."""
        known = self.entries.get(name)
        if known is not None and known[0] != category:
            self.notes.append(
                f"'{name}' is in the categories '{known[0]}' (line {known[1]}) and '{category}' (line {line}); the later one counts."
            )
        self.entries[name] = (category, line)


def read_lexicon(path: str | Path) -> Lexicon:
    """Read a word list in the text format of the original CHAIR metric, and add the plurals.

    Returns:
        The lexicon. Its ``sha256`` is that of the file; its ``notes`` say which words are in two categories.

    Raises:
        ConfigError: The file is missing, no regular file, larger than `LARGEST_FILE`, no UTF-8 text, or has a line that is no list of
            names. All bad lines are counted, and the first few named by their number.
    """
    path = Path(path)
    data = _bytes(path)
    listed = _parse(path, _text(path, data))
    forms = _table(listed)
    return Lexicon.of_forms(forms, listed.categories, RULES, hashlib.sha256(data).hexdigest(), listed.notes)


def _bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"The lexicon '{path}' is no file. {_EXPECTED} Name a text file with --lexicon.")
        if status.st_size > LARGEST_FILE:
            raise ConfigError(
                f"The lexicon '{path}' has {status.st_size:,} bytes, too many for a word list (at most {LARGEST_FILE:,}). {_EXPECTED} "
                "Check that the file is the right one."
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"The lexicon '{path}' cannot be read ({reason}). {_EXPECTED} Check the path given with --lexicon."
        ) from error


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"The lexicon '{path}' is no UTF-8 text: line {line} has the byte 0x{data[error.start]:02x}. {_EXPECTED} Save it as UTF-8, "
            "or name another file."
        ) from error


def _parse(path: Path, text: str) -> _List:
    listed, problems = _List(), list[str]()
    lines = text.rstrip("\r\n \t").split("\n") if text.strip() else []
    for number, line in enumerate(lines, start=1):
        wrong = list(_problems(line))
        if wrong:
            problems.append(f"line {number}: {wrong[0]}")
            continue
        names = [_clean(name) for name in line.split(",")]
        if names[0] not in listed.categories:
            listed.categories.append(names[0])
        for name in names:
            listed.add(name, names[0], number)
    if problems or not lines:
        found = "is empty" if not lines else f"has {len(problems)} lines that cannot be read"
        named = "; ".join(problems[:_NAMED_AT_MOST]) + ("; ..." if len(problems) > _NAMED_AT_MOST else "")
        raise ConfigError(
            f"The lexicon '{path}' {found}{f' ({named})' if named else ''}. {_EXPECTED} Mend or remove them."
        )
    return listed


def _problems(line: str) -> Iterator[str]:
    """Say what is wrong with a line."""
    if not line.strip():
        yield "it is empty"
    if "\0" in line:
        yield "it holds a NUL byte"
    for name in line.split(","):
        shown = repr(name.strip()[:LONGEST_NAME])
        if not name.strip():
            yield "nothing stands between two commas, or before or after one"
        elif len(name.strip()) > LONGEST_NAME:
            yield f"{shown}... is longer than {LONGEST_NAME} characters"
        elif not _NAME.fullmatch(" ".join(name.split())):
            yield f"{shown} is no word"


def _clean(name: str) -> str:
    return " ".join(name.lower().replace("’", "'").split())


def _table(listed: _List) -> dict[Words, str]:
    """Spread the entries and the double words over their forms; an entry itself counts before a plural of another one."""
    own = {name: category for name, (category, _) in listed.entries.items()}
    forms: dict[Words, str] = {}
    for name in [*own, *DOUBLE_WORDS]:
        if len(name.split()) <= _PAIR or not _has_part(name, own):
            _spread(forms, name, own.get(name, NO_OBJECT), own)
    for name, stands_for in STANDS_FOR.items():
        for form in _forms(name):
            forms[form] = own.get(stands_for, NO_OBJECT)
    return forms


def _has_part(name: str, own: dict[str, str]) -> bool:
    """Tell whether a word or pair of a longer name is an entry: then the published rules find that instead."""
    words = name.split()
    pairs = (" ".join(pair) for pair in pairwise(words))
    return any(part in own for part in (*words, *pairs))


def _spread(forms: dict[Words, str], name: str, category: str, own: dict[str, str]) -> None:
    for form in _forms(name):
        if " ".join(form) == name or " ".join(form) not in own:
            forms[form] = category


def _forms(name: str) -> Iterator[Words]:
    """Yield the singular and plural of each word, combined: the published rules make every word singular by itself."""
    yield from product(*(word_forms(word) for word in name.split()))
