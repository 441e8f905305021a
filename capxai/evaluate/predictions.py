"""Captions of any system, one for each picture, in a file.

Read: COCO results ``[{"image_id": 42, "caption": "a dog"}, ...]``; what the original CHAIR reads, ``{"imgToEval": {"42":
{"image_id": 42, "caption": "a dog", ...}}}``; and JSON lines, one ``{"image_id": 42, "caption": "a dog"}`` on each. Further fields are
stepped over. Written: COCO results.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from capxai.data.annotations import Problems
from capxai.errors import CorpusError
from capxai.evaluate.json_walk import Entry, NotJsonError, Walker, lines
from capxai.files import write_atomically

LARGEST_FILE = 64 * 2**20
"""Bytes. 600,000 captions in COCO results, or 40,000 pictures with all that pycocoevalcap says of them, fit in."""

LONGEST_CAPTION = 10_000
"""Characters."""

_PROBLEMS_AT_MOST = 1000
_FORMATS = (
    'COCO results, [{"image_id": 42, "caption": "a dog"}, ...], the input of CHAIR, {"imgToEval": {...}}, or JSON lines'
)

Format = Literal["coco-results", "chair", "json-lines"]


@dataclass(frozen=True)
class Predictions:
    """Captions by image id, in the order of their file.

    Attributes:
        path: The file.
        format: How it was written.
        captions: One caption for each image id.
    """

    path: Path
    format: Format
    captions: Mapping[int, str]


def read_predictions(
    path: str | Path, known: Collection[int] | None = None, remedy: str = "", allow_empty: bool = False
) -> Predictions:
    """Read a file of predictions and check all of it.

    Args:
        path: The file.
        known: Ids of the pictures that there are; None takes any.
        remedy: What to do about ids that are not known, besides correcting the file.
        allow_empty: Take empty captions, which a model can give, for what they are.

    Raises:
        CorpusError: The file is missing, too large, in no known format, or has ids that are no whole numbers, are unknown or occur
            twice, or captions that are empty or no text. All problems are in one message, each with the line and entry of the
            first few.
    """
    path = Path(path)
    text = _text(path)
    reading = _Reading(path, known, allow_empty)
    try:
        kind = reading.read(text)
    except NotJsonError as error:
        good = len(reading.captions)
        reading.problems.note(f"{error}, after {good:,} good caption{'s'[: good != 1]}" if good else str(error))
        kind = "coco-results"
        reading.count += 1
    if not reading.captions and not reading.count:
        reading.problems.note("no caption")
    reading.problems.raise_if_any(
        f"{_FORMATS}, each image id a known whole number that occurs once, with a caption",
        f"Mend the named entries. {remedy}".rstrip(),
    )
    return Predictions(path, kind, reading.captions)


def write_predictions(path: Path, captions: Mapping[int, str]) -> None:
    """Write captions as COCO results, one entry a line: the file is there as a whole, or as it was before.

    Raises:
        CapxaiError: The file cannot be written.
    """
    rows = (json.dumps({"image_id": number, "caption": text}, ensure_ascii=False) for number, text in captions.items())
    write_atomically(path, ("[\n" + ",\n".join(rows) + "\n]\n").encode("utf-8", "backslashreplace"))


def hash_of_captions(captions: Mapping[int, str]) -> str:
    """Return the SHA-256 of captions by image id; neither their order nor the format of their file matters."""
    rows = json.dumps(sorted(captions.items()), ensure_ascii=True)
    return hashlib.sha256(rows.encode()).hexdigest()


def hash_of_ids(image_ids: Iterable[int]) -> str:
    """Return the SHA-256 of a list of image ids, one a line, whatever their order."""
    return hashlib.sha256("\n".join(str(number) for number in sorted(image_ids)).encode()).hexdigest()


class _Reading:
    """The captions found so far, and what is wrong with the others."""

    def __init__(self, path: Path, known: Collection[int] | None, allow_empty: bool) -> None:
        self.problems = Problems(path)
        self.captions: dict[int, str] = {}
        self.count = 0
        self._allow_empty = allow_empty
        self._known = None if known is None else frozenset(known)

    def read(self, text: str) -> Format:
        walker = Walker(text)
        first = walker.peek()
        if first == "[":
            self._take(walker.entries())
            self._end(walker)
            return "coco-results"
        if first != "{":
            found = f"{first!r} at its beginning" if first else "nothing in it"
            raise NotJsonError(f"{found}, where '[' or '{{' belongs")
        return self._read_object(text, walker)

    def _read_object(self, text: str, walker: Walker) -> Format:
        """Tell CHAIR's input from JSON lines by the names at the top."""
        names: list[str] = []
        for _, _, name in walker.names():
            names.append(name)
            if name == "imgToEval":
                self._take(walker.members())
            else:
                walker.value()
            if self._enough or len(names) > _PROBLEMS_AT_MOST:
                break
        if "imgToEval" in names:
            self._end(walker)
            return "chair"
        if {"image_id", "caption"} & set(names):
            self._take(lines(text))
            return "json-lines"
        raise NotJsonError(_unknown_object(names))

    def _end(self, walker: Walker) -> None:
        if not self._enough:
            walker.end()

    def _take(self, entries: Iterator[Entry]) -> None:
        for entry in entries:
            self._add(entry)
            if self._enough:
                self.problems.note(f"so many problems that reading ended at line {entry.line}")
                return

    @property
    def _enough(self) -> bool:
        return self.count >= _PROBLEMS_AT_MOST

    def _add(self, entry: Entry) -> None:
        problem = self._problem(entry)
        if problem:
            self.count += 1
            self.problems.add(problem[0], f"line {entry.line}, entry {entry.number}{problem[1]}")
            return
        self.captions[_image_id(entry)] = entry.value["caption"]

    def _problem(self, entry: Entry) -> tuple[str, str] | None:
        """Return the kind of the first problem of an entry, in the plural, and what was found; None if it is good."""
        if not isinstance(entry.value, dict):
            return "entries that are no objects", f": {_shown(entry.value)}"
        image_id, caption = _image_id(entry), entry.value.get("caption")
        if isinstance(image_id, str):
            return 'image ids that are text instead of numbers (write 42, not "42")', f": {_shown(image_id)}"
        if not isinstance(image_id, int) or isinstance(image_id, bool):
            return "image ids that are no whole numbers", f": {_shown(image_id)}"
        if entry.key and entry.key != str(image_id):
            return "image ids that differ from the name above them", f": {image_id} under {_shown(entry.key)}"
        if image_id in self.captions:
            return "image ids that occur twice", f": image id {image_id}"
        if self._known is not None and image_id not in self._known:
            return "image ids of no picture", f": image id {_shown(image_id)}"
        if caption == "" and self._allow_empty:
            return None
        return _caption_problem(image_id, caption)


