"""``capxai eval``: how good captions are, of a model or of a file, and what they hallucinate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capxai.cli.options import Beam, ConfigFile, Corpus, Debug, Device, Force, Json, Quiet, Seed, Settings, Split
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from capxai.types import JsonObject

EXAMPLES = (
    "capxai eval --chair",
    "capxai eval --model runs/x --split robust --out scores",
    "capxai eval --predictions captions.json --captions captions_val2017.json --instances instances_val2017.json",
    "capxai eval --predictions ours.json --compare theirs.json --corpus coco --metrics bleu,cider --chair",
)

_PAIRS_SHOWN = 10
_NARROW = {"mentioned": "captions", "hallucinations": "false"}

_MODEL = "What is measured"
_TRUTH = "What it is compared with"
_FIGURES = "Figures"
_OUTPUT = "Output"

EvaluatedModel = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="DIR",
        help="Model folder.",
        show_default="the newest under runs/, or else the bundled model",
        rich_help_panel=_MODEL,
    ),
]
GivenPredictions = Annotated[
    Path | None,
    typer.Option(
        "--predictions",
        metavar="FILE",
        help="Captions of any system: COCO results, the input of CHAIR, or JSON lines.",
        show_default="the model's captions",
        rich_help_panel=_MODEL,
    ),
]
Features = Annotated[
    Path | None,
    typer.Option(
        "--features",
        metavar="FILE.h5",
        help="Stored features to caption from.",
        show_default="the pictures",
        rich_help_panel=_MODEL,
    ),
]
Captions = Annotated[
    Path | None,
    typer.Option(
        "--captions",
        metavar="FILE",
        help="References: a COCO caption file, instead of a corpus.",
        rich_help_panel=_TRUTH,
    ),
]
Instances = Annotated[
    Path | None,
    typer.Option(
        "--instances",
        metavar="FILE",
        help="Objects: a COCO instance file, instead of a corpus.",
        rich_help_panel=_TRUTH,
    ),
]
Pictures = Annotated[
    Path | None,
    typer.Option(
        "--pictures",
        metavar="DIR",
        help="Picture files that belong to --captions or --instances.",
        rich_help_panel=_TRUTH,
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        "--images", metavar="FILE", help="Measure only these image ids.", show_default="all", rich_help_panel=_TRUTH
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", min=1, help="Measure only the first so many pictures.", show_default="all", rich_help_panel=_TRUTH
    ),
]
Partial = Annotated[
    bool,
    typer.Option(
        "--partial", help="Measure only pictures that --predictions has a caption for.", rich_help_panel=_TRUTH
    ),
]
AllowEmpty = Annotated[
    bool,
    typer.Option(
        "--allow-empty", help="Take empty captions in --predictions for what they are.", rich_help_panel=_TRUTH
    ),
]
Chair = Annotated[
    bool | None,
    typer.Option(
        "--chair/--no-chair",
        help="Count objects that captions name and pictures do not show; alone, leave the caption metrics out.",
        show_default="where there are objects",
        rich_help_panel=_FIGURES,
    ),
]
Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="NAMES",
        help="bleu, meteor, rouge-l, cider, spice with commas between them; all; or none.",
        show_default="all",
        rich_help_panel=_FIGURES,
    ),
]
Lexicon = Annotated[
    Path | None,
    typer.Option(
        "--lexicon",
        metavar="FILE",
        help="Object words, in the format of the original CHAIR.",
        show_default="our own",
        rich_help_panel=_FIGURES,
    ),
]
Truth = Annotated[
    str | None,
    typer.Option(
        "--truth",
        metavar="instances|references|both",
        help="What is in a picture.",
        show_default="all that there is",
        rich_help_panel=_FIGURES,
    ),
]
Frequent = Annotated[
    str | None,
    typer.Option(
        "--frequent",
        metavar="paper-coco|paper-flickr|corpus",
        help="Macro precision, recall and F1 of frequent object words.",
        rich_help_panel=_FIGURES,
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(
        "--compare",
        metavar="FILE",
        help="Predictions for the same pictures: paired bootstrap.",
        rich_help_panel=_FIGURES,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder for the report's files.",
        show_default="nothing is written",
        rich_help_panel=_OUTPUT,
    ),
]
Html = Annotated[
    bool | None,
    typer.Option(
        "--html/--no-html",
        help="Write a page for the browser, eval.html.",
        show_default="with --out",
        rich_help_panel=_OUTPUT,
    ),
]


def evaluate(
    model: EvaluatedModel = None,
    predictions: GivenPredictions = None,
    features: Features = None,
    beam: Beam = None,
    corpus: Corpus = None,
    split: Split = None,
    captions: Captions = None,
    instances: Instances = None,
    pictures: Pictures = None,
    images: Images = None,
    limit: Limit = None,
    partial: Partial = False,
    allow_empty: AllowEmpty = False,
    chair: Chair = None,
    metrics: Metrics = None,
    lexicon: Lexicon = None,
    truth: Truth = None,
    frequent: Frequent = None,
    compare: Compare = None,
    out: Out = None,
    html: Html = None,
    force: Force = False,
    device: Device = None,
    seed: Seed = None,
    config: ConfigFile = None,
    settings: Settings = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure captions, of a model or of a file, against what annotators say and saw."""
    typed = {name: value for name, value in locals().items() if name not in _NO_SETTINGS}
    from capxai.config import resolve
    from capxai.recipes.evaluate import run
    from capxai.recipes.evaluation_config import EvaluateConfig

    typed["metrics"] = None if metrics is None else tuple(part.strip().lower() for part in metrics.split(","))
    typed |= {name: typed[name] or None for name in ("partial", "allow_empty", "force")}
    report = run(resolve(EvaluateConfig, config, settings or (), **typed), RichReporter(quiet)).to_json()
    if json:
        print_json(report)
    else:
        print_report(report)


