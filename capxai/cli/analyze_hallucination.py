"""``capxai analyze hallucination``: which numbers of an explanation tell hallucinated words from true ones."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from capxai.cli.analyze_options import Levels, Methods, Out, Pictures
from capxai.cli.options import ConfigFile, Corpus, Debug, Device, Force, Json, Model, Quiet, Seed, Settings, Split
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from capxai.evaluate.bootstrap import Estimate
    from capxai.recipes.analysis.hallucination_report import HallucinationReport
    from capxai.recipes.analysis.hallucination_scores import StatisticScore

EXAMPLES = (
    "capxai analyze hallucination --split robust-val --method lrp",
    "capxai analyze hallucination --model runs/x --split robust-val --pictures 0 --out hallucination",
    "capxai analyze hallucination --method lrp --report --out hallucination",
)
SHOWN = 10
"""Statistics in the table of the best."""

NameWord = Annotated[
    str | None,
    typer.Option(
        "--name-word",
        metavar="first|last",
        help="Which word of a name such as 'traffic light' is explained.",
        show_default="first",
    ),
]
Report = Annotated[
    bool,
    typer.Option(
        "--report",
        help="Also write hallucination.html into --out: each hallucinated word explained, beside one that was right. "
        "--set cases=N: how many.",
    ),
]


def hallucination(
    model: Model = None,
    corpus: Corpus = None,
    split: Split = None,
    method: Methods = None,
    level: Levels = None,
    name_word: NameWord = None,
    pictures: Pictures = None,
    out: Out = None,
    report: Report = False,
    device: Device = None,
    seed: Seed = None,
    config: ConfigFile = None,
    settings: Settings = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure which numbers of an object word's explanation tell hallucinated words from true ones.

    The model captions each picture; every method explains the words that name an object. A word is true if the picture
    has the object, by its instances and references, else it is hallucinated. Every statistic of the relevance, and of the
    step itself, is a detector of true words: the area under its ROC curve is 0.5 for chance. Within words, only words
    that name the same category are compared.
    """
    from capxai.config import resolve
    from capxai.recipes.analysis.hallucination import HallucinationConfig, run

    typed = {
        "model": model,
        "corpus": corpus,
        "split": split,
        "method": method or None,
        "level": level or None,
        "name_word": name_word,
        "pictures": pictures,
        "out": out,
        "report": report or None,
        "device": device,
        "seed": seed,
        "force": force or None,
    }
    found = run(resolve(HallucinationConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(found.to_json())
    else:
        _print_hallucination(found)


def _print_hallucination(report: HallucinationReport) -> None:
    silent = f"; the model says nothing about {report.silent_pictures} of them" if report.silent_pictures else ""
    print_line(f"{report.corpus}, {report.split}, {report.model}: {report.pictures} pictures{silent}.")
    print_line(
        f"{report.true_words} true and {report.hallucinated_words} hallucinated object words; {report.labels.pairs_within} pairs of a "
        "true and a hallucinated word name the same category."
    )
    if report.message:
        return
    best = [(name, *_areas(score)) for name, score in islice(report.statistics.items(), SHOWN)]
    print_line("")
    print_table(f"The best of {len(report.statistics)} statistics", ("statistic", "AUC", "within words"), best)
    print_line("")
    print_table("Each method", ("method", "chosen", "statistic", "AUC", "within words"), _rows(report), left=3)
    print_line(
        "In brackets: bootstrap intervals over pictures (95 %). AUC: true words are class 1; below 0.5, larger means hallucinated."
    )
    print_line(
        "in advance: before anything was measured. best of N: owes part of its area to being chosen. by halves: the best of each column "
        "on one half of the pictures, measured on the other."
    )


def _rows(report: HallucinationReport) -> list[tuple[str, ...]]:
    """Return the rows of each group: the statistic that was fixed in advance, the best ones of both areas, and what choosing is worth."""
    rows: list[tuple[str, ...]] = []
    for group, found in report.groups.items():
        kinds = {"in advance": found.fixed, f"best of {found.tried}": found.best}
        if found.best_within not in (None, found.best):
            kinds["best within words"] = found.best_within
        for chosen, name in kinds.items():
            score = report.statistics[name or found.fixed]  # there is a best one wherever there are areas
            shown = score.name.removeprefix(f"{group} ")
            rows.append(("" if rows and rows[-1][0] == group else group, chosen, shown, *_areas(score)))
        rows.append(("", "by halves", "", _number(found.chosen_auc), _number(found.chosen_within)))
    return rows


def _areas(score: StatisticScore) -> tuple[str, str]:
    return _interval(score.auc), _interval(score.within)


def _interval(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _number(found: float | None) -> str:
    return "-" if found is None else f"{found:.3f}"
