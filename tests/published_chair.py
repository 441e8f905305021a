"""CHAIR a second time, slowly and from its published rules alone (Rohrbach et al. 2018); independent of the package.

One thing is not as published: a word is made singular by trying every usual ending against the words that the procedure knows, as the
published singulariser turns "bus" into "bu".
"""

from __future__ import annotations

import re
from pathlib import Path

PAIRS = """motor bike/motor cycle/air plane/traffic light/street light/traffic signal/stop light/fire hydrant/stop sign/parking meter/
suit case/sports ball/baseball bat/baseball glove/tennis racket/wine glass/hot dog/cell phone/mobile phone/teddy bear/hair drier/
potted plant/laptop computer/home plate/train track"""
ANIMALS = "bird/cat/dog/horse/sheep/cow/elephant/bear/zebra/giraffe/animal/cub"
ENDINGS = [
    ("s", ""),
    ("ses", "s"),
    ("xes", "x"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("loes", "lo"),
    ("ies", "y"),
    ("ves", "f"),
    ("ves", "fe"),
    ("men", "man"),
    ("ren", ""),
]
OTHERS = {"mice": "mouse", "geese": "goose", "oxen": "ox"}


class PublishedChair:
    """The published procedure with a word list."""

    def __init__(self, word_list: Path) -> None:
        self.category: dict[str, str] = {}
        for line in word_list.read_text().splitlines():
            names = [name.strip().lower() for name in line.split(",")]
            for name in names:
                self.category[name] = names[0]
        self.pair = {pair.strip(): pair.strip() for pair in PAIRS.replace("\n", "").split("/")}
        for animal in ANIMALS.split("/"):
            self.pair[f"baby {animal}"] = animal
            self.pair[f"adult {animal}"] = animal
        self.pair |= {"passenger jet": "jet", "passenger train": "train", "bow tie": "tie", "toilet seat": "toilet"}
        self.known = {word for name in (*self.category, *self.pair) for word in name.split()}

    def singular(self, word: str) -> str:
        """Return the singular of a word that the procedure knows, or the word."""
        if word in self.known:
            return word
        tries = [word[: -len(end)] + new for end, new in ENDINGS if word.endswith(end)]
        return next((found for found in [*tries, OTHERS.get(word, "")] if found in self.known), word)

    def objects(self, caption: str) -> list[tuple[str, str]]:
        """Return (word, category) of each mention."""
        tokens = re.findall(r"\w+(?:-\w+)*|'\w+|[^\w\s]", caption.lower())
        tokens = [self.singular(token) for token in tokens]
        words = []
        while tokens:
            pair = " ".join(tokens[:2])
            if pair in self.pair:
                words.append(self.pair[pair])
                tokens = tokens[2:]
            else:
                words.append(tokens.pop(0))
        if "toilet" in words:
            words = [word for word in words if word != "seat"]
        return [(word, self.category[word]) for word in words if word in self.category]
