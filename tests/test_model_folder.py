"""Model folders: what goes in comes out bit for bit, what is wrong with one is said, and nothing in one is executed."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

import capxai
from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.errors import CapxaiError, ModelError
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.folder import bundled_folder, load, load_model, newest_run, save_model
from capxai.models.repair import repair_model
from capxai.models.specification import Specification

WORDS = ("<pad>", "<start>", "<end>", "<unk>", "a", "bus", "café", "dog")
LINEAGE = {"command": "capxai train", "epochs": [{"loss": 1.25}], "note": "größer"}


def small_model(decoder: str = "ada-lstm", encoder: str = "features", seed: int = 0) -> Captioner:
    torch.manual_seed(seed)
    channels = 112 if encoder == "compact" else 8
    heads = 2 if decoder == "mh-fc" else 1
    specification = Specification(encoder, decoder, channels, 16, 12, 10, len(WORDS), heads)
    model = build_captioner(specification, Vocabulary(WORDS), Preprocessing(32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.7)))
    model.lineage = dict(LINEAGE)
    return model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_model(small_model(), folder)
    return folder


def assert_same_weights(one: Captioner, other: Captioner) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("encoder", ["features", "compact"])
@pytest.mark.parametrize("decoder", ["ada-lstm", "mh-fc", "adaptive"])
def test_a_model_comes_back_bit_for_bit(decoder: str, encoder: str, tmp_path: Path) -> None:
    model = small_model(decoder, encoder).train()
    if encoder == "compact":
        model.features(torch.randn(2, 3, 32, 32))  # moves the statistics of the batch norms, which are no parameters
    folder = tmp_path / "deep" / "model"
    save_model(model, folder)
    loaded = load_model(folder)
    assert_same_weights(model, loaded)
    assert not any(module.training for module in loaded.modules())
    assert loaded.vocabulary == model.vocabulary
    assert loaded.preprocessing == model.preprocessing
    assert loaded.specification == model.specification
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert loaded.lineage == {**LINEAGE, "weights_sha256": digest}
    features = torch.randn(3, 16, model.specification.channels)
    tokens = torch.tensor([4, 5, 6])
    logits = [
        each.step(memory := each.remember(features), each.embed(tokens), each.start(memory)).logits
        for each in (model.eval(), loaded)
    ]
    assert torch.equal(*logits)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_the_folder_holds_two_files_and_says_who_wrote_it(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "model.safetensors"]
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    (saved.parent / "plain").mkdir()
    assert saved.stat().st_mode == (saved.parent / "plain").stat().st_mode
    description = json.loads((saved / "model.json").read_text(encoding="utf-8"))
    assert description["schema"] == 1
    assert description["capxai"] == capxai.__version__
    with safetensors.safe_open(saved / "model.safetensors", "pt") as file:
        assert not file.metadata()


def test_saving_twice_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    save_model(load_model(saved), tmp_path / "again")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_views_and_shared_weights_are_stored_whole(tmp_path: Path) -> None:
    model = small_model()
    table = torch.randn(10, 2 * len(WORDS)).t()
    model.decoder.embedding.weight = torch.nn.Parameter(table[::2])
    save_model(model, tmp_path / "model")
    assert_same_weights(model, load_model(tmp_path / "model"))


def test_loading_draws_no_random_numbers(saved: Path) -> None:
    before = torch.get_rng_state()
    load_model(saved)
    assert torch.equal(before, torch.get_rng_state())


def test_an_existing_model_is_kept_unless_forced(saved: Path) -> None:
    before = (saved / "model.safetensors").read_bytes()
    with pytest.raises(ModelError, match="already holds a model .*replace it with --force"):
        save_model(small_model(seed=1), saved)
    assert (saved / "model.safetensors").read_bytes() == before
    (saved / "log.txt").write_text("epoch 1")
    save_model(small_model(seed=1), saved, force=True)
    assert_same_weights(load_model(saved), small_model(seed=1))
    assert sorted(path.name for path in saved.iterdir()) == ["log.txt", "model.json", "model.safetensors"]


def test_a_folder_without_a_model_takes_one_and_keeps_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("epoch 1")
    save_model(small_model(), tmp_path)
    assert_same_weights(load_model(tmp_path), small_model())
    assert (tmp_path / "log.txt").read_text() == "epoch 1"


def no_room(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_save_that_fails_leaves_the_old_model_whole(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors.torch, "save", no_room)
    with pytest.raises(ModelError, match="cannot be written to '.*' \\(No space left on device\\)"):
        save_model(small_model(seed=1), saved, force=True)
    with pytest.raises(ModelError, match="No space left"):
        save_model(small_model(seed=1), saved.parent / "new")
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    assert_same_weights(load_model(saved), small_model())


@pytest.mark.parametrize("failing", ["model.safetensors", "model.json"])
def test_a_replacement_that_fails_half_way_is_undone(
    saved: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    replace = Path.replace

    def fail_at(path: Path, target: Path) -> Path:
        if path.name == failing:
            no_room()
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_at)
    with pytest.raises(ModelError, match="No space left"):
        save_model(small_model(seed=1), saved, force=True)
    assert_same_weights(load_model(saved), small_model())
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize("killed_at", ["model.safetensors", "model.json"])
def test_a_kill_between_the_renames_leaves_the_old_model_readable(
    saved: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    """As after kill -9, nothing is tidied up: the weights are gone, or new ones lie beside the old description."""
    replace = Path.replace

    def die_at(path: Path, target: Path) -> Path:
        if path.name == killed_at:
            os._exit(9)
        return replace(path, target)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(Path, "replace", die_at)
        save_model(small_model(seed=1), saved, force=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert_same_weights(load_model(saved), small_model())
    repair_model(saved)
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "model.safetensors"]
    assert_same_weights(load_model(saved), small_model())


def test_leftovers_of_an_early_kill_are_no_model(saved: Path) -> None:
    """Half-written weights in a hidden folder are neither read nor put in the place of whole ones."""
    staged = saved / ".model-0123456789ab"
    staged.mkdir()
    (staged / "model.safetensors").write_bytes(b"half")
    (staged / "previous.safetensors").write_bytes(b"foreign")
    assert_same_weights(load_model(saved), small_model())
    repair_model(saved)
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "model.safetensors"]
    assert_same_weights(load_model(saved), small_model())


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        save_model(small_model(), tmp_path / "file")


def change(folder: Path, edit: Callable[[dict[str, object]], object]) -> None:
    """Edit model.json."""
    description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    edit(description)
    (folder / "model.json").write_text(json.dumps(description), encoding="utf-8")


def exchange_weights(folder: Path, content: bytes) -> None:
    """Exchange the weights, and make the hash fit."""
    (folder / "model.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    change(folder, lambda value: value["lineage"].update(weights_sha256=digest))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v.update(schema=2, capxai="9.1"), "has schema 2, written by capxai 9.1. .*up to 1. Upgrade capxai"),
        (lambda v: v.pop("schema"), "its schema is None, not 1"),
        (lambda v: v.update(schema=True), "its schema is True, not 1"),
        (lambda v: (v.pop("vocabulary"), v.update(lineage=[])), "no vocabulary and no lineage in it"),
        (lambda v: v["vocabulary"]["words"].append("road"), "a vocabulary of 9 words for an architecture of 8"),
        (lambda v: v["vocabulary"]["words"].append("dog"), "more than once"),
        (lambda v: v["vocabulary"].pop("words"), "stored vocabulary is torn"),
        (lambda v: v["preprocessing"].update(std=[1, 1, 0]), "three positive deviations"),
        (lambda v: v["specification"].update(decoder="ada-lstmm"), "'ada-lstmm'.*Did you mean 'ada-lstm'"),
        (lambda v: v["specification"].update(encoder="vgg"), "Unknown encoder 'vgg'"),
        (lambda v: v["specification"].update(hidden_size="16"), "its architecture cannot be built"),
        (lambda v: v["specification"].update(hidden_size=-1), "its architecture cannot be built"),
        (lambda v: v["specification"].update(heads=0), "its architecture cannot be built"),
        (lambda v: v["specification"].update(hidden_size=10**8), "do not fit the architecture"),
        (lambda v: v["specification"].update(depth=3), "unknown fields: depth"),
        (lambda v: v["specification"].pop("regions"), "regions"),
        (lambda v: v["lineage"].pop("weights_sha256"), "expected None"),
    ],
)
def test_a_damaged_description_is_said(saved: Path, edit: Callable[[dict[str, object]], object], message: str) -> None:
    change(saved, edit)
    with pytest.raises(CapxaiError, match=message):
        load_model(saved)


@pytest.mark.parametrize("text", ["", '{"schema": 1,', "[1]", "null", "[" * 100_000, "\x00\xff"])
def test_a_torn_description_is_said(saved: Path, text: str) -> None:
    (saved / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match="model.json' cannot be read: .*Expected what capxai writes"):
        load_model(saved)


def test_weights_that_were_changed_or_cut_off_are_said(saved: Path) -> None:
    content = (saved / "model.safetensors").read_bytes()
    for damaged in (content[:-1], content[:-1] + bytes([content[-1] ^ 1]), b""):
        (saved / "model.safetensors").write_bytes(damaged)
        with pytest.raises(ModelError, match="changed, cut off or exchanged. Its SHA-256 is"):
            load_model(saved)


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\xff" * 64, b"not weights at all"])
def test_weights_of_another_format_are_said(saved: Path, content: bytes) -> None:
    exchange_weights(saved, content)
    with pytest.raises(ModelError, match="model.safetensors' cannot be read: "):
        load_model(saved)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("write", [pickle.dumps, None], ids=["pickle", "torch.save"])
def test_a_pickle_in_the_place_of_the_weights_does_not_run(
    saved: Path, tmp_path: Path, write: Callable[[Trap], bytes] | None
) -> None:
    trap = Trap(tmp_path / "ran")
    if write:
        content = write(trap)
    else:
        torch.save(trap, tmp_path / "checkpoint.pth")
        content = (tmp_path / "checkpoint.pth").read_bytes()
    exchange_weights(saved, content)
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(saved)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(trap))
    assert (tmp_path / "ran").exists()  # so the trap works


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.pop("decoder.lstm.bias_hh"), "1 missing: decoder.lstm.bias_hh"),
        (lambda w: w.update(extra=torch.zeros(2)), "1 unexpected: extra"),
        (
            lambda w: w.update({"decoder.word_head.fc.bias": torch.zeros(9)}),
            r"1 of another shape or type: decoder.word_head.fc.bias is float32 \(9,\) instead of float32 \(8,\)",
        ),
        (
            lambda w: w.update({"decoder.word_head.fc.bias": torch.zeros(8, dtype=torch.int64)}),
            r"decoder.word_head.fc.bias is int64 \(8,\) instead of float32 \(8,\)",
        ),
        (
            lambda w: (w.clear(), w.update(a=torch.zeros(1), b=torch.zeros(1))),
            r"missing: decoder.embedding.weight, .* and \d+ more; 2 unexpected: a, b",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(
    saved: Path, edit: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    weights = safetensors.torch.load_file(saved / "model.safetensors")
    edit(weights)
    exchange_weights(saved, safetensors.torch.save(weights))
    with pytest.raises(ModelError, match=message):
        load_model(saved)


def test_a_folder_that_is_not_there_names_those_that_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="There is no model folder 'x'. .*None is here or under 'runs'"):
        load_model("x")
    save_model(small_model(), Path("runs/first"))
    save_model(small_model(), Path("elsewhere/second"))
    with pytest.raises(ModelError, match="There is no model folder 'x'. .*Model folders here: runs/first."):
        load_model("x")
    with pytest.raises(ModelError, match="Model folders here: elsewhere/second, runs/first."):
        load_model("elsewhere/third")
    with pytest.raises(ModelError, match="'runs' is no model folder: model.json and model.safetensors missing."):
        load_model("runs")
    with pytest.raises(ModelError, match="'runs/first/model.json' is a file."):
        load_model("runs/first/model.json")
    Path("runs/first/model.safetensors").unlink()
    with pytest.raises(ModelError, match="'runs/first' is no model folder: model.safetensors missing."):
        load_model("runs/first")


def test_the_newest_run_is_the_model_written_last(tmp_path: Path) -> None:
    assert newest_run(tmp_path / "runs") is None
    for name, second in (("b", 30), ("a", 50), ("c", 40)):
        save_model(small_model(), tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "model.json", (second, second))
    (tmp_path / "runs" / "z").mkdir()
    (tmp_path / "runs" / "file").write_text("")
    assert newest_run(tmp_path / "runs") == tmp_path / "runs" / "a"


def test_without_a_path_the_bundled_model_is_loaded(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.resources, "files", lambda package: saved.parent)
    with pytest.raises(ModelError, match="no bundled model .*--model"):
        bundled_folder()
    saved.rename(saved.parent / "bundled")
    assert bundled_folder() == saved.parent / "bundled"
    assert_same_weights(load(), small_model())
    save_model(small_model(seed=1), saved)
    assert_same_weights(capxai.load(str(saved)), small_model(seed=1))
