"""The benchmark of fine-tuning: the counted operations are those that torch performs, and the report says what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.errors import ConfigError
from capxai.recipes.bench_finetune import (
    DECODERS,
    OBJECTIVES,
    BenchFinetuneConfig,
    BenchFinetuneReport,
    _summary,
    run,
)
from capxai.recipes.bench_finetuning import CAPTIONS, FinetuneWorkload
from capxai.recipes.bench_timing import Measurement
from capxai.recipes.bench_training import SIZES, Size, Workload
from capxai.recipes.finetune_operations import Part, floor, multiply_adds, step_parts
from capxai.recipes.finetune_task import SharedBatch
from capxai.train.examples import Chosen

SMALL = SIZES["small"]
CAPTIONS_OF_A_STEP = 4


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def report() -> BenchFinetuneReport:
    return run(BenchFinetuneConfig(size="small", batch_size=CAPTIONS_OF_A_STEP, threads=1, repeat=3))


class Counter(TorchDispatchMode):
    """Counts what torch's own rules say of every matrix product, wherever it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        rule = flop_registry.get(func._overloadpacket)
        if rule is not None:
            self.multiply_adds += rule(*args, **(kwargs or {}), out_val=result) / 2
        return result


def performed(objective: str, decoder: str) -> float:
    """Multiply-adds that torch counts in one step, forward and backward."""
    work = FinetuneWorkload(SMALL, decoder, CAPTIONS_OF_A_STEP, Path("none"))
    model = Workload(SMALL, decoder, CAPTIONS_OF_A_STEP, Path("none")).model()
    model.eval().decoder.train()
    rows = torch.arange(CAPTIONS_OF_A_STEP)
    chosen = Chosen(rows, rows * CAPTIONS)
    batch = chosen.batch(work.references(CAPTIONS_OF_A_STEP), model.vocabulary)
    features = torch.rand(CAPTIONS_OF_A_STEP, SMALL.regions, SMALL.channels)
    function = work.objective(objective, model.vocabulary, CAPTIONS_OF_A_STEP)
    with Counter() as counter, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss, _ = function(model, model.remember(features), SharedBatch(**vars(batch), whole=chosen))
        loss.backward()
    return counter.multiply_adds


def first_step(decoder: str, size: Size) -> int:
    """Multiply-adds that the first word saves: no gradient has to reach the state before it, which is zero."""
    recurrent = {"ada-lstm": 2 * 4 * size.units**2 + size.units**2, "mh-fc": 4 * size.units**2}
    return CAPTIONS_OF_A_STEP * recurrent[decoder]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("objective", ["ce", "lrp"])
def test_the_count_is_what_torch_performs(objective: str, decoder: str) -> None:
    counted = multiply_adds(step_parts(objective, decoder, SMALL, CAPTIONS_OF_A_STEP))
    assert performed(objective, decoder) == counted - first_step(decoder, SMALL)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_counterfactual_count_is_near_what_torch_performs(decoder: str) -> None:
    counted = multiply_adds(step_parts("lrp-counterfactual", decoder, SMALL, CAPTIONS_OF_A_STEP))
    assert 0.7 * counted < performed("lrp-counterfactual", decoder) < 1.5 * counted


def test_parts_by_hand() -> None:
    assert Part(10).total == 30 and Part(10, to_input=False).total == 20
    size = Size(side=2, channels=3, units=5, vocabulary=7, words=2, heads=1)
    parts = step_parts("lrp", "mh-fc", size, 1)
    assert parts["features"].total == 2 * 4 * 3 * 5  # 4 cells, 3 channels, 5 units, no gradient to the features
    assert parts["keys"].total == 3 * 4 * 2 * 5 * 5  # keys and values
    assert parts["cells"].total == 3 * 2 * 20 * 15  # 2 words, 4 gates of 5 units, 10 inputs and 5 recurrent ones
    assert parts["vocabulary"] == parts["vocabulary, improved"] == Part(2 * 5 * 7)


