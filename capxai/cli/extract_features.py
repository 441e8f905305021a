"""``capxai extract-features``: features of a corpus, computed once and kept in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capxai.cli.options import ConfigFile, Corpus, Debug, Device, Force, Json, Quiet, Seed, Settings
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from capxai.types import JsonObject

EXAMPLES = (
    "capxai extract-features",
    "capxai extract-features --corpus coco --encoder resnet101 --split train,val --out coco.h5",
    "capxai extract-features --verify features.h5",
)
_WAYS = "Other ways to a feature file"
_WORK = "Sharing and speed"

Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="compact|vgg16|resnet50|resnet101|regions",
        help="What sees: a grid of cells, or 36 regions of a detector.",
        show_default="compact",
    ),
]
EncoderWeights = Annotated[
    str | None,
    typer.Option(
        "--encoder-weights",
        metavar="FILE|random",
        help="A weights file, or random ones to try things out.",
        show_default="the bundled model's for compact, published ones for the others",
    ),
]
Model = Annotated[
    Path | None,
    typer.Option("--model", metavar="DIR", help="Use the encoder of this model.", show_default="the bundled model"),
]
Splits = Annotated[
    str | None, typer.Option("--split", metavar="NAME,...", help="Splits of the corpus.", show_default="all")
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE.h5", help="The file to make.", show_default="features.h5")
]
DType = Annotated[
    str | None,
    typer.Option("--dtype", metavar="float16|float32", help="Type of the stored numbers.", show_default="float16"),
]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out pictures that cannot be read, instead of stopping.")
]
Shard = Annotated[
    str | None,
    typer.Option("--shard", metavar="i/n", help="Only part i of n, into a file of its own.", rich_help_panel=_WORK),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Pictures at a time.", show_default="32", rich_help_panel=_WORK),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Processes that decode pictures.",
        show_default="by processors",
        rich_help_panel=_WORK,
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="float32|bfloat16|float16",
        help="Type in which the network computes.",
        show_default="float32",
        rich_help_panel=_WORK,
    ),
]
Verify = Annotated[
    Path | None,
    typer.Option(
        "--verify", metavar="FILE.h5", help="Check a finished file: every number and checksum.", rich_help_panel=_WAYS
    ),
]
Import = Annotated[
    Path | None,
    typer.Option(
        "--import",
        metavar="PATH",
        help="Read published bottom-up features: a .tsv file, or a folder of .npz or .h5 files.",
        rich_help_panel=_WAYS,
    ),
]
ImportFormat = Annotated[
    str | None,
    typer.Option(
        "--import-format",
        metavar="auto|tsv|npz|hdf5",
        help="What the published features are.",
        show_default="auto",
        rich_help_panel=_WAYS,
    ),
]


def extract_features(
    corpus: Corpus = None,
    encoder: Encoder = None,
    encoder_weights: EncoderWeights = None,
    model: Model = None,
    split: Splits = None,
    out: Out = None,
    dtype: DType = None,
    skip_unreadable: SkipUnreadable = False,
    shard: Shard = None,
    batch_size: BatchSize = None,
    workers: Workers = None,
    precision: Precision = None,
    verify: Verify = None,
    import_path: Import = None,
    import_format: ImportFormat = None,
    device: Device = None,
    seed: Seed = None,
    config: ConfigFile = None,
    settings: Settings = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Extract the features of a corpus into one HDF5 file. With nothing typed: of the built-in corpus, in minutes on a CPU.

    Interrupted at any moment, the same command goes on where it stopped; the file is the same in the end. Several processes of one
    machine share the work with torchrun, several machines with --shard.
    """
    typed = {
        "corpus": corpus,
        "encoder": encoder,
        "encoder_weights": encoder_weights,
        "model": model,
        "split": None if split is None else [name.strip() for name in split.split(",") if name.strip()],
        "out": out,
        "dtype": dtype,
        "skip_unreadable": skip_unreadable or None,
        "shard": shard,
        "batch_size": batch_size,
        "workers": workers,
        "precision": precision,
        "device": device,
        "seed": seed,
        "force": force or None,
    }
    given = {name: value for name, value in typed.items() if value is not None}
    reporter = RichReporter(quiet)
    if verify is not None:
        _verify(verify, given, json, reporter)
    elif import_path is not None:
        _import({**given, "source": import_path, "format": import_format}, config, settings or [], json, reporter)
    else:
        # --import-format without --import is a setting that an extraction does not know, and says so.
        _extract({**given, "import_format": import_format}, config, settings or [], json, reporter)


def _extract(given: JsonObject, config: Path | None, settings: list[str], json: bool, reporter: RichReporter) -> None:
    from capxai.config import resolve
    from capxai.recipes.extract_features import ExtractConfig, run

    report = run(resolve(ExtractConfig, config, settings, **given), reporter)
    if json:
        print_json(report.to_json())
        return
    description = report.description
    rows = [
        ("pictures", f"{report.pictures:,}" + (f" ({report.resumed:,} were done before)" if report.resumed else "")),
        (
            "features",
            f"{description['regions']} x {description['channels']} {description['dtype']}, {description['kind']}",
        ),
        ("encoder", f"{description['encoder']}, weights {description['weights_sha256'][:12]}"),
        ("size", f"{report.file_bytes / 2**20:,.1f} MiB"),
        (
            "speed",
            f"{report.pictures_per_second:,.1f} pictures per second, {report.waiting_share:.0%} waiting for pictures",
        ),
    ]
    print_table("", ("", ""), rows, left=2)
    if report.left_out:
        print_line(f"Left out: {len(report.left_out)} pictures that cannot be read.")
    print_line(f"Written to {report.out}.")


def _verify(path: Path, given: JsonObject, json: bool, reporter: RichReporter) -> None:
    from capxai.errors import ConfigError
    from capxai.recipes.extract_features import verify

    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(
            f"--verify came with {names}. Expected it alone; it only reads '{path}'. Leave the others out."
        )
    found = verify(path, reporter)
    if json:
        print_json(found.to_json())
    else:
        for problem in found.problems:
            print_line(f"Problem: {problem}")
        state = f"{len(found.problems)} kinds of problems" if found.problems else "sound"
        print_line(
            f"{path}: {state}. {found.pictures:,} pictures in {found.blocks:,} blocks checked; encoder weights {found.weights}."
        )
    if found.problems:
        raise typer.Exit(1)


def _import(given: JsonObject, config: Path | None, settings: list[str], json: bool, reporter: RichReporter) -> None:
    from capxai.config import resolve
    from capxai.recipes.import_features import ImportFeaturesConfig, run

    report = run(resolve(ImportFeaturesConfig, config, settings, **given), reporter)
    if json:
        print_json(report.to_json())
        return
    rows = [
        ("pictures", f"{report.pictures:,} ({report.format})"),
        ("features", f"{report.fit.regions} x {report.description.channels} {report.description.dtype}, region"),
        ("filled, cut", f"{report.fit.filled:,}, {report.fit.cut:,}"),
        ("missing, unknown", f"{len(report.missing):,}, {len(report.unknown):,}"),
    ]
    print_table("", ("", ""), rows, left=2)
    print_line(f"Written to {report.out}.")
