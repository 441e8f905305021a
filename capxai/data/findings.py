"""What is wrong, or odd, in the files of a corpus: counted by kind over all files, the first few of each kind named."""

from __future__ import annotations

from dataclasses import dataclass, field

from capxai.errors import CorpusError

_NAMED_AT_MOST = 3


@dataclass
class _Kind:
    """One kind of finding: how often, and the first few."""

    count: int = 0
    named: list[str] = field(default_factory=list)
    unnamed: bool = False

    def __str__(self) -> str:
        more = ", ..." if self.unnamed else ""
        return f"({', '.join(self.named)}{more})"


class Findings:
    """Collects what a pass over the files of a corpus finds.

    There are three grades. What is *torn* (a file that is no JSON) ends the work. What is *bad* (a picture without a file, an
    empty caption) is left out of the corpus; the caller decides whether that is acceptable. What is *odd* (a byte order
    mark) is kept. Nothing of it is ever dropped from the account.
    """

    def __init__(self) -> None:
        self._torn: list[str] = []
        self._bad: dict[str, _Kind] = {}
        self._odd: dict[str, _Kind] = {}

    def torn(self, text: str) -> None:
        """Note what makes a corpus impossible, as a whole message."""
        self._torn.append(text)

    def bad(self, kind: str, which: object, count: int = 1) -> None:
        """Note something that cannot be used; ``kind`` is in the plural and reads after a count."""
        _add(self._bad, kind, str(which), count)

    def odd(self, kind: str, which: object, count: int = 1) -> None:
        """Note something that is kept all the same; ``kind`` is in the plural and reads after a count."""
        _add(self._odd, kind, str(which), count)

    @property
    def bad_counts(self) -> dict[str, int]:
        """How often each kind of unusable thing was found."""
        return {kind: found.count for kind, found in self._bad.items()}

    @property
    def odd_counts(self) -> dict[str, int]:
        """How often each kind of odd thing was found."""
        return {kind: found.count for kind, found in self._odd.items()}

    def lines(self) -> list[str]:
        """Word what was found, the worst first: one line for each kind."""
        kinds = (*self._bad.items(), *self._odd.items())
        return [*self._torn, *(f"{found.count:,} {kind} {found}" for kind, found in kinds)]

    def raise_if_unusable(self, skip_bad: bool) -> None:
        """Raise if a file is torn, or if something is bad and is not to be left out.

        Raises:
            CorpusError: With everything that was found, one line for each kind.
        """
        if not self._torn and (skip_bad or not self._bad):
            return
        remedy = "Mend the files, or copy them again from where they came"
        if self._bad and not skip_bad:
            remedy += "; or add --skip-bad, which leaves out what is affected and counts it in the corpus"
        found = "\n".join(f"- {line}" for line in self.lines())
        raise CorpusError(
            f"The corpus cannot be made from these files. Found:\n{found}\nExpected whole files, in which every picture has one "
            f"id, a file, a size and at least one caption with words, and every caption and object a picture. {remedy}."
        )


def _add(kinds: dict[str, _Kind], kind: str, which: str, count: int) -> None:
    found = kinds.setdefault(kind, _Kind())
    found.count += count
    if len(found.named) < _NAMED_AT_MOST:
        found.named.append(which)
    else:
        found.unnamed = True
