"""Measures whether the relevance of object words lies on the objects: the planted truth of `scenes`, or any corpus with masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

from torch import Tensor

from capxai.evaluate.correctness import Placement, place, score_methods
from capxai.explain.attribution import Readings
from capxai.explain.methods import Maps, upsample
from capxai.recipes.analysis.correctness_report import REGIONS, REPORT_FILE, CorrectnessReport, write
from capxai.recipes.analysis.experiment import Experiment, experiment
from capxai.recipes.analysis.mentions import Mentioned, mentions_of
from capxai.recipes.analysis.settings import AnalysisConfig
from capxai.recipes.analysis.stream import Look
from capxai.recipes.object_words import ObjectArea, ObjectWord, object_area, seen_categories
from capxai.types import SILENT, FloatArray, JsonObject, Reporter

CONTROLS = ("random", "attention")
"""What a method must beat to be worth its name."""

Level = Literal["pixels", "regions"]


@dataclass(frozen=True)
class CorrectnessConfig(AnalysisConfig):
    """Settings of ``capxai analyze correctness``: those of `AnalysisConfig`, and one more.

    Attributes:
        level: "pixels" scores pixel relevance; "regions" scores the relevance of the regions, spread bilinearly over the pixels.
    """

    level: tuple[Level, ...] = ("pixels", "regions")

    VERB: ClassVar[str] = "analyze correctness"
    REPORT: ClassVar[str] = REPORT_FILE

    def problems(self) -> list[str]:
        """Return what cannot be used, one line each."""
        return super().problems() + ([] if self.level else ["No level was named. Expected at least one."])


def run(config: CorrectnessConfig, reporter: Reporter = SILENT) -> CorrectnessReport:
    """Caption pictures, explain every true object word with every method, and compare the maps with the objects.

    Raises:
        CapxaiError: The model, the corpus or the device cannot be used, or there is a report already.
        CorpusError: The split has no instances, or no caption names an object that is there.
        RelevanceError: There is no such method, or the model cannot give it.
    """
    with experiment(config, reporter) as work:
        names = config.methods()

        def measure(look: Look) -> list[JsonObject]:
            return _measure(look, work, names, config.level)

        report = _report(work, work.collect(measure, names))
        if config.out is not None and work.group.main:
            write(config.out, report, config)
        work.finish()
    return report


def _measure(look: Look, work: Experiment, names: Sequence[str], levels: Sequence[Level]) -> list[JsonObject]:
    """Return for each picture its measured words, and how many were left out because their object cannot be seen."""
    there = {picture.id: seen_categories(work.split, picture, work.lexicon) for picture in look.pictures}
    said = [mention for mention in mentions_of(look, work.lexicon, there) if mention.present]
    areas = [_area(look, work, mention) for mention in said]
    found = [(mention, area) for mention, area in zip(said, areas, strict=True) if area is not None]
    placements = _place(look, work, found, names, levels) if found else []
    records: list[JsonObject] = [{"words": [], "unseen": 0} for _ in look.pictures]
    for mention, area in zip(said, areas, strict=True):
        records[mention.row]["unseen"] += area is None
    for (mention, _), each in zip(found, placements, strict=True):
        word = mention.text.rsplit(" ", 1)[-1]
        records[mention.row]["words"].append(
            {"position": mention.last, "word": word, "category": mention.category, "placements": each}
        )
    return records


def _area(look: Look, work: Experiment, mention: Mentioned) -> ObjectArea | None:
    size = work.model.preprocessing.image_size
    return object_area(work.split, look.pictures[mention.row], mention.category, size, work.lexicon)


def _place(
    look: Look,
    work: Experiment,
    found: Sequence[tuple[Mentioned, ObjectArea]],
    names: Sequence[str],
    levels: Sequence[Level],
) -> list[dict[str, JsonObject]]:
    """Explain words with every method and compare each map with its object: for each word, a placement by the name of a row."""
    words = look.words([mention.row for mention, _ in found], [mention.last for mention, _ in found])
    placements: list[dict[str, JsonObject]] = [{} for _ in found]
    for method, maps in look.maps(words, names, work.options):
        for name, relevance in _rows(look.readings, method, maps, levels):
            for each, one, (_, area) in zip(placements, relevance, found, strict=True):
                each[name] = asdict(place(one, *area))
    return placements


def _rows(readings: Readings, method: str, maps: Maps, levels: Sequence[Level]) -> Iterator[tuple[str, FloatArray]]:
    """Return the maps of a method to score: the name of a row of the report, and (W, H, W).

    A method whose pixels are nothing but its regions, spread, has one row.
    """
    if maps.pixels is not None and ("pixels" in levels or maps.spread):
        yield method, _array(maps.pixels)
    if maps.regions is not None and "regions" in levels and not maps.spread:
        spread = upsample(readings, maps.regions)
        if spread is not None:
            yield method + REGIONS, _array(spread)


def _array(maps: Tensor) -> FloatArray:
    found: FloatArray = maps.detach().cpu().numpy()
    return found


def _report(work: Experiment, records: Sequence[JsonObject]) -> CorrectnessReport:
    words: list[ObjectWord] = []
    placements: dict[str, list[Placement]] = {}
    for record in records:
        for one in record.get("words", ()):
            words.append(
                ObjectWord(record["image_id"], record["caption"], one["position"], one["word"], one["category"])
            )
            for name, values in one["placements"].items():
                placements.setdefault(name, []).append(_placement(values))
    return CorrectnessReport(
        model=work.name,
        corpus=work.corpus.name,
        split=work.split.name,
        pictures=len(records),
        silent_pictures=sum(not record["caption"] for record in records),
        pictures_with_words=len({word.image_id for word in words}),
        words=tuple(words),
        unseen_words=sum(record.get("unseen", 0) for record in records),
        methods=score_methods([word.image_id for word in words], placements, CONTROLS, work.config.seed),
        placements={key: tuple(values) for key, values in placements.items()},
        provenance=work.provenance(),
    )


def _placement(values: JsonObject) -> Placement:
    return Placement(**{**values, "box_shares": tuple(values["box_shares"])})
