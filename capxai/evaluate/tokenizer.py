"""Splitting captions into the words that caption metrics compare, as the Penn Treebank does, without Java.

The field tokenizes with Stanford CoreNLP 3.4.1 (``PTBTokenizer -preserveLines -lowerCase``) and drops some punctuation afterwards, as
pycocoevalcap does. Here its behavior, as observed, is written as rules: at every place the longest rule wins, among equally long ones
the first. Where the two still differ is listed in tests/test_tokenizer.py.

Kept although they look wrong, because the field's numbers depend on them: pycocoevalcap's list names the brackets in upper case
(-LRB-) but its text is in lower case, so "(" stays as the word "-lrb-"; and only single marks are dropped, so "!!" stays as a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import zip_longest

PUNCTUATION = frozenset(
    ("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";")
)
"""What pycocoevalcap drops after tokenizing."""

ABBREVIATIONS = (
    # titles and given names
    "adm alex asst atty attys brig capt cmdr col comdr cpl dr drs ens esq gen gov govs hon insp jos jr lieut lt maj messrs mlle mme mr "
    "mrs ms msgr pfc ph pres prof profs pvt rep reps rev sen sens sfc sgt spc sr st ste supt supts treas "
    # months and days
    "apr aug dec det feb fri jan jul jun mar mon nov oct sep sept thu thurs tue tues wed "
    # places
    "ala al ariz ave bldg blvd calif colo conn ct dak fla ft ga ind kan kans ky md mich minn mo mont mt neb nev okla penn rd tenn va vt "
    "wis wisc wm wyo "
    # firms, and the rest
    "adj adv assn assoc bancorp bhd bros cf cie co corp cos dept elec est etc ext inc intl invt ltd natl plc rt seq sq sys tel univ vs"
)
CAPITAL_ABBREVIATIONS = "ark az del ill la mass miss ore pa tex wash"
"""Abbreviations only where they begin with a capital: else they are words that may end a sentence."""
NUMBERED_ABBREVIATIONS = "art ca fig figs no nos op pp prop"
"""Abbreviations only before a number."""

_REPLACEMENTS = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", "£": "#", "€": "$", "¢": "cents",
    "¤": "$", "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "&amp;": "&", "&lt;": "<", "&gt;": ">",
    **dict.fromkeys("\"'`“”«»‹›‘’", "'"), **dict.fromkeys(("–", "—", "―"), "-"), "…": "...",
}  # fmt: skip
_DROPPED = frozenset(("Cf", "Cc", "Cn", "Co", "Cs", "Mn", "Ps", "Pe", "Pi", "Pf", "Pd"))
"""Unicode categories of characters that the tokenizer does not know where they stand alone."""
_ENTITIES = {"&quot;": '"', "&apos;": "'", "&nbsp;": " ", "\u00ad": ""}

_LETTER = r"[^\W\d_²³¹¼-¾\u2070-\u209f\u2150-\u218f]"
_APOSTROPHE = "['’]"
_WORD = rf"{_LETTER}(?:{_LETTER}|[0-9]|[.!?](?={_LETTER}))*"
_CHUNK = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_ALONE = rf"(?!{_LETTER})"


def _one_of(words: str) -> str:
    return "(?:" + "|".join(words.split()) + ")"


# The group, where there is one, is the token; the rest of the match is only looked at, but counts as length.
_RULES: tuple[re.Pattern[str], ...] = tuple(
    re.compile(rule)
    for rule in (
        r"</?[A-Za-z!?][^<>]*>",
        rf"((?i:can))(?i:not){_ALONE}",
        rf"((?i:gon|wan))(?i:na){_ALONE}",
        rf"((?i:got))(?i:ta){_ALONE}",
        rf"((?i:lem|gim))(?i:me){_ALONE}",
        rf"((?i:more)){_APOSTROPHE}[nN]{_ALONE}",
        rf"({_APOSTROPHE}[tT])(?i:is|was){_ALONE}",
        rf"({_LETTER}(?:{_LETTER}|[0-9]|[.!?](?={_LETTER}))*?)[nN]{_APOSTROPHE}[tT]{_ALONE}",
        rf"[nN]{_APOSTROPHE}[tT]{_ALONE}",
        rf"({_WORD}){_APOSTROPHE}(?i:[smd]|re|ve|ll){_ALONE}",
        rf"{_APOSTROPHE}(?i:[smd]|re|ve|ll){_ALONE}",
        # words that hold an apostrophe
        rf"[dlonA-HJ-XZ]{_APOSTROPHE}{_LETTER}{{2}}(?:{_LETTER}|[0-9])*",
        rf"[A-Za-z]+[aeiouyAEIOUY]{_APOSTROPHE}[aeiouA-Z][A-Za-z]*",
        rf"{_APOSTROPHE}[nN](?:{_APOSTROPHE}|{_ALONE})|{_APOSTROPHE}(?i:em|till?|cause)|{_APOSTROPHE}[2-9]0s",
        rf"(?:[lLdDjJyY]|(?i:dunkin|somethin|ol)){_APOSTROPHE}|(?i:c{_APOSTROPHE}mon)",
        # addresses and names on the internet
        r"https?://[^\s\"<>|(){}]*[^\s\"<>|(){}.,!?;:'-]",
        r"(?:www\.(?:[^\s\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}|(?:[^\s\"<>|.!?(){},\-$]+\.)+(?:com|net|org|edu))"
        r"(?:/[^\s\"<>|()]*[^\s\"<>|().!?,-])?",
        r"[A-Za-z0-9][^\s\"<>|()@,:;]*@(?:[^\s\"<>|().,:;@]+\.)*[^\s\"<>|().,:;@]+",
        rf"#{_LETTER}(?:{_LETTER}|[0-9])*|@[A-Za-z_][A-Za-z_0-9]*",
        # numbers and words joined by marks
        r"[0-9]{1,2}[-/][0-9]{1,2}[-/][0-9]{2,4}|(?:[0-9]{1,4}-)?[0-9]{1,4}[/⁄][0-9]{1,4}",
        r"[-+]?(?:[0-9]*(?:[.:,][0-9]+)+|[0-9]+)",
        rf"[0-9]+{_LETTER}(?:{_LETTER}|[0-9])*",
        rf"{_CHUNK}(?:/{_CHUNK}){{1,2}}",
        r"[A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9]+))+",
        rf"(?:{_LETTER}|[0-9])+(?:[-‐‑](?:{_LETTER}|[0-9])+)+",
        r"[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)+",
        r"[A-Z]+(?:(?:[&+]|&amp;)[A-Z]+)+",
        r"[cC]\+\+|[cCfF]#",
        # a period that belongs to its word
        r"[A-Za-z](?:\.[A-Za-z])*\.|Ph\.D\.",
        rf"(?i:{_one_of(ABBREVIATIONS)})\.",
        rf"{_one_of(CAPITAL_ABBREVIATIONS.title() + ' ' + CAPITAL_ABBREVIATIONS.upper())}\.",
        rf"((?i:{_one_of(NUMBERED_ABBREVIATIONS)})\.) ?[0-9]",
        rf"((?:{_WORD}|[0-9]+)\.)[,;:]",
        _WORD,
        # marks
        r"[<>]?[:;=]['o*-]?[()DPdpO\\{@|\[\]](?![A-Za-z])",
        r"[-^x=~<>]\.[-^x=~<>]|[-^x=~<>']_[-^x=~<>']|-(?i:[lr][rsc]b)-",
        r"&(?:amp|lt|gt);|[A-Z]*\$",
        r"[?!]+|\.{3}|''|``|-{5,}|-+|_+|\*+|#+|@+",
    )
)


def tokenize(caption: str) -> list[str]:
    """Split a caption into lower-case tokens without punctuation.

    Returns:
        The tokens; none of them holds white space. Empty for a caption of punctuation alone.
    """
    chunks = _clean(caption).split()
    tokens: list[str] = []
    for chunk, following in zip_longest(chunks, chunks[1:], fillvalue=""):
        tokens += _split_chunk(chunk, following[:1].isdigit())
    return tokens


def tokenize_all(captions: Sequence[str]) -> list[str]:
    """Tokenize captions and join the tokens of each by single spaces, the form that pycocoevalcap's metrics take."""
    return [" ".join(tokenize(caption)) for caption in captions]