_NO_SETTINGS = frozenset({"config", "settings", "json", "quiet", "debug"})


def print_report(report: JsonObject) -> None:
    """Write an evaluation to stdout: figures with intervals, what did not run, the comparison, categories and confusions."""
    from capxai.recipes.evaluation_titles import CAPTION_METRICS

    print_line(" ".join(part for part in (report["model"], "on", report["corpus"], report["split"]) if part))
    count = len(report["images"])
    print_line(f"{count:,} picture{'s'[: count != 1]}; intervals: 95 %, bootstrap over pictures")
    overall = report["overall"]
    _print_figures("Captions", {name: overall[name] for name in overall if name in CAPTION_METRICS})
    _print_figures("Objects", {name: overall[name] for name in overall if name not in CAPTION_METRICS})
    if report.get("skipped"):
        print_line("")
    for name, reason in report.get("skipped", {}).items():
        print_line(f"Not run: {name}. {reason}")
    if "comparison" in report:
        _print_comparison(report["comparison"])
    _print_scores("Categories (false: mentions where it is not)", report.get("categories") or {})
    frequent = report.get("frequent_words") or {}
    _print_scores(
        f"Frequent words ({frequent.get('list')}; pictures: with the word in a reference)", frequent.get("words") or {}
    )
    _print_pairs("Most frequent confusions: hallucinated, and there instead", report.get("confusions") or [])
    _print_pairs(
        "Most frequent co-occurrences: hallucinated, and rightly named beside it", report.get("cooccurrences") or []
    )


def _print_figures(title: str, figures: Mapping[str, JsonObject | None]) -> None:
    from capxai.recipes import evaluation_titles as titles

    if not figures:
        return
    rows = []
    for name, figure in figures.items():
        shown = titles.title(name)
        numbers = [titles.number(figure[key] if figure else None) for key in ("value", "low", "high")]
        rows.append((shown.name, *numbers, "lower is better" if shown.lower_is_better else ""))
    print_line("")
    print_table(title, ("", "value", "low", "high", ""), rows)


def _print_comparison(comparison: JsonObject) -> None:
    from capxai.recipes import evaluation_titles as titles

    keys = ("this", "other", "difference", "low", "high", "p")
    rows = [
        (titles.title(name).name, *(titles.number(figure[key]) for key in keys))
        for name, figure in comparison["overall"].items()
    ]
    print_line("")
    print_table(f"Compared with {comparison['other']}, paired", ("", *keys), rows)


def _print_scores(heading: str, scores: Mapping[str, JsonObject]) -> None:
    """Write a table with a row for each category or word; it fits a terminal of 80 columns."""
    from capxai.recipes.evaluation_titles import number

    if not scores:
        return
    columns = list(dict.fromkeys(column for score in scores.values() for column in score))
    rows = [
        (name, *(str(score[column]) if isinstance(score[column], int) else number(score[column]) for column in columns))
        for name, score in scores.items()
    ]
    print_line("")
    print_table(heading, ("", *(_NARROW.get(column, column) for column in columns)), rows)


def _print_pairs(title: str, pairs: Sequence[JsonObject]) -> None:
    """Write the first pairs of categories; base share is how often the other one is so, whatever is hallucinated."""
    from capxai.recipes.evaluation_titles import number

    if not pairs:
        return
    rows = [
        (pair["hallucinated"], pair["other"], str(pair["pictures"]), number(pair["share"]), number(pair["base_share"]))
        for pair in pairs[:_PAIRS_SHOWN]
    ]
    print_line("")
    print_table(title, ("", "", "pictures", "share", "base share"), rows, left=2)
