"""Hallucinated words as one HTML file without network: why the model said each, beside the same word where it was right."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path

from capxai.explain.colors import OPACITY, diverging_palette, levels, limits, overlay_palette, percent
from capxai.files import write_atomically
from capxai.recipes.analysis.experiment import Experiment
from capxai.recipes.analysis.hallucination_cases import (
    Case,
    ExplainedWord,
    Key,
    ObjectMention,
    choose_cases,
    explain_mentions,
    mentions_in,
)
from capxai.recipes.analysis.hallucination_cooccurrence import Companion, CoOccurrence, companions, count_together
from capxai.recipes.analysis.hallucination_pictures import pack_pictures
from capxai.recipes.analysis.hallucination_statistics import NameWord
from capxai.types import JsonObject

PAGE_FILE = "hallucination.html"
MOST_CASES = 500
TRAINING = "train"
"""The split whose references are counted."""
_OBJECTS_AT_MOST, _WORDS_AT_MOST = 4, 2  # of what spoke for a word
_NO_TRAINING = f"The corpus has no split '{TRAINING}', so nothing is said about what its captions name together."
_DIGITS = 5  # of relevance in the file


@dataclass(frozen=True)
class PageContent:
    """What the page shows.

    Attributes:
        about: Model, corpus, split and method, one text each.
        pictures: Pictures that were looked at.
        mentions: All object words of their captions.
        cases: The hallucinated words that are shown.
        left_out: Hallucinated words that are not shown.
        explained: The words of the cases.
        companions: Of each hallucinated word: what spoke for it, in logit units.
        together: Category and companion in the training references; None where there are none.
        objects: By image id: the categories that are there.
        paths: Picture files by image id.
        notes: What a reader should know.
    """

    about: Sequence[str]
    pictures: int
    mentions: Sequence[ObjectMention]
    cases: Sequence[Case]
    left_out: int = 0
    explained: Mapping[Key, ExplainedWord] = field(default_factory=dict)
    companions: Mapping[Key, Mapping[Companion, float]] = field(default_factory=dict)
    together: Mapping[tuple[str, Companion], CoOccurrence] | None = None
    objects: Mapping[int, Collection[str]] = field(default_factory=dict)
    paths: Mapping[int, Path] = field(default_factory=dict)
    notes: Sequence[str] = ()


def write_page(
    experiment: Experiment,
    records: Sequence[JsonObject],
    folder: Path,
    most: int = MOST_CASES,
    name_word: NameWord = "first",
) -> Path | None:
    """Explain the hallucinated words of the records and write ``hallucination.html``; under torchrun in every process.

    Args:
        experiment: Model, corpus and processes.
        records: One of each picture, with its object words (`mentions_in`).
        folder: Where the page goes.
        most: Most hallucinated words; the most probable ones are kept.
        name_word: The word of a name that is explained, where the name has several.

    Returns:
        The file; None in all processes but the main one.

    Raises:
        CapxaiError: A picture cannot be read, or the page cannot be written.
    """
    mentions = mentions_in(records, name_word)
    cases, left_out = choose_cases(mentions, most)
    sides = [side for case in cases for side in (case.word, case.twin) if side is not None]
    explained = explain_mentions(experiment, sides) if sides else {}
    if not experiment.group.main:
        return None
    cases = sorted(cases, key=lambda case: -explained[case.word.key].probability)
    found = {case.word.key: _companions(experiment, case.word, explained[case.word.key]) for case in cases}
    together = _count_in_training(experiment, cases, found)
    content = PageContent(
        about=(
            f"model {Path(experiment.name).name}",
            f"{experiment.corpus.name}, {experiment.split.name}",
            "method lrp",
        ),
        pictures=len(experiment.pictures),
        mentions=mentions,
        cases=cases,
        left_out=left_out,
        explained=explained,
        companions=found,
        together=together,
        objects=experiment.objects,
        paths={picture.id: picture.path for picture in experiment.pictures},
        notes=[] if together is not None or not cases else [_NO_TRAINING],
    )
    path = folder / PAGE_FILE
    write_atomically(path, render_page(content))
    return path


def _companions(experiment: Experiment, word: ObjectMention, why: ExplainedWord) -> dict[Companion, float]:
    """Return the strongest objects and other words, but not the category itself, which a caption may name twice."""
    relevance = dict(enumerate(why.inputs[1:]))  # without <start>
    found = companions(word.caption, word.position, relevance, experiment.lexicon)
    objects = [one for one in found if one.is_category and one.name != word.category][:_OBJECTS_AT_MOST]
    words = [one for one in found if not one.is_category][:_WORDS_AT_MOST]
    return {one: value for one, value in found.items() if one in objects or one in words}


def _count_in_training(
    experiment: Experiment, cases: Sequence[Case], found: Mapping[Key, Mapping[Companion, float]]
) -> dict[tuple[str, Companion], CoOccurrence] | None:
    if TRAINING not in experiment.corpus.splits or not cases:
        return None
    split = experiment.split if experiment.split.name == TRAINING else experiment.corpus.split(TRAINING)
    references = (text for picture in split.pictures for text in split.captions[picture.id])
    pairs = {(case.word.category, companion) for case in cases for companion in found[case.word.key]}
    return count_together(references, pairs, experiment.lexicon)


def render_page(content: PageContent) -> str:
    """Write the page.

    Returns:
        HTML with style, script, data and pictures inside. Every text from outside is escaped.
    """
    data, unshown = _data(content)
    notes = [*content.notes, *_left_out(content.left_out, unshown)]
    fields = {
        "title": escape(f"Hallucinated words - {content.about[0]}"),
        "about": escape(" · ".join([*content.about, f"{content.pictures:,} pictures"])),
        "summary": _summary(content),
        "notes": "\n".join(f'<p class="note" role="note">{escape(note)}</p>' for note in notes),
        "shown": "" if content.cases else "hidden",
        "gradient": ", ".join("#{:02x}{:02x}{:02x}".format(*map(int, color)) for color in diverging_palette()[::6]),
        "options": _category_options(content),
        "data": json.dumps(data, allow_nan=False, separators=(",", ":"))
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026"),
    }
    template = files("capxai.recipes.analysis").joinpath("hallucination_page.html").read_text(encoding="utf-8")
    return re.sub(r"@@([a-z-]+)@@", lambda found: fields[found[1]], template)


def _left_out(words: int, pictures: int) -> list[str]:
    notes = []
    if words:
        notes.append(
            f"{words:,} further hallucinated words, which the model was less sure of, are left out of this page."
        )
    if pictures:
        notes.append(
            f"{pictures:,} pictures are not shown: their files cannot be read, or this file would grow too large."
        )
    return notes


def _summary(content: PageContent) -> str:
    """Say in one sentence how many object words are hallucinated."""
    words, false = len(content.mentions), sum(not one.present for one in content.mentions)
    if not words:
        return f"No caption of the {content.pictures:,} pictures names an object, so there is no word to look at."
    if not false:
        return f"No hallucinated word: each of the {words:,} object words names something that is in its picture."
    share = percent(false / words, sign=False)
    return f"{false:,} of {words:,} object words ({share}) name something that is not in the picture."


def _category_options(content: PageContent) -> str:
    """List the categories of the cases, the most frequent first."""
    shown = Counter(case.word.category for case in content.cases)
    said = Counter(one.category for one in content.mentions)
    false = Counter(one.category for one in content.mentions if not one.present)
    ordered = sorted(shown, key=lambda name: (-shown[name], name))
    return "".join(
        f'<option value="{escape(name)}">{escape(name)} ({false[name]:,} false of {said[name]:,})</option>'
        for name in ordered
    )


def _data(content: PageContent) -> tuple[JsonObject, int]:
    """Gather what the script needs, and count the pictures that could not be packed."""
    sides = [side for case in content.cases for side in (case.word, case.twin) if side is not None]
    ids = dict.fromkeys(side.image_id for side in sides)
    packed = pack_pictures({number: content.paths[number] for number in ids if number in content.paths})
    pictures = {
        str(number): {
            "at": packed.places.get(number),
            "name": content.paths[number].name if number in content.paths else "",
            "objects": sorted(content.objects.get(number, ())),
        }
        for number in ids
    }
    data: JsonObject = {
        "palette": base64.b64encode(overlay_palette().tobytes()).decode("ascii"),
        "colors": base64.b64encode(diverging_palette().tobytes()).decode("ascii"),
        "opacity": OPACITY,
        "images": packed.uris,
        "pictures": pictures,
        "cases": [_case(content, case) for case in content.cases],
        "training": content.together is not None,
    }
    return data, len(ids) - len(packed.places)


def _case(content: PageContent, case: Case) -> JsonObject:
    word = case.word
    return {
        "category": word.category,
        "word": _side(word, content.explained[word.key]),
        "twin": None if case.twin is None else _side(case.twin, content.explained[case.twin.key]),
        "companions": [
            {
                "name": companion.name,
                "object": companion.is_category,
                "relevance": _short(value),
                **({} if content.together is None else content.together[word.category, companion].to_json()),
            }
            for companion, value in content.companions.get(word.key, {}).items()
        ],
    }


def _side(word: ObjectMention, why: ExplainedWord) -> JsonObject:
    limit = float(limits(why.heat[None], "word")[0])
    return {
        "picture": str(word.image_id),
        "words": word.caption.split(),
        "at": word.position,
        "last": word.last,
        "text": word.word,
        "probability": _short(why.probability),
        "logit": _short(why.logit),
        "inputs": [_short(value) for value in why.inputs],
        "parts": {name: _short(value) for name, value in why.parts.items()},
        "heat": base64.b64encode(levels(why.heat, limit).tobytes()).decode("ascii"),
        "size": list(why.heat.shape),
        "limit": _short(limit),
        "lies": [[name, round(share, 4), round(area, 4)] for name, (share, area) in why.lies_on.items()],
    }


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
