"""Calibrates the veto of ``capxai caption --grounded`` on one split, and measures on another what it changes, beside its controls.

Three passes over pictures: the calibration split for thresholds; the measured split plainly and with the vetoes; and once more by lot, at
the rate at which the veto hit the object words of the plain captions.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from capxai.config import run_record
from capxai.data.corpus import Split
from capxai.errors import CapxaiError, CorpusError, unknown_choice
from capxai.finetune.inference_weights import EPS
from capxai.models.folder import bundled_folder
from capxai.recipes.analysis.experiment import Experiment, experiment, refuse_unfit
from capxai.recipes.analysis.grounding_measure import (
    calibrated,
    decoded_again,
    mention_values,
    object_ids,
    veto_rate,
)
from capxai.recipes.analysis.grounding_report import REPORT_FILE, GroundingReport, report_of, write
from capxai.recipes.analysis.settings import AnalysisConfig
from capxai.recipes.analysis.stream import Look
from capxai.recipes.grounding import GROUNDING_FILE, Grounding
from capxai.recipes.grounding_veto import MEASURES, drawn_veto, grounded_veto
from capxai.recipes.study_figures import SplitJudge
from capxai.types import SILENT, JsonObject, Reporter

PLAIN, CONTROL, BY_LOT = "plain", "probability", "random"
_STEPS = "steps"
_LONGEST = 20


@dataclass(frozen=True)
class GroundingConfig(AnalysisConfig):
    """Settings of ``capxai analyze grounding``: those of `AnalysisConfig`, and more.

    Attributes:
        calibrate: The split whose true mentions give the thresholds; must not be the measured one.
        calibration_pictures: The first so many pictures of it; 0 takes all.
        measure: What is compared with the thresholds, a name in `capxai.recipes.grounding_veto.MEASURES`.
        quantile: Share of a category's true mentions that lie under its threshold.
        install: Also put the thresholds beside the model, for ``capxai caption --grounded``.
    """

    method: tuple[str, ...] = ("lrp",)
    calibrate: str = "val"
    calibration_pictures: int = 0
    measure: str = "context"
    quantile: float = 0.1
    install: bool = False

    VERB: ClassVar[str] = "analyze grounding"
    REPORT: ClassVar[str] = REPORT_FILE

    def problems(self) -> list[str]:
        """Return what cannot be used, one line each."""
        found = super().problems()
        if self.calibrate == self.split:
            found.append(
                f"The split '{self.split}' is both calibrated on and measured. Expected two, or figures flatter. Choose another --split."
            )
        if not 0 < self.quantile < 1:
            found.append(f"quantile is {self.quantile:g}. Expected a share between 0 and 1, such as 0.1.")
        if self.measure not in MEASURES:
            found.append(unknown_choice("measure", self.measure, MEASURES))
        if self.calibration_pictures < 0:
            found.append(f"calibration_pictures is {self.calibration_pictures}. Expected 0 or more.")
        if self.eps != EPS or self.method != ("lrp",):
            found.append(f"The veto has the rule of LRP inference, lrp with eps {EPS:g}. Leave method and eps away.")
        return found

    @property
    def folder(self) -> Path:
        """The folder of the model."""
        return bundled_folder() if self.model is None else self.model

    def refuse_occupied(self) -> None:
        """Refuse taken places before the work rather than after it.

        Raises:
            CapxaiError: There is a report, or thresholds beside the model.
        """
        super().refuse_occupied()
        place = self.folder / GROUNDING_FILE
        if self.install and not self.force and place.exists():
            raise CapxaiError(
                f"'{place}' is there already, and it was kept. Expected a model without thresholds. Replace them with --force, or omit "
                "--install."
            )


def run(config: GroundingConfig, reporter: Reporter = SILENT) -> GroundingReport:
    """Calibrate, decode again with the vetoes, and measure.

    Raises:
        CapxaiError: The model, the corpus or the device cannot be used, or there is a report already.
        CorpusError: A split has no objects or references, or no caption of the calibration split names an object that is there.
        ConfigError: No word of the model names an object.
    """
    with experiment(config, reporter) as work:
        judge = replace(SplitJudge.of(_first(work)), lexicon=work.lexicon)
        words = object_ids(work)
        calibration = _stage(work, "calibration", work.corpus.split(config.calibrate), config.calibration_pictures)
        refuse_unfit(calibration.split, needs_objects=True)
        seen = calibration.collect(lambda look: mention_values(look, calibration, words), (), "Calibrating")
        grounding = _grounding(work, calibration, seen, config.measure)
        vetoes = {config.measure: grounding}
        if config.measure != CONTROL:
            vetoes[CONTROL] = _grounding(work, calibration, seen, CONTROL)
        records = _stage(work, "plain").collect(lambda look: _look_twice(look, work, words, vetoes), (), "Captioning")
        rates = {name: veto_rate(records, found) for name, found in vetoes.items()}
        by_lot = _by_lot(_stage(work, BY_LOT), words, rates[config.measure])
        captions = {PLAIN: {one["image_id"]: one["caption"] for one in records}}
        captions |= {name: _captions(records, name) for name in vetoes} | {BY_LOT: _captions(by_lot, BY_LOT)}
        report = report_of(work, grounding, judge, captions, rates)
        if work.group.main:
            _write(config, report, captions)
    return report


def _first(work: Experiment) -> Split:
    """Cut the split to the pictures that are looked at."""
    pictures = work.pictures
    return replace(
        work.split, pictures=pictures, captions={picture.id: work.split.captions[picture.id] for picture in pictures}
    )


def _stage(work: Experiment, name: str, split: Split | None = None, pictures: int | None = None) -> Experiment:
    """Return one of the passes: an experiment with progress of its own."""
    config = work.config
    out = None if config.out is None else config.out / _STEPS / name
    chosen = work.split if split is None else split
    count = config.pictures if pictures is None else pictures
    return replace(work, config=replace(config, out=out, pictures=count), split=chosen)


def _grounding(work: Experiment, calibration: Experiment, records: Sequence[JsonObject], measure: str) -> Grounding:
    config = work.config
    assert isinstance(config, GroundingConfig)
    pooled, thresholds, examples = calibrated(records, measure, config.quantile)
    if not examples:
        raise CorpusError(
            f"No caption of the {len(records)} pictures of the split '{config.calibrate}' names an object that is there. Expected true "
            "mentions, which thresholds are taken from. Calibrate on another split, or train the model longer."
        )
    provenance = run_record(
        config,
        verb=config.VERB,
        corpus=work.corpus.name,
        split=config.calibrate,
        pictures=len(records),
        image_list_sha256=calibration.image_list,
    )
    return Grounding(
        work.weights, work.lexicon.sha256, measure, config.quantile, pooled, thresholds, examples, provenance
    )


def _look_twice(look: Look, work: Experiment, words: Tensor, vetoes: Mapping[str, Grounding]) -> list[JsonObject]:
    """Return the mentions of the plain captions, and the captions with each veto."""
    model = work.model
    found = mention_values(look, work, words)
    for name, grounding in vetoes.items():
        veto = grounded_veto(model.decoder.word_head, model.vocabulary, work.lexicon, grounding)
        for record, caption in zip(found, decoded_again(look, veto, work.config.beam), strict=True):
            record.setdefault("captions", {})[name] = caption
    return found


def _by_lot(work: Experiment, words: Tensor, rate: float) -> list[JsonObject]:
    def measure(look: Look) -> list[JsonObject]:
        veto = drawn_veto(words, rate, [work.config.seed + picture.id for picture in look.pictures], _LONGEST)
        return [{"captions": {BY_LOT: caption}} for caption in decoded_again(look, veto, work.config.beam)]

    return work.collect(measure, (), "Captioning by lot")


def _captions(records: Sequence[JsonObject], name: str) -> dict[int, str]:
    """Return the captions of one veto; a picture about which the model says nothing plainly keeps its empty caption."""
    return {one["image_id"]: one.get("captions", {}).get(name, "") for one in records}


def _write(config: GroundingConfig, report: GroundingReport, captions: Mapping[str, Mapping[int, str]]) -> None:
    from capxai.files import write_json_atomically

    if config.install:
        write_json_atomically(config.folder / GROUNDING_FILE, report.grounding.to_json())
    if config.out is not None:
        write(config.out, report, captions, config)
        shutil.rmtree(config.out / _STEPS, ignore_errors=True)
