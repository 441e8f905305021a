"""Measures captions, of a model or of a file, against what annotators say and see."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from capxai.errors import ConfigError
from capxai.recipes.evaluation_config import FREQUENT, EvaluateConfig
from capxai.recipes.evaluation_report import EVALUATION_FILE, EvaluateReport
from capxai.types import SILENT, Reporter

if TYPE_CHECKING:
    from capxai.evaluate.objects import Truth
    from capxai.recipes.evaluation_compare import Comparison
    from capxai.recipes.evaluation_scores import Asked, ObjectQuestion, Scores
    from capxai.recipes.evaluation_subject import Ground, Subject

__all__ = ["EVALUATION_FILE", "EvaluateConfig", "EvaluateReport", "run"]


def run(config: EvaluateConfig, reporter: Reporter = SILENT) -> EvaluateReport:
    """Measure captions; under torchrun the processes share the captioning, and the first one measures.

    Raises:
        ModelError: The model cannot be loaded, or cannot see pictures.
        CorpusError: Annotations or predictions cannot be read or do not fit each other, the split is unknown, or a picture has nothing to
            compare its caption with.
        ImageError: A picture cannot be read.
        DependencyError: The device is not there, or a metric that was asked for by name cannot run.
        CapxaiError: Outputs are there already, or cannot be written.
    """
    from capxai.recipes.evaluation_report import refuse_existing
    from capxai.recipes.evaluation_subject import captioned_subject, given_subject, open_model, read_ground

    if config.out is not None:
        refuse_existing(config.out, config.force)
    if config.predictions is not None:
        _refuse_processes()
        if config.device != "auto":
            reporter.note(f"The device '{config.device}' is not used: no model captions.")
        ground = read_ground(config, reporter)
        subject = given_subject(config.predictions, ground, reporter)
        return _measure(config, subject, _asked(config, ground, reporter), reporter)
    from capxai.recipes.device import choose_device
    from capxai.train.processes import processes

    with processes(choose_device(config.device)) as group:
        own = group.reporter(reporter)
        model = open_model(config, group.device, own)
        if not group.main:
            group.barrier()  # one process renders the built-in corpus before the others look for it
        ground = read_ground(config, own)
        if group.main:
            group.barrier()
        asked = _asked(config, ground, own)  # before captioning: what cannot be measured is refused at once
        subject = captioned_subject(config, model, ground, group, own)
        report = group.broadcast(_measure(config, subject, asked, reporter) if group.main else None)
    assert report is not None
    return report


def _refuse_processes() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "Several processes were started for captions from a file. Expected one, since nothing is captioned. Start capxai "
            "without torchrun."
        )


def _measure(config: EvaluateConfig, subject: Subject, asked: Asked, reporter: Reporter) -> EvaluateReport:
    """Measure the captions, compare them if that was asked for, and write the files."""
    from capxai.recipes.evaluation_provenance import provenance
    from capxai.recipes.evaluation_report import pictures_of, write_report
    from capxai.recipes.evaluation_scores import score

    pictures = subject.ground.pictures
    scores = score(subject.captions, pictures, asked, reporter)
    notes = [*_notes(subject), *scores.notes]
    for note in notes:
        reporter.warn(note)
    report = EvaluateReport(
        model=subject.name,
        corpus=subject.ground.corpus,
        split="" if config.files_given else pictures.name,
        overall=scores.overall(),
        images=pictures_of(subject.captions, pictures, scores),
        provenance=provenance(config, subject, scores),
        objects=scores.objects,
        frequent=scores.frequent,
        skipped=scores.skipped,
        notes=tuple(notes),
        comparison=_comparison(config, subject, asked, scores, reporter),
    )
    if config.out is not None:
        write_report(
            report, config.out, {picture.id: picture.path for picture in pictures.pictures} if config.page else None
        )
        reporter.note(f"Written: {config.out}.")
    return report


def _asked(config: EvaluateConfig, ground: Ground, reporter: Reporter) -> Asked:
    """Say what to measure, as far as there is something to compare with."""
    from capxai.errors import CorpusError
    from capxai.evaluate.bootstrap import draws
    from capxai.recipes.caption_metrics import MetricOptions
    from capxai.recipes.evaluation_scores import Asked
    from capxai.recipes.evaluation_truth import refuse_missing_references

    pictures = ground.pictures
    if not pictures.pictures:
        raise CorpusError(
            f"There is no picture of '{pictures.name}' to measure. Expected at least one. Choose another split or image list."
        )
    metrics = config.caption_metrics if config.captions is not None or not config.files_given else ()
    if metrics:
        refuse_missing_references(pictures, "Complete the caption file, or measure objects alone with --chair.")
    objects = _object_question(config, ground, reporter)
    options = MetricOptions(config.tokenizer, config.java_memory, config.java_seconds, config.spice_models)
    return Asked(metrics, options, objects, draws(len(pictures), config.seed, config.draws))


def _object_question(config: EvaluateConfig, ground: Ground, reporter: Reporter) -> ObjectQuestion | None:
    """Say what to ask about objects; None where nobody asks, or nobody does by name and there is nothing to compare with."""
    from capxai.errors import CorpusError
    from capxai.evaluate.lexicon import coco_lexicon
    from capxai.evaluate.lexicon_file import read_lexicon
    from capxai.recipes.evaluation_scores import ObjectQuestion
    from capxai.recipes.object_scores import available_truth, frequent_words, split_truths, unmentionable

    pictures = ground.pictures
    if not config.objects_asked:
        return None
    lexicon = coco_lexicon() if config.lexicon is None else read_lexicon(config.lexicon)
    categories = set(pictures.categories.values())
    if config.chair is None and categories and len(unmentionable(pictures, lexicon)) == len(categories):
        reporter.note("The lexicon has no word for any category of these pictures: objects are not measured.")
        return None
    truth = cast("Truth | None", config.truth) or available_truth(pictures)
    truths = split_truths(pictures, lexicon, truth)
    if not any(one.objects for one in truths):
        if config.chair is None:
            reporter.note("No picture has an object that the lexicon knows: objects are not measured.")
            return None
        raise CorpusError(
            f"None of the {len(pictures):,} pictures of '{pictures.name}' has an object in its ground truth ({truth}). Expected objects, "
            "for else every mention would be a hallucination. Check the annotation files, or leave --chair out."
        )
    frequent = None
    if config.frequent is not None:
        frequent = frequent_words(FREQUENT[config.frequent], ground.training, lexicon)
    return ObjectQuestion(lexicon, truth, truths, frequent)


def _notes(subject: Subject) -> list[str]:
    from capxai.data.vocabulary import tokenize
    from capxai.recipes.evaluation_truth import named

    wordless = [number for number, caption in subject.captions.items() if not tokenize(caption)]
    empty = [number for number in wordless if not subject.captions[number].strip()]
    notes = []
    if len(wordless) > len(empty):
        marks = [number for number in wordless if number not in set(empty)]
        notes.append(f"{len(marks):,} captions hold no word ({named(marks)}); they score 0 and name no object.")
    if empty:
        notes.append(
            f"{len(empty):,} captions are empty ({named(empty)}); they score 0 and name no object. Measuring them again from a file "
            "needs --allow-empty."
        )
    return notes


def _comparison(
    config: EvaluateConfig, subject: Subject, asked: Asked, scores: Scores, reporter: Reporter
) -> Comparison | None:
    """Measure the other system on the same pictures with the same draws."""
    from capxai.evaluate.predictions import hash_of_captions
    from capxai.recipes.evaluation_compare import Comparison, compare
    from capxai.recipes.evaluation_scores import score

    others = subject.ground.others
    if config.compare is None or others is None:
        return None
    other = score(others, subject.ground.pictures, asked, reporter)
    return Comparison(str(config.compare), hash_of_captions(others), compare(scores.figures, other.figures))