def _clean(caption: str) -> str:
    for written, meant in _ENTITIES.items():
        if written in caption:
            caption = caption.replace(written, meant)
    return caption


@lru_cache(maxsize=1 << 17)
def _split_chunk(chunk: str, before_number: bool) -> tuple[str, ...]:
    """Tokenize what stands between two spaces."""
    text = f"{chunk} 0" if before_number else chunk
    tokens = (_normalize(token) for token in _scan(text, len(chunk)))
    return tuple(token for token in tokens if token and token not in PUNCTUATION)


def _scan(text: str, end: int) -> Iterator[str]:
    """Yield the tokens of ``text`` up to ``end``; what comes after it is only looked at."""
    place = 0
    while place < end:
        found = [match for match in (rule.match(text, place) for rule in _RULES) if match]
        if not found:
            yield text[place]
            place += 1
            continue
        best = max(found, key=lambda match: match.end())  # the first of equally long ones
        token = best.group(best.lastindex or 0)
        yield token
        place += len(token)


def _normalize(token: str) -> str:
    """Return a token in the spelling that the metrics compare; empty where the tokenizer drops it."""
    if token in _REPLACEMENTS:
        return _REPLACEMENTS[token]
    if len(token) == 1 and (ord(token) > 0xFFFF or unicodedata.category(token) in _DROPPED):
        return ""
    if re.fullmatch(rf"(?i:n{_APOSTROPHE}t|{_APOSTROPHE}(?:[smd]|re|ve|ll|t))", token):
        token = token.replace("’", "'")
    if token[0] in ":;=<>" and token[-1] in "()":
        token = token[:-1] + _REPLACEMENTS[token[-1]]
    return "--" if 2 <= len(token) < 5 and not token.strip("-") else token.lower()
