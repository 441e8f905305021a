"""The benchmark of explanations: that it compares like with like and measures what it says, at a small size and without a clock."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.errors import ConfigError, DependencyError, RelevanceError
from capxai.explain.explanation import Explanation
from capxai.lrp.attach import attached
from capxai.lrp.composites import lrp
from capxai.recipes import bench_explain, bench_subjects
from capxai.recipes.bench_explain import BenchExplainConfig, BenchExplainReport, run
from capxai.recipes.bench_memory import measure_peak, memory_growth, peak_memory
from capxai.recipes.bench_subjects import (
    CHANNELS_LAST,
    EXPLANATION,
    FORWARD,
    SIZES,
    ZENNIT,
    ZENNIT_BATCH,
    Workload,
    build_workload,
    counted_limit,
    has_zennit,
)

needs_zennit = pytest.mark.skipif(not has_zennit(), reason="zennit is not installed")
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a moment"
)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return build_workload(SIZES["small"])


@pytest.fixture(scope="module")
def report() -> BenchExplainReport:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    found = run(BenchExplainConfig(size="small", threads=1, repeat=2, memory=False, zennit_batch=False))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    return found


def test_the_full_size_is_the_one_that_figures_are_stated_for() -> None:
    full = SIZES["full"]
    assert (full.encoder, full.image_size, full.units, full.vocabulary, full.words) == ("vgg16", 224, 512, 9586, 10)


def test_an_explanation_is_whole(workload: Workload) -> None:
    found = workload.subject(EXPLANATION)()
    assert isinstance(found, Explanation)
    assert len(found.tokens) == len(set(found.tokens)) == 2
    assert found.pixel_relevance is not None and found.pixel_relevance.shape == (2, 32, 32)
    assert found.region_relevance is not None and found.word_relevance is not None and found.eps_relevance is not None


def test_the_forward_pass_is_the_same_in_both_layouts(workload: Workload) -> None:
    plain, last = workload.subject(FORWARD)(), workload.subject(CHANNELS_LAST)()
    assert isinstance(plain, torch.Tensor) and isinstance(last, torch.Tensor)
    assert plain.shape == (2, 112, 4, 4) and not plain.requires_grad
    torch.testing.assert_close(plain, last, rtol=1e-4, atol=1e-4)
    assert all(p.is_contiguous() for p in workload.trunk.parameters())  # the copy took the other layout, not the trunk


@needs_zennit
def test_zennit_computes_the_same_relevance_target_by_target_and_at_once(workload: Workload) -> None:
    one_by_one, at_once = workload.subject(ZENNIT)(), workload.subject(ZENNIT_BATCH)()
    assert isinstance(one_by_one, list) and isinstance(at_once, torch.Tensor)
    image, targets = workload.images()[:1].requires_grad_(), bench_subjects._targets(workload)
    with attached(workload.model, lrp()):
        features = workload.model.features(image)
    for number, target in enumerate(targets):
        start = target.flatten(1).T[None]  # (1, K, C)
        (own,) = torch.autograd.grad(features, image, start, retain_graph=True)
        scale = own.abs().max()
        assert (own - one_by_one[number]).abs().max() < 1e-4 * scale
        assert (own[0] - at_once[number]).abs().max() < 1e-4 * scale


def test_the_limit_is_the_count_of_multiplications(workload: Workload) -> None:
    table = [(3, 24, 32), (24, 48, 16), (48, 64, 8), (64, 64, 8), (64, 112, 4), (112, 112, 4)]
    products = [inputs * outputs * 9 * side * side for inputs, outputs, side in table]
    forward, signed = sum(products), sum(products) + products[0]
    assert counted_limit(workload) == pytest.approx((forward + signed + 2 * signed) / (2 * forward))


def test_the_report_has_every_subject_and_ratio(report: BenchExplainReport) -> None:
    expected = [EXPLANATION, FORWARD, CHANNELS_LAST] + ([ZENNIT] if has_zennit() else [])
    assert list(report.subjects) == expected
    for found in report.subjects.values():
        assert 0 < found.fastest <= found.seconds <= found.slowest and found.cpu_seconds > 0
        assert found.peak_gib is None
    own, forward, ratio = (
        report.subjects[EXPLANATION],
        report.subjects[FORWARD],
        report.ratios["explanation_over_forward"],
    )
    assert ratio.seconds == pytest.approx(own.seconds / forward.seconds)
    assert ratio.fastest == pytest.approx(own.fastest / forward.fastest)
    assert ratio.cpu_seconds == pytest.approx(own.cpu_seconds / forward.cpu_seconds)
    if has_zennit():
        assert report.ratios["zennit_over_explanation"].seconds == pytest.approx(
            report.subjects[ZENNIT].seconds / own.seconds
        )
    assert report.limit > 1 and report.growth is None and report.notes == ()
    written = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert written["provenance"]["config"]["threads"] == 1 and written["provenance"]["versions"]["torch"]


def test_without_zennit_a_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_subjects, "has_zennit", lambda: False)
    config = BenchExplainConfig()
    assert bench_explain._subjects(config) == [EXPLANATION, FORWARD, CHANNELS_LAST]
    assert "pip install zennit" in bench_explain._notes(config)[0]


@needs_proc
def test_a_peak_counts_what_is_given_back_before_the_end() -> None:
    peak = measure_peak(lambda: np.ones(2**24).sum())  # 128 MiB
    assert 0.9 * 2**27 <= peak * 2**30 <= 1.5 * 2**27


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    assert 0 <= peak_memory("small", "lrp", EXPLANATION, 1) < 4
    with pytest.raises(DependencyError, match="KeyError"):
        peak_memory("no such size", "lrp", EXPLANATION, 1)


def test_growth_over_many_explanations() -> None:
    growth = memory_growth(2, "lrp", 1)
    assert growth["explanations"] == 2 and growth["before_gib"] > 0
    change = 100 * (growth["after_gib"] / growth["before_gib"] - 1)
    assert growth["growth_percent"] == pytest.approx(change)


def test_settings_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match=r"threads is 0.*\n.*repeat is 0"):
        BenchExplainConfig(threads=0, repeat=0)
    with pytest.raises(RelevanceError, match="Did you mean 'lrp'"):
        run(BenchExplainConfig(method="lpr", size="small"))


def test_the_command() -> None:
    typed = ["bench", "explain", "--size", "small", "--repeat", "1", "--threads", "1", "--set", "memory=no", "--quiet"]
    typed += ["--set", "zennit=no"]
    table = CliRunner().invoke(app, typed)
    assert table.exit_code == 0, table.output
    assert "forward, channels-last" in table.stdout and "explanation over forward" in table.stdout
    found = json.loads(CliRunner().invoke(app, [*typed, "--json"]).stdout)
    assert found["words"] == 2 and found["limit_explanation_over_forward"] > 1
