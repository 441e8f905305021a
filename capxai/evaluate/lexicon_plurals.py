"""Plurals of English nouns: how a word list of singulars becomes a table of surface forms."""

from __future__ import annotations

from itertools import product

IRREGULAR: dict[str, tuple[str, ...]] = {
    "aircraft": ("aircraft", "aircrafts"),
    "airbus": ("airbuses", "airbusses"),
    "baggage": ("baggage",),
    "bison": ("bison", "bisons"),
    "broccoli": ("broccoli", "broccolis"),
    "buffalo": ("buffaloes", "buffalos", "buffalo"),
    "bus": ("buses", "busses"),
    "calf": ("calves",),
    "cattle": ("cattle",),
    "child": ("children",),
    "children": ("children",),
    "fish": ("fish", "fishes"),
    "fowl": ("fowl", "fowls"),
    "goose": ("geese",),
    "half": ("halves",),
    "housewife": ("housewives",),
    "knife": ("knives",),
    "loaf": ("loaves",),
    "luggage": ("luggage",),
    "minibus": ("minibuses", "minibusses"),
    "mouse": ("mice",),
    "offspring": ("offspring",),
    "ox": ("oxen", "oxes"),
    "oxen": ("oxen",),
    "passerby": ("passersby",),
    "people": ("people", "peoples"),
    "person": ("persons", "people"),
    "pocketknife": ("pocketknives",),
    "police": ("police",),
    "scissors": ("scissors",),
    "sheep": ("sheep",),
    "skis": ("skis",),
    "trolleybus": ("trolleybuses",),
    "watercraft": ("watercraft",),
    "waterfowl": ("waterfowl",),
    "wife": ("wives",),
    "wolf": ("wolves",),
    "youth": ("youths", "youth"),
}
"""Plurals that no rule gives, the usual one first. Stripping endings, as published code does, loses most of these words."""

_NOT_OF_MAN = frozenset({"human", "german", "roman", "shaman", "talisman", "caiman"})
"""Words that end in "man" and do not form their plural as "man" does."""


def plurals(word: str) -> tuple[str, ...]:
    """Return the plurals of one word, the usual one first."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith("child"):
        return (word + "ren",)
    if word.endswith("man") and word not in _NOT_OF_MAN:
        return (word[:-3] + "men",)
    if word.endswith("men") and len(word) > 3:
        return (word,)
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return (word + "es",)
    if word.endswith("y") and len(word) > 1 and word[-2] not in "aeiou":
        return (word[:-1] + "ies",)
    return (word + "s",)


def plural(name: str) -> str:
    """Return the usual plural of a noun; of several words the head changes: the last one, or the one before "of"."""
    return _with_head(name, plurals(_head(name))[0])


def surface_forms(name: str) -> tuple[str, ...]:
    """Return a name and all its plurals; those of several words are also there joined by hyphens ("fire-hydrants")."""
    forms = [name, *(_with_head(name, form) for form in plurals(_head(name)))]
    return tuple(dict.fromkeys(joined for form in forms for joined in hyphenated(form)))


def hyphenated(name: str) -> tuple[str, ...]:
    """Return a name with its words joined by spaces and hyphens in every way; names with "of" only as they are."""
    words = name.split()
    if "of" in words:
        return (name,)
    joints = product(" -", repeat=len(words) - 1)
    return tuple("".join(part for pair in zip(words, (*joint, ""), strict=True) for part in pair) for joint in joints)


def word_forms(word: str) -> tuple[str, ...]:
    """Return one word and its plurals."""
    return tuple(dict.fromkeys([word, *plurals(word)]))


def _place_of_head(words: list[str]) -> int:
    return words.index("of") - 1 if "of" in words[1:] else len(words) - 1


def _head(name: str) -> str:
    words = name.split()
    return words[_place_of_head(words)]


def _with_head(name: str, head: str) -> str:
    words = name.split()
    words[_place_of_head(words)] = head
    return " ".join(words)
