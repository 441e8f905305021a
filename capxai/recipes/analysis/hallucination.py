"""Measures which numbers of an object word's explanation tell hallucinated words from true ones (method.md, section 4).

Differs from the published code: it takes the maximum of a repeated true word and the minimum of a repeated hallucinated one, which makes
any number look like a detector. Here every mention counts once, in both classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from capxai.errors import CorpusError
from capxai.evaluate.bootstrap import draws
from capxai.evaluate.detection import Labels
from capxai.recipes.analysis.experiment import Experiment, experiment
from capxai.recipes.analysis.hallucination_page import MOST_CASES, PAGE_FILE, write_page
from capxai.recipes.analysis.hallucination_report import REPORT_FILE, HallucinationReport, ObjectMentions, write
from capxai.recipes.analysis.hallucination_scores import score_groups, score_statistics
from capxai.recipes.analysis.hallucination_statistics import LEVELS, Level, NameWord, usable, word_statistics
from capxai.recipes.analysis.mentions import mentions_of
from capxai.recipes.analysis.settings import AnalysisConfig
from capxai.recipes.analysis.stream import Look
from capxai.types import SILENT, JsonObject, Reporter


@dataclass(frozen=True)
class HallucinationConfig(AnalysisConfig):
    """Settings of ``capxai analyze hallucination``: those of `AnalysisConfig`, and more.

    Attributes:
        level: Which maps of a method are measured. Without "pixels" nothing goes through the encoder, which is several times faster.
        name_word: The word of a name of several words that is explained: the first, with which the model decides, or the last.
        report: Also write a page of hallucinated words, each explained beside the same word where it was right; needs ``out``.
        cases: Hallucinated words on the page at most: those that the model was surest of.
    """

    level: tuple[Level, ...] = LEVELS
    name_word: NameWord = "first"
    report: bool = False
    cases: int = MOST_CASES

    VERB: ClassVar[str] = "analyze hallucination"
    REPORT: ClassVar[str] = REPORT_FILE

    def problems(self) -> list[str]:
        """Return what cannot be used, one line each."""
        found = super().problems()
        if not self.level:
            found.append("No level was named. Expected at least one.")
        elif self.method and not usable(self.method, self.level):
            found.append("guided-grad-cam has no regions. Add the level 'pixels', or choose another method.")
        if self.report and self.out is None:
            found.append("A page was asked for (report), but no folder for it. Name one with --out.")
        if self.cases < 1:
            found.append(f"cases is {self.cases}. Expected 1 or more.")
        return found

    def identity(self) -> JsonObject:
        """Return the settings that figures depend on; the page changes none."""
        return {name: value for name, value in super().identity().items() if name not in ("report", "cases")}


def run(config: HallucinationConfig, reporter: Reporter = SILENT) -> HallucinationReport:
    """Caption pictures, explain every object word with every method, and compare true words with hallucinated ones.

    Raises:
        CapxaiError: The model, the corpus or the device cannot be used, or there is a report already.
        CorpusError: No caption names an object.
        RelevanceError: There is no such method, or the model cannot give it.
    """
    with experiment(config, reporter, needs_objects=False) as work:
        names = usable(config.methods(), config.level)

        def measure(look: Look) -> list[JsonObject]:
            return measure_words(look, work, names, config)

        records = work.collect(measure, names if "pixels" in config.level else ())
        report = report_of(work, records, config)
        if report.message:
            work.reporter.warn(report.message)
        if config.out is not None:
            _write_page(config.out, work, records, config)
        if config.out is not None and work.group.main:
            write(config.out, report, config)
        work.finish()
    return report


def _write_page(out: Path, work: Experiment, records: Sequence[JsonObject], config: HallucinationConfig) -> None:
    """Write the page, if it was asked for, before the report that ends the run; else remove that of a report which is replaced."""
    if config.report:
        write_page(work, records, out, config.cases, config.name_word)
    elif work.group.main:
        (out / PAGE_FILE).unlink(missing_ok=True)


def measure_words(
    look: Look, work: Experiment, methods: Sequence[str], config: HallucinationConfig
) -> list[JsonObject]:
    """Return for each picture its "mentions": position, last, word, category, present, and statistics of each object word."""
    mentioned = mentions_of(look, work.lexicon, work.objects)
    found = word_statistics(look, mentioned, methods, work.options, config.level, name_word=config.name_word)
    records: list[JsonObject] = [{"mentions": []} for _ in look.pictures]
    for one, statistics in zip(mentioned, found, strict=True):
        records[one.row]["mentions"].append(
            {
                "position": one.place,
                "last": one.last,
                "word": one.text,
                "category": one.category,
                "present": one.present,
                "statistics": statistics,
            }
        )
    return records


def report_of(work: Experiment, records: Sequence[JsonObject], config: HallucinationConfig) -> HallucinationReport:
    """Score all statistics of the records.

    Raises:
        CorpusError: No caption names an object.
    """
    words = ObjectMentions.of(records)
    if not len(words):
        raise CorpusError(
            f"No caption of the {len(records)} pictures names an object. Expected captions with object words of the lexicon. Look at more "
            "pictures with --pictures 0, or choose another model, split or --set lexicon=FILE."
        )
    labels = Labels.of(words.present, words.pictures, words.categories)
    weights = draws(len(records), config.seed)
    with work.reporter.track("Scoring statistics", len(words.names)) as advance:
        statistics = score_statistics(words.names, words.table, labels, weights, advance)
    return HallucinationReport(
        model=work.name,
        corpus=work.corpus.name,
        split=work.split.name,
        pictures=len(records),
        silent_pictures=sum(not record["caption"] for record in records),
        words=words,
        labels=labels,
        statistics=statistics,
        groups=score_groups(statistics, words.names, words.table, labels, config.seed),
        weights=np.asarray(weights),
        provenance=work.provenance(),
    )
