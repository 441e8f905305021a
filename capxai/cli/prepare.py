"""``capxai prepare``: make a corpus folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capxai.cli.guard import guarded
from capxai.cli.options import ConfigFile, Debug, Force, Json, Quiet, Seed, Settings, examples
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from capxai.recipes.prepare_corpus import Comparison, CorpusReport

EXAMPLES = ("capxai prepare scenes --out scenes --size 5000 --seed 0",)
COCO_EXAMPLES = (
    "capxai prepare coco --root /data/coco --out coco",
    "capxai prepare coco --root /data/coco --robust-split split_robust_coco.json --out coco-robust",
    "capxai prepare coco --captions train=a.json --captions val=b.json --images train=pictures/a --images val=pictures/b",
)
FLICKR30K_EXAMPLES = (
    "capxai prepare flickr30k --karpathy dataset_flickr30k.json --images flickr30k-images --out flickr30k",
)
KARPATHY_EXAMPLES = (
    "capxai prepare karpathy --karpathy dataset_coco.json --images /data/coco "
    "--instances /data/coco/annotations/instances_train2014.json "
    "--instances /data/coco/annotations/instances_val2014.json --out coco-karpathy",
)

Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The corpus folder to make.", show_default="scenes")
]
CocoOut = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The corpus folder to make.", show_default="coco")
]
Flickr30kOut = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The corpus folder to make.", show_default="flickr30k")
]
KarpathyOut = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The corpus folder to make.", show_default="the data set's name"),
]
Size = Annotated[
    int | None, typer.Option("--size", metavar="N", help="Number of training pictures.", show_default="5000")
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        metavar="DIR",
        help="A folder as COCO's archives unpack: annotations, and folders of pictures such as train2017 beside it.",
        show_default=False,
    ),
]
Captions = Annotated[
    list[str] | None,
    typer.Option("--captions", metavar="NAME=FILE", help="A caption file in COCO format; may be repeated."),
]
Instances = Annotated[
    list[str] | None,
    typer.Option("--instances", metavar="[NAME=]FILE", help="An instance file in COCO format; may be repeated."),
]
Images = Annotated[
    list[str] | None,
    typer.Option("--images", metavar="[NAME=]DIR", help="The pictures of a caption file, or of all; may be repeated."),
]
PictureFolder = Annotated[
    Path | None, typer.Option("--images", metavar="DIR", help="Folder of the pictures.", show_default=False)
]
Karpathy = Annotated[
    Path | None, typer.Option("--karpathy", metavar="FILE", help="Karpathy's dataset_*.json.", show_default=False)
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="MODE",
        help="auto, paper (COCO 2017 as 110,000 / 5,000 / 5,000), official (each file a split) or halved (the val file cut into "
        "val and test).",
        show_default="auto",
    ),
]
RobustSplit = Annotated[
    Path | None,
    typer.Option(
        "--robust-split", metavar="FILE", help="Divide COCO 2014 by a file with train_id, val_id and test_id."
    ),
]
Rest = Annotated[
    str | None,
    typer.Option(
        "--rest",
        metavar="leave-out|train|val",
        help="Where the 3,287 pictures go that --split paper leaves over.",
        show_default="leave-out",
    ),
]
Restval = Annotated[
    str | None,
    typer.Option(
        "--restval", metavar="train|leave-out", help="What the pictures of COCO's restval are.", show_default="train"
    ),
]
MinimumCount = Annotated[
    int | None,
    typer.Option(
        "--minimum-count",
        metavar="N",
        help="Words seen N times or more in the training captions make the vocabulary.",
        show_default="4 for COCO, else 3",
    ),
]
Tokens = Annotated[
    str | None,
    typer.Option(
        "--tokens",
        metavar="capxai|published",
        help="How captions become words; published: as the method's authors had them, to compare the vocabulary's size.",
        show_default="capxai",
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out what cannot be used, and count it, where it is an error else.")
]
CheckPictures = Annotated[
    bool, typer.Option("--check-pictures", help="Decode all pictures, so that damaged files are found.")
]

ALL_EXAMPLES = (*EXAMPLES, COCO_EXAMPLES[0], *FLICKR30K_EXAMPLES)

app = typer.Typer(no_args_is_help=True, help="Make a corpus folder in COCO format.", epilog=examples(ALL_EXAMPLES))


@app.callback()
def corpora() -> None:
    """Make a corpus folder in COCO format."""


@app.command(epilog=examples(EXAMPLES))
@guarded
def scenes(
    out: Out = None,
    size: Size = None,
    seed: Seed = None,
    config: ConfigFile = None,
    settings: Settings = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Render the built-in corpus: everyday objects, five captions each, with a planted bias.

    val and robust-val get a tenth of the training pictures, test and robust a fifth.
    """
    from capxai.config import resolve
    from capxai.recipes.prepare import PrepareConfig, run

    typed = {"out": out, "size": size, "seed": seed, "force": force or None}
    report = run(resolve(PrepareConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
        return
    rows = [(name, *(f"{count:,}" for count in counts.values())) for name, counts in report.splits.items()]
    print_table("", ("split", "pictures", "captions", "objects"), rows)
    print_line(f"Written to {report.out} (seed {report.seed}).")


@app.command(epilog=examples(COCO_EXAMPLES))
@guarded
def coco(
    root: Root = None,
    captions: Captions = None,
    instances: Instances = None,
    images: Images = None,
    split: Split = None,
    robust_split: RobustSplit = None,
    rest: Rest = None,
    minimum_count: MinimumCount = None,
    tokens: Tokens = None,
    skip_bad: SkipBad = False,
    check_pictures: CheckPictures = False,
    out: CocoOut = None,
    config: ConfigFile = None,
    settings: Settings = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a corpus of caption and instance files in COCO format. The pictures stay where they are."""
    from capxai.config import resolve
    from capxai.recipes.prepare_coco import PrepareCocoConfig, run

    typed = {
        "root": root,
        "captions": captions,
        "instances": instances,
        "images": images,
        "split": split,
        "robust_split": robust_split,
        "rest": rest,
        "minimum_count": minimum_count,
        "tokens": tokens,
        "skip_bad": skip_bad or None,
        "check_pictures": check_pictures or None,
        "out": out,
        "force": force or None,
    }
    _print_report(run(resolve(PrepareCocoConfig, config, settings or (), **typed), RichReporter(quiet)), json)


@app.command(epilog=examples(FLICKR30K_EXAMPLES))
@guarded
def flickr30k(
    karpathy: Karpathy = None,
    images: PictureFolder = None,
    minimum_count: MinimumCount = None,
    tokens: Tokens = None,
    skip_bad: SkipBad = False,
    check_pictures: CheckPictures = False,
    out: Flickr30kOut = None,
    config: ConfigFile = None,
    settings: Settings = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a corpus of Flickr30K in Karpathy's splits. The pictures stay where they are."""
    typed: dict[str, object] = {
        "karpathy": karpathy,
        "images": images,
        "dataset": "flickr30k",
        "minimum_count": minimum_count,
    }
    typed |= {"tokens": tokens, "out": out, "skip_bad": skip_bad or None, "check_pictures": check_pictures or None}
    _run_karpathy(config, settings, {**typed, "force": force or None}, RichReporter(quiet), json)


@app.command("karpathy", epilog=examples(KARPATHY_EXAMPLES))
@guarded
def any_karpathy(
    karpathy: Karpathy = None,
    images: PictureFolder = None,
    instances: Instances = None,
    robust_split: RobustSplit = None,
    restval: Restval = None,
    minimum_count: MinimumCount = None,
    tokens: Tokens = None,
    skip_bad: SkipBad = False,
    check_pictures: CheckPictures = False,
    out: KarpathyOut = None,
    config: ConfigFile = None,
    settings: Settings = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a corpus of any of Karpathy's files: dataset_coco, dataset_flickr8k or dataset_flickr30k."""
    typed: dict[str, object] = {
        "karpathy": karpathy,
        "images": images,
        "instances": instances,
        "robust_split": robust_split,
    }
    typed |= {"restval": restval, "minimum_count": minimum_count, "tokens": tokens, "out": out}
    typed |= {"skip_bad": skip_bad or None, "check_pictures": check_pictures or None, "force": force or None}
    _run_karpathy(config, settings, typed, RichReporter(quiet), json)


def _run_karpathy(
    config: Path | None, settings: list[str] | None, typed: dict[str, object], reporter: RichReporter, json: bool
) -> None:
    from capxai.config import resolve
    from capxai.recipes.prepare_karpathy import PrepareKarpathyConfig, run

    _print_report(run(resolve(PrepareKarpathyConfig, config, settings or (), **typed), reporter), json)


def _print_report(report: CorpusReport, json: bool) -> None:
    """Write the counts beside the expected ones, what was left out, and where the corpus is."""
    if json:
        print_json(report.to_json())
        return
    compared = any(item.expected is not None for item in report.comparisons)
    header = ("split", "of", "found", *(("expected", "") if compared else ()))
    print_table("", header, [_row(item, compared) for item in report.comparisons], left=2)
    differing = sum(item.differs for item in report.comparisons)
    if compared:
        print_line(f"{_verdict(differing)} of {report.compared_with}.")
    if report.vocabulary is None:
        print_line("There is no split 'train', so there is no vocabulary, and the captions are not encoded.")
    if report.unassigned:
        print_line(f"{report.unassigned:,} pictures belong to no split and are left out.")
    for title, kinds in (("Left out", report.left_out), ("To note", report.notices)):
        for kind, count in kinds.items():
            print_line(f"{title}: {count:,} {kind}.")
    print_line(f"Written to {report.out} (split {report.mode}).")


def _verdict(differing: int) -> str:
    if not differing:
        return "All counts that are known are those"
    return "1 count is not that" if differing == 1 else f"{differing} counts are not those"


def _row(item: Comparison, compared: bool) -> tuple[str, ...]:
    expected = "-" if item.expected is None else f"{item.expected:,}"
    return (
        item.split,
        item.what,
        f"{item.found:,}",
        *((expected, "differs" if item.differs else "") if compared else ()),
    )