def test_the_floor_at_full_size() -> None:
    full = SIZES["full"]
    vocabulary = 3 * 32 * 19 * 512 * 9586
    for decoder in DECODERS:
        control = multiply_adds(step_parts("ce", decoder, full, 32))
        assert floor("lrp", decoder, full, 32) == pytest.approx(1 + vocabulary / control)
        assert 1.25 < floor("lrp", decoder, full, 32) < 1.4
        assert 2.5 < floor("lrp-counterfactual", decoder, full, 32) < 3.5
        assert floor("ce", decoder, full, 32) == 1


def test_every_caption_of_the_workload_names_one_object() -> None:
    work = FinetuneWorkload(SMALL, "mh-fc", 4, Path("none"))
    mentions = work.mentions(6)
    assert len(mentions.references) == 6  # type: ignore[arg-type]
    named = mentions.begins.targets(torch.arange(6 * CAPTIONS))
    assert ((named > 0).sum(1) == 1).all() and named.shape[1] <= SMALL.words
    lengths = work.references(6).lengths(torch.arange(6 * CAPTIONS))
    assert (lengths == SMALL.words).all()


def test_the_report_has_every_objective_and_its_floor(report: BenchFinetuneReport) -> None:
    assert list(report.decoders) == list(DECODERS)
    for decoder, found in report.decoders.items():
        assert list(found.subjects) == list(OBJECTIVES) and list(found.costs) == list(OBJECTIVES[1:])
        for name, cost in found.costs.items():
            assert cost.floor == floor(name, decoder, SMALL, CAPTIONS_OF_A_STEP)
            ratio = found.subjects[name].seconds / found.subjects["ce"].seconds
            assert cost.over_control.seconds == pytest.approx(ratio)
        assert found.costs["lrp"].target == 1.5 and found.costs["lrp-counterfactual"].reached is None
        counted = multiply_adds(step_parts("lrp", decoder, SMALL, CAPTIONS_OF_A_STEP))
        assert sum(found.billions["lrp"].values()) == pytest.approx(counted / 1e9)
    written = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert written["decoders"]["mh-fc"]["costs"]["lrp"]["reached"] in (True, False)
    assert written["provenance"]["cpu_count"] and written["provenance"]["config"]["repeat"] == 3


def test_a_summary_worked_out_by_hand() -> None:
    times = {"ce": [(2.0, 4.0), (4.0, 4.0), (2.0, 2.0)], "lrp": [(3.0, 5.0), (7.0, 5.0), (3.2, 5.0)]}
    found = _summary(times, FinetuneWorkload(SMALL, "mh-fc", 4, Path("none")))
    assert found.subjects["ce"] == Measurement(2.0, 2.0, 4.0, 4.0)
    cost = found.costs["lrp"]
    assert (cost.over_control.seconds, cost.over_control.cpu_seconds) == (1.6, 1.25)
    assert cost.paired == 1.6 and cost.reached is False  # the median of 1.5, 1.75 and 1.6


def test_settings_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'mh-fc'(.|\n)*Did you mean 'lrp'(.|\n)*threads is 0"):
        BenchFinetuneConfig(decoders=("mhfc",), objectives=("lpr",), threads=0)
    assert BenchFinetuneConfig(objectives=("lrp",)).timed == ("ce", "lrp")
    assert BenchFinetuneConfig().batch_size == 32 and SIZES["full"].words == 19


def test_the_command() -> None:
    typed = [
        "bench",
        "finetune",
        "--size",
        "small",
        "--repeat",
        "1",
        "--threads",
        "1",
        "--set",
        "batch_size=2",
        "--quiet",
    ]
    table = CliRunner().invoke(app, [*typed, "--decoder", "mh-fc", "--objective", "lrp"])
    assert table.exit_code == 0, table.output
    assert "counted floor" in table.stdout and "1.5: " in table.stdout and "together" in table.stdout
    assert "ada-lstm" not in table.stdout and "counterfactual" not in table.stdout
    found = json.loads(CliRunner().invoke(app, [*typed, "--json"]).stdout)
    assert set(found["decoders"]) == set(DECODERS) and found["schema"] == 1
