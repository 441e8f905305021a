"""The benchmark of training: that it compares like with like, and reports what it measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.data.feature_store import FeatureStore
from capxai.errors import ConfigError
from capxai.models.captioner import Captioner
from capxai.recipes.bare_training import BARE
from capxai.recipes.bench_timing import Measurement, Ratio
from capxai.recipes.bench_train import BARE as BARE_SUBJECT
from capxai.recipes.bench_train import (
    DECODERS,
    IN_LOOP,
    OURS,
    BenchTrainConfig,
    BenchTrainReport,
    _summary,
    run,
)
from capxai.recipes.bench_training import SIZES, Workload, stored_features


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def features() -> Iterator[Path]:
    with stored_features(SIZES["small"], 40) as path:
        yield path
    assert not path.parent.exists()


@pytest.fixture(scope="module")
def report() -> BenchTrainReport:
    return run(BenchTrainConfig(size="small", threads=1, repeat=3, batch_sizes=(4, 2)))


def without_dropout(module: nn.Module) -> None:
    for child in module.modules():
        if isinstance(child, nn.Dropout):
            child.p = 0.0


def weights_of(model: Captioner, names: dict[str, str]) -> dict[str, torch.Tensor]:
    """The captioner's parameters under the bare decoder's names."""
    found = {}
    for name, parameter in model.decoder.named_parameters():
        layer, _, weight = name.rpartition(".")
        found[f"{names.get(layer, layer)}.{weight}"] = parameter
    return found


def test_the_full_size_is_the_one_that_figures_are_stated_for() -> None:
    full = SIZES["full"]
    sizes = (full.regions, full.channels, full.units, full.vocabulary, full.words)
    assert sizes == (14 * 14, 512, 512, 9586, 19)
    assert BenchTrainConfig().batch_sizes == (32, 8) and BenchTrainConfig().threads == 2
    assert set(BARE) == set(DECODERS) == set(BenchTrainConfig().decoders)


def test_features_are_stored_in_half_precision_and_never_negative(features: Path) -> None:
    with FeatureStore.open(features) as store:
        found = store.read([7, 0])
        assert (len(store), found.shape, str(found.dtype)) == (40, (2, 9, 8), "float16")
        assert found.min() == 0 and found.max() > 1


@pytest.mark.parametrize("in_loop", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
def test_bare_steps_train_what_the_loop_trains(decoder: str, in_loop: bool, features: Path) -> None:
    work = Workload(SIZES["small"], decoder, 4, features)
    model = work.model()
    bare = work.bare_training(model, in_loop)
    without_dropout(model)
    without_dropout(bare.decoder)
    names = {ours: own for own, ours in type(bare.decoder).names.items()}
    with FeatureStore.open(features) as store:
        loop = work.loop(model, store)
        plan = loop.task.plan(torch.Generator().manual_seed(0))  # the loop's own seed
        steps, total = loop.run(), 0.0
        for item in plan[:3]:
            batch = item.batch(work.references(40), model.vocabulary)
            stored = torch.from_numpy(store.read(batch.rows.numpy()))
            theirs = bare.loss(stored, batch.inputs, batch.targets)
            expected = torch.autograd.grad(theirs, list(bare.decoder.parameters()))
            logits = model.speak(model.read(model.remember(stored.float()), model.embed(batch.inputs)))
            own = weights_of(model, names)
            mean = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
            found = torch.autograd.grad(mean, list(own.values()))
            gradients = dict(zip(own, found, strict=True))
            for (name, _), gradient in zip(bare.decoder.named_parameters(), expected, strict=True):
                torch.testing.assert_close(gradients[name], gradient, rtol=1e-5, atol=1e-7)
            progress = next(steps)
            total += bare.step(stored, batch.inputs, batch.targets)
            assert progress.loss == pytest.approx(total / progress.step, rel=1e-5)
        after = weights_of(model, names)
        for name, parameter in bare.decoder.named_parameters():
            torch.testing.assert_close(after[name], parameter, rtol=1e-4, atol=2e-5)
        steps.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("decoder", DECODERS)
def test_dropout_is_where_the_captioner_has_it(decoder: str, features: Path) -> None:
    work = Workload(SIZES["small"], decoder, 4, features)
    model = work.model()
    bare = work.bare_training(model)
    ours = sorted(child.p for child in model.decoder.modules() if isinstance(child, nn.Dropout))
    assert ours == sorted(child.p for child in bare.decoder.modules() if isinstance(child, nn.Dropout))
    assert bare.decoder.training


def test_a_bare_decoder_refuses_weights_that_it_lacks(features: Path) -> None:
    model = Workload(SIZES["small"], "ada-lstm", 2, features).model()
    model.decoder.extra = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"lacks extra\.weight"):
        Workload(SIZES["small"], "ada-lstm", 2, features).bare_training(model)


def test_the_report_has_every_subject_and_ratio(report: BenchTrainReport) -> None:
    assert list(report.steps) == [f"{decoder}, B {batch}" for decoder in DECODERS for batch in (4, 2)]
    for name, found in report.steps.items():
        assert list(found.subjects) == [OURS, BARE_SUBJECT, IN_LOOP]
        for subject in found.subjects.values():
            assert 0 < subject.fastest <= subject.seconds <= subject.slowest
        assert found.ours_over_bare == Ratio.of(found.subjects[OURS], found.subjects[BARE_SUBJECT])
        assert found.in_loop_over_bare == Ratio.of(found.subjects[IN_LOOP], found.subjects[BARE_SUBJECT])
        assert 0 <= found.waiting_share < 1 and found.loss_difference < 1e-5
        batch = int(name.rpartition(" ")[2])
        assert found.tokens_per_second == pytest.approx(5 * batch / found.subjects[OURS].seconds)
    assert report.notes == ()  # the figure of the published code is one of the full size
    written = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert written["provenance"]["config"]["repeat"] == 3 and written["provenance"]["cpu_count"]


def test_a_summary_worked_out_by_hand() -> None:
    times = {
        OURS: [(2.0, 4.0), (4.0, 4.0), (3.0, 4.0)],
        BARE_SUBJECT: [(1.0, 2.0), (4.0, 2.0), (2.0, 2.0)],
        IN_LOOP: [(5.0, 8.0), (6.0, 8.0), (7.0, 8.0)],
    }
    found = _summary(times, waited=0.9, tokens=30, difference=0.0)
    assert found.subjects[OURS] == Measurement(3.0, 2.0, 4.0, 4.0)
    assert found.ours_over_bare == Ratio(1.5, 2.0, 2.0)
    assert found.paired == 1.5  # the median of 2, 1 and 3 / 2
    assert found.in_loop_over_bare == Ratio(3.0, 5.0, 4.0)
    assert found.waiting_share == pytest.approx(0.1) and found.tokens_per_second == 10


def test_settings_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'mh-fc'(.|\n)*threads is 0(.|\n)*a batch size is 0"):
        BenchTrainConfig(decoders=("mhfc",), threads=0, batch_sizes=(0,))
    with pytest.raises(ConfigError, match="decoders is empty"):
        BenchTrainConfig(decoders=())


def test_the_command() -> None:
    typed = [
        "bench",
        "train",
        "--size",
        "small",
        "--repeat",
        "1",
        "--threads",
        "1",
        "--set",
        "batch_sizes=2",
        "--quiet",
    ]
    table = CliRunner().invoke(app, [*typed, "--decoder", "mh-fc"])
    assert table.exit_code == 0, table.output
    assert "mh-fc, B 2" in table.stdout and IN_LOOP in table.stdout and "waiting" in table.stdout
    assert "ada-lstm" not in table.stdout
    found = json.loads(CliRunner().invoke(app, [*typed, "--json"]).stdout)
    assert set(found["steps"]) == {"ada-lstm, B 2", "mh-fc, B 2"}


def test_the_command_for_features() -> None:
    typed = ["bench", "features", "--size", "small", "--repeat", "1", "--threads", "1", "--workers", "0", "--quiet"]
    typed += ["--set", "readers=1"]
    table = CliRunner().invoke(app, typed)
    assert table.exit_code == 0, table.output
    assert "throughput over bare loop" in table.stdout and "items per second" in table.stdout
    found = json.loads(CliRunner().invoke(app, [*typed, "--json"]).stdout)
    assert found["provenance"]["config"]["workers"] == 0
