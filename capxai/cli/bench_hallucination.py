"""``capxai bench hallucination``: what the stream of an experiment costs beside explanations alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from capxai.cli.options import ConfigFile, Debug, Json, Quiet, Settings
from capxai.cli.rendering import print_line, print_table
from capxai.cli.reporter import RichReporter, print_json

if TYPE_CHECKING:
    from capxai.recipes.bench_hallucination import BenchHallucinationReport

EXAMPLES = ("capxai bench hallucination", "capxai bench hallucination --pictures 1000 --json > bench.json")

Pictures = Annotated[
    int | None,
    typer.Option("--pictures", min=2, metavar="N", help="Pictures that each subject sees.", show_default="12"),
]
Method = Annotated[
    str | None, typer.Option("--method", metavar="NAME", help="Method of explanation.", show_default="lrp")
]
Size = Annotated[
    str | None, typer.Option("--size", metavar="full|small", help="Size of the model.", show_default="full")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of torch.", show_default="2")]


def hallucination(
    pictures: Pictures = None,
    method: Method = None,
    size: Size = None,
    threads: Threads = None,
    config: ConfigFile = None,
    settings: Settings = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Time pictures in the stream of 'capxai analyze hallucination' beside their explanations alone, and watch its memory.

    VGG16 at 224 pixels with ada-lstm and captions of ten words; the weights are random, which changes no time. Both read the file of
    each picture, caption it and carry words back to its pixels. With all words the stream may cost 1.2 at most; the verb itself asks for
    object words alone. Memory is that of the whole verb in a process of its own, from picture 50 on.
    """
    from capxai.config import resolve
    from capxai.recipes.bench_hallucination import BenchHallucinationConfig, run

    typed = {"pictures": pictures, "method": method, "size": size, "threads": threads}
    report = run(resolve(BenchHallucinationConfig, config, settings or (), **typed), RichReporter(quiet))
    if json:
        print_json(report.to_json())
    else:
        _print(report)


def _print(report: BenchHallucinationReport) -> None:
    print_line(f"Hallucination: {report.description}.")
    print_line(f"{report.pictures} pictures, captions of {report.words} words, {report.object_words} of them objects.")
    rows = [
        (name, *map(_figure, (found.seconds, found.fastest, found.slowest, found.cpu_seconds)))
        for name, found in report.subjects.items()
    ]
    print_table("Seconds a picture", ("", "median", "fastest", "slowest", "CPU"), rows)
    print_line("")
    compared = [
        (name.replace("_", " "), *map(_figure, (one.over.seconds, one.paired, one.over.fastest, one.paired_cpu)))
        for name, one in report.costs.items()
    ]
    print_table("Compared", ("", "by medians", "turn by turn", "by fastest", "turn by turn, CPU time"), compared)
    print_line(f"All words may cost {report.target:g}: {'reached' if report.reached else 'missed'} (turn by turn).")
    if report.memory is not None:
        settled, end = report.memory["settled"], report.memory["end"]
        print_line(
            f"Peak memory: {settled['peak_gib']:.3f} GiB after {settled['pictures']} pictures, {end['peak_gib']:.3f} GiB after "
            f"{end['pictures']} and the report ({report.memory['growth_percent']:+.1f} %)."
        )


def _figure(value: float) -> str:
    return f"{value:.3f}"
