"""What `capxai bench hallucination` times: pictures explained one by one, and the same pictures in the stream of the experiments.

All begin with the file of a picture, which is decoded, encoded and captioned, and carry words back to the pixels. What is measured about
words is what ``capxai analyze hallucination`` measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from capxai.data.annotations import Picture
from capxai.explain.explainer import explain
from capxai.recipes.analysis.experiment import Experiment, experiment
from capxai.recipes.analysis.hallucination_statistics import word_statistics
from capxai.recipes.analysis.mentions import Mentioned, mentions_of
from capxai.recipes.analysis.settings import AnalysisConfig
from capxai.recipes.analysis.stream import Look
from capxai.recipes.bench_planted import CAPTION, Place
from capxai.types import JsonObject, SilentReporter

EXPLAIN = "explain"
GIVEN = "explain, caption given"
ALL_WORDS = "stream, all words"
OBJECT_WORDS = "stream, object words"
SUBJECTS = (EXPLAIN, GIVEN, ALL_WORDS, OBJECT_WORDS)

Choose = Callable[[Look], list[Mentioned]]


@dataclass(frozen=True)
class Stream:
    """The stream of one experiment, a few pictures at a time.

    Attributes:
        experiment: Model and corpus.
        method: Name of the method.
        out: A folder; every stretch of the stream keeps what is done in a folder of its own there, as the verb does.
        numbers: Numbers of the stretches.
    """

    experiment: Experiment
    method: str
    out: Path
    numbers: Iterator[int]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures."""
        return self.experiment.pictures

    def run(self, name: str, pictures: Sequence[Picture]) -> list[JsonObject]:
        """Take pictures through a subject; of the streams, return what was measured of each picture."""
        if name in (EXPLAIN, GIVEN):
            for picture in pictures:
                explain(self.experiment.model, picture.path, self.method, CAPTION if name == GIVEN else None)
            return []
        return self._collect(every_word if name == ALL_WORDS else self._object_words, pictures)

    def _object_words(self, look: Look) -> list[Mentioned]:
        return mentions_of(look, self.experiment.lexicon, self.experiment.objects)

    def _collect(self, choose: Choose, pictures: Sequence[Picture]) -> list[JsonObject]:
        whole = self.experiment
        config = replace(whole.config, out=self.out / str(next(self.numbers)))
        stretch = replace(whole, config=config, split=replace(whole.split, pictures=tuple(pictures)))

        def measure(look: Look) -> list[JsonObject]:
            mentioned = choose(look)
            found = word_statistics(look, mentioned, (self.method,), whole.options)
            records: list[JsonObject] = [{"words": []} for _ in look.pictures]
            for mention, one in zip(mentioned, found, strict=True):
                records[mention.row]["words"].append(one)
            return records

        records = stretch.collect(measure, (self.method,))
        stretch.finish()
        return records


def every_word(look: Look) -> list[Mentioned]:
    """Take every word of every caption for an object word."""
    words = look.readings.all_words()
    vocabulary = look.readings.model.vocabulary.words
    found = zip(words.rows.tolist(), words.places.tolist(), words.tokens.tolist(), strict=True)
    return [
        Mentioned(row, place, place, vocabulary[token], vocabulary[token], place % 2 == 0)
        for row, place, token in found
    ]


@contextmanager
def stream(place: Place, method: str, threads: int) -> Iterator[Stream]:
    """Open the stream of a planted model and its corpus."""
    config = AnalysisConfig(
        model=place.model, corpus=place.corpus, method=(method,), pictures=0, device="cpu", threads=threads
    )
    with experiment(config) as found:
        yield Stream(found, method, place.folder / "out", count())


class Watch(SilentReporter):
    """A reporter that calls a function with the number of pictures that are done, whenever some are done.

    Args:
        look: The function.
    """

    def __init__(self, look: Callable[[int], None]) -> None:
        self._look = look

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Count what is done."""
        done = 0

        def advance(amount: int) -> None:
            nonlocal done
            done += amount
            self._look(done)

        yield advance
