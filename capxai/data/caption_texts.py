"""What can be wrong with the text of a caption."""

from __future__ import annotations

import re

from capxai.data.findings import Findings
from capxai.data.json_tables import is_broken

_LETTER = re.compile(r"[^\W_]")  # or digit: without one there is no word, see capxai.data.vocabulary.tokenize
REPLACEMENT = "\ufffd"
# What the first byte of a two- or three-byte character becomes in Latin-1, and what can follow it.
_TWICE = re.compile("[\u00c2-\u00c5\u00e2][\u0080-\u00bf\u0152-\u0178\u02c6\u02dc\u2013-\u203a\u20ac\u2122]")


def usable_caption(text: object, where: str, findings: Findings) -> str | None:
    """Return the text of a caption, or None where there is none that could be used; what is wrong is noted.

    Args:
        text: What stands where the caption should.
        where: How to name the caption in a message.
        findings: Where to note problems.
    """
    if not isinstance(text, str):
        findings.bad("captions that are no text", where)
    elif not text.strip():
        findings.bad("empty captions", where)
    elif is_broken(text):
        findings.bad("captions with bytes that are no UTF-8 (Latin-1?)", where)
    elif not _LETTER.search(text):
        findings.bad("captions without a word", f"{where}: {text.strip()!r}")
    else:
        _note_odd(text, where, findings)
        return text
    return None


def _note_odd(text: str, where: str, findings: Findings) -> None:
    if text.isascii():
        return
    if REPLACEMENT in text:
        findings.odd("captions with replacement characters, in which letters were lost", where)
    elif _decoded_twice(text):
        findings.odd("captions that look as if they had been decoded wrongly (mojibake)", f"{where}: {text.strip()!r}")


def _decoded_twice(text: str) -> bool:
    """Tell whether the text becomes shorter, valid text when its decoding as Latin-1 or Windows-1252 is taken back."""
    if not _TWICE.search(text):
        return False
    for encoding in ("cp1252", "latin-1"):
        try:
            if len(text.encode(encoding).decode("utf-8")) < len(text):
                return True
        except UnicodeError:
            continue
    return False