def _caption_problem(image_id: int, caption: object) -> tuple[str, str] | None:
    where = f": image id {image_id}"
    if not isinstance(caption, str):
        return "captions that are no text", f"{where}, {_shown(caption)}"
    if not caption.strip():
        return 'empty captions (--allow-empty takes "" as it is)', where
    if len(caption) > LONGEST_CAPTION:
        return f"captions of more than {LONGEST_CAPTION:,} characters", f"{where}, {len(caption):,}"
    if any("\ud800" <= character <= "\udfff" for character in caption):
        return "captions that are no valid Unicode", where
    return None


def _image_id(entry: Entry) -> int:
    """Return the image id of an entry as it stands there; CHAIR's input may have it in the name alone, which is text by nature."""
    key = entry.key
    named = int(key) if key.isascii() and key.isdigit() and len(key) < 20 else key
    found: int = entry.value.get("image_id", named if key else None)
    return found


def _unknown_object(names: list[str]) -> str:
    """Say what an object is that holds no predictions."""
    if {"images", "annotations"} <= set(names):
        return "the form of a COCO annotation file (references are given with --captions, objects with --instances)"
    if {"overall", "images"} <= set(names):
        return "the form of capxai's eval.json (its captions are in predictions.json beside it)"
    return f"an object with {_shown(names)} and no 'imgToEval'"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = "NaN" if isinstance(value, float) and value != value else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _text(path: Path) -> str:
    """Read a file that is not too large, as UTF-8."""
    remedy = f"Expected a file of captions: {_FORMATS}. Check the path."
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CorpusError(f"'{path}' is no file. {remedy}")
        if status.st_size > LARGEST_FILE:
            raise CorpusError(
                f"'{path}' has {status.st_size / 2**20:,.1f} MiB. Expected captions of at most {LARGEST_FILE / 2**20:.0f} MiB: "
                f"{_FORMATS}. Leave out what is no caption, or evaluate it in parts."
            )
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CorpusError(f"'{path}' cannot be read ({error.strerror}). {remedy}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"'{path}' is no UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x}). Expected captions: {_FORMATS}. "
            "Write the file again as UTF-8."
        ) from error
