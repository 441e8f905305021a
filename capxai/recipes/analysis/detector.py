"""Calibrates a detector of hallucinated words on some splits, and measures it on another."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from capxai.config import run_record
from capxai.data.corpus import Split
from capxai.errors import CapxaiError, CorpusError, unknown_choice
from capxai.evaluate.bootstrap import draws
from capxai.models.folder import bundled_folder
from capxai.recipes.analysis.detector_file import DETECTOR_FILE
from capxai.recipes.analysis.detector_fit import COMBINED, EVERYTHING, EVIDENCE, TOGETHER, Calibrated, Calibration
from capxai.recipes.analysis.detector_report import REPORT_FILE, DetectorReport, score, write
from capxai.recipes.analysis.detector_words import DetectorWords, measure_words
from capxai.recipes.analysis.experiment import Experiment, experiment
from capxai.recipes.analysis.settings import AnalysisConfig
from capxai.types import SILENT, JsonObject, Reporter

CALIBRATION_SPLITS = ("val", "robust-val")
_STEPS = "steps"


@dataclass(frozen=True)
class DetectorConfig(AnalysisConfig):
    """Settings of ``capxai analyze detector``: those of `AnalysisConfig`, and more.

    Attributes:
        calibrate: Splits to calibrate on; none for "val" and "robust-val", as far as the corpus has them.
        calibration_pictures: The first so many pictures of each; 0 takes all.
        groups: Groups of numbers that the detector reads, of `capxai.recipes.analysis.detector_features.GROUPS`, and "category".
        threshold: Least probability of being hallucinated at which a word is doubtful; None takes the one with the largest F1.
        install: Also put the detector beside the model, for ``capxai caption --flag``.
    """

    split: str = "robust"
    method: tuple[str, ...] = ("lrp",)
    calibrate: tuple[str, ...] = ()
    calibration_pictures: int = 0
    groups: tuple[str, ...] = EVIDENCE
    threshold: float | None = None
    install: bool = False

    VERB: ClassVar[str] = "analyze detector"
    REPORT: ClassVar[str] = REPORT_FILE

    def problems(self) -> list[str]:
        """Return what cannot be used, one line each."""
        found = super().problems()
        if self.split in self.calibrate:
            found.append(
                f"The split '{self.split}' is both calibrated on and measured. Expected others, or figures flatter. Choose another --split."
            )
        if len(set(self.calibrate)) < len(self.calibrate):
            found.append(f"A split is named twice to calibrate on ({', '.join(self.calibrate)}). Name each once.")
        found += [unknown_choice("group", name, EVERYTHING) for name in self.groups if name not in EVERYTHING]
        if not self.groups:
            found.append("No group of numbers was named. Expected at least one.")
        if self.calibration_pictures < 0:
            found.append(f"calibration_pictures is {self.calibration_pictures}. Expected 0 or more.")
        if self.threshold is not None and not 0 < self.threshold < 1:
            found.append(f"threshold is {self.threshold:g}. Expected a probability between 0 and 1, such as 0.5.")
        if self.method != ("lrp",):
            found.append("The detector reads relevance of 'lrp' alone. Leave method away.")
        return found

    def identity(self) -> JsonObject:
        """Return the settings that measured words depend on; what is done with them changes none."""
        later = ("calibrate", "calibration_pictures", "groups", "threshold", "install")
        return {name: value for name, value in super().identity().items() if name not in later}

    @property
    def folder(self) -> Path:
        """The folder of the model."""
        return bundled_folder() if self.model is None else self.model

    def refuse_occupied(self) -> None:
        """Refuse taken places before the work rather than after it.

        Raises:
            CapxaiError: There is a report, or a detector beside the model.
        """
        super().refuse_occupied()
        place = self.folder / DETECTOR_FILE
        if self.install and not self.force and place.exists():
            raise CapxaiError(
                f"'{place}' is there already, and it was kept. Expected a model without detector. Replace it with --force, or omit "
                "--install."
            )


def run(config: DetectorConfig, reporter: Reporter = SILENT) -> DetectorReport:
    """Measure the words of all splits, calibrate, and apply what was calibrated to the measured split.

    Raises:
        CapxaiError: The model, the corpus or the device cannot be used, or there is a report already.
        CorpusError: A calibration split is the measured one or is missing, or there are too few words of a class.
    """
    with experiment(config, reporter, needs_objects=False) as work:
        names = calibration_splits(config, work.corpus.splits)
        stages = [_stage(work, work.corpus.split(name)) for name in names]
        seen = [record for stage in stages for record in _collect(stage, "Calibrating")]
        hashes = (work.weights, work.lexicon.sha256)
        calibration = Calibration.of(DetectorWords.of(seen), config.seed, hashes, config.eps)
        fitted = _fit_all(calibration, config, reporter=work.reporter)
        records = _collect(replace(work, config=_quietly(work, "measured")), "Measuring")
        words = DetectorWords.of(records)
        if not len(words):
            raise CorpusError(
                f"No caption of the {len(records)} pictures names an object. Expected captions with object words of the lexicon. Look at "
                "more pictures with --pictures 0, or choose another model, split or --set lexicon=FILE."
            )
        provenance = {"calibrated_on": list(names), **_hashes(stages), **work.provenance()}
        report = _report(work, calibration, fitted, words, provenance)
        if report.message:
            work.reporter.warn(report.message)
        if work.group.main:
            _write(config, report)
    return report


def calibration_splits(config: DetectorConfig, there: Sequence[str]) -> tuple[str, ...]:
    """Return the splits to calibrate on.

    Raises:
        CorpusError: The corpus has none of the usual ones beside the measured split, and none was named.
    """
    usual = tuple(name for name in CALIBRATION_SPLITS if name in there and name != config.split)
    found = config.calibrate or usual
    if found:
        return found
    raise CorpusError(
        f"The corpus has no split to calibrate on: neither {' nor '.join(CALIBRATION_SPLITS)} is there beside '{config.split}', which is "
        f"measured. Expected another split. Name one of {', '.join(there)} with --calibrate."
    )


def _fit_all(calibration: Calibration, config: DetectorConfig, reporter: Reporter) -> dict[str, Calibrated]:
    """Calibrate each group alone, the detector itself, and what it is compared with."""
    wanted = {name: (name,) for name in EVERYTHING} | {TOGETHER: config.groups} | COMBINED
    found: dict[str, Calibrated] = {}
    with reporter.track("Fitting", len(wanted)) as advance:
        for name, groups in wanted.items():
            fitted = calibration.fit(groups, config.threshold)
            if fitted is not None:
                found[name] = fitted
            advance(1)
    if TOGETHER not in found:
        raise CorpusError(
            f"The model has none of the numbers of {', '.join(config.groups)}. Expected at least one group that it has. Choose others with "
            "--set groups=..."
        )
    return found


def _stage(work: Experiment, split: Split) -> Experiment:
    """Return the pass over a calibration split: an experiment with progress of its own."""
    config = work.config
    assert isinstance(config, DetectorConfig)
    return replace(work, config=replace(_quietly(work, split.name), pictures=config.calibration_pictures), split=split)


def _quietly(work: Experiment, name: str) -> AnalysisConfig:
    out = None if work.config.out is None else work.config.out / _STEPS / name
    return replace(work.config, out=out)


def _collect(work: Experiment, doing: str) -> list[JsonObject]:
    objects = work.objects
    return work.collect(lambda look: measure_words(look, work.lexicon, objects, work.options), (), doing)


def _hashes(stages: Sequence[Experiment]) -> JsonObject:
    return {"calibration_image_lists_sha256": {stage.split.name: stage.image_list for stage in stages}}


def _report(
    work: Experiment,
    calibration: Calibration,
    fitted: dict[str, Calibrated],
    words: DetectorWords,
    provenance: JsonObject,
) -> DetectorReport:
    config = work.config
    seen = calibration.words
    weights = draws(words.count, config.seed)
    calibrating = draws(seen.count, config.seed)
    with work.reporter.track("Scoring", len(fitted)) as advance:
        scores = {}
        for name, one in fitted.items():
            found = one.detector.probabilities(words)
            scores[name] = score(one, words, found, seen, (weights, calibrating))
            advance(1)
    details = {key: provenance[key] for key in ("calibrated_on", "calibration_image_lists_sha256")}
    record = run_record(config, verb=config.VERB, corpus=work.corpus.name, calibration_pictures=seen.count, **details)
    together = fitted[TOGETHER].detector
    figures = {"left_out": scores[TOGETHER].left_out_json(), work.split.name: scores[TOGETHER].to_json()}
    return DetectorReport(
        work.name,
        work.corpus.name,
        work.split.name,
        words,
        seen,
        replace(together, figures=figures, provenance=record),
        scores,
        weights,
        provenance,
    )


def _write(config: DetectorConfig, report: DetectorReport) -> None:
    from capxai.files import write_json_atomically

    if config.install:
        write_json_atomically(config.folder / DETECTOR_FILE, report.detector.to_json(), indent=1)
    if config.out is not None:
        write(config.out, report, config)
        shutil.rmtree(config.out / _STEPS, ignore_errors=True)
