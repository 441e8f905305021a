"""Dropout over a shared batch, and a group of one process."""

from __future__ import annotations

import pytest
import torch

from capxai.layers.dropout import Dropout, global_batch
from capxai.train.processes import processes
from capxai.types import SILENT


def test_shares_of_a_batch_drop_what_the_whole_batch_drops() -> None:
    dropout = Dropout(0.5)
    x = torch.arange(1.0, 25.0).reshape(6, 4)
    torch.manual_seed(3)
    with global_batch(0, 6):
        whole = dropout(x)
    parts = []
    for rows in (slice(0, 4), slice(4, 6)):
        torch.manual_seed(3)
        with global_batch(rows.start, 6):
            parts.append(dropout(x[rows]))
        after = torch.rand(1)
    assert torch.equal(torch.cat(parts), whole)
    torch.manual_seed(3)
    with global_batch(0, 6):
        dropout(x)
    assert torch.equal(torch.rand(1), after)
    assert 0 < int((whole == 0).sum()) < 24
    kept = whole != 0
    assert torch.equal(whole[kept], 2 * x[kept])


def test_gradient_passes_where_nothing_was_dropped() -> None:
    x = torch.ones(3, 5, requires_grad=True)
    with global_batch(1, 4):
        y = Dropout(0.4)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_without_a_shared_batch_or_training_it_is_plain_dropout() -> None:
    x = torch.randn(4, 4)
    torch.manual_seed(0)
    ours = Dropout(0.3)(x)
    torch.manual_seed(0)
    assert torch.equal(ours, torch.nn.functional.dropout(x, 0.3))
    with global_batch(0, 4):
        assert Dropout(0.3).eval()(x) is x


def test_rows_outside_the_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="rows 3 to 5 of a batch of 4"), global_batch(3, 4):
        Dropout(0.5)(torch.ones(2, 2))
    with pytest.raises(ValueError, match="first row 4 of 4"), global_batch(4, 4):
        pass


def test_a_group_of_one_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes(torch.device("cpu")) as group:
        assert group.main
        assert group.world == 1
        assert group.gather("a") == ["a"]
        assert group.broadcast(4) == 4
        assert torch.equal(group.sum(torch.ones(2)), torch.ones(2))
        assert group.reporter(SILENT) is SILENT
        group.barrier()


def test_half_an_environment_of_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Exception, match="RANK, LOCAL_RANK"), processes(torch.device("cpu")):
        pass
