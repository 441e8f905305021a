"""Checkpoints of the paper's authors: they give the authors' logits, and nothing in them runs."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from authors_format import (
    EMBEDDING,
    HIDDEN,
    Replica,
    Weights,
    decoder_weights,
    vgg16_features,
    vgg16_weights,
    word_map,
    write_checkpoint,
    write_word_map,
)
from torch import Tensor

from capxai.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from capxai.errors import ModelError, UnsafeCheckpointError, VocabularyError
from capxai.models.authors.checkpoint import read_checkpoint
from capxai.models.authors.importing import import_captioner
from capxai.models.authors.names import recognize, translate
from capxai.models.authors.wordmap import read_wordmap
from capxai.models.build import build_captioner
from capxai.models.folder import load_model
from capxai.recipes.import_checkpoint import ImportCheckpointConfig, run

CAPTION = [11, 1, 2, 4, 5, 6]  # <start> a man on the beach
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Notes:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def warn(self, text: str) -> None:
        self.texts.append(text)

    def track(self, description: str, total: int) -> None:
        raise AssertionError("importing shows no progress")

    def dashboard(self, title: str) -> None:
        raise AssertionError("importing trains nothing")


@pytest.fixture(scope="module")
def encoder() -> Weights:
    return vgg16_weights(torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def features(encoder: Weights, image: Tensor) -> Tensor:
    return vgg16_features(encoder, image.double())


@pytest.fixture
def wordmap(tmp_path: Path) -> Path:
    return write_word_map(tmp_path / "wordmap.json")


def small_weights(decoder: str = "mh-fc") -> Weights:
    """Return a model on stored region features, which is small to write."""
    return decoder_weights(decoder, torch.Generator().manual_seed(3), channels=20, convolution=False)


@pytest.mark.parametrize(("decoder", "legacy"), [("ada-lstm", False), ("mh-fc", True), ("adaptive", True)])
def test_an_imported_checkpoint_gives_the_authors_logits(
    decoder: str, legacy: bool, tmp_path: Path, wordmap: Path, encoder: Weights, image: Tensor, features: Tensor
) -> None:
    weights = OrderedDict({**encoder, **decoder_weights(decoder, torch.Generator().manual_seed(4))})
    checkpoint = write_checkpoint(tmp_path / "checkpoint.pth", weights, legacy=legacy)
    report = run(ImportCheckpointConfig(checkpoint, wordmap, tmp_path / "model"))
    model = load_model(tmp_path / "model")

    expected = Replica(decoder, weights).logits(features[0], CAPTION)
    with torch.no_grad():
        steps = model.unroll(model.encode(image), lambda t, _: model.embed(torch.tensor([CAPTION[t]])), len(CAPTION))
    logits = torch.cat([step.logits for step in steps]).double()

    assert (logits - expected).abs().max() < 1e-5
    assert expected.std(0).min() > 1e-3, "the words must matter, or the comparison shows little"
    assert report.architecture["decoder"] == decoder and report.architecture["encoder"] == "vgg16"
    assert (report.architecture["embedding_size"], report.architecture["hidden_size"]) == (EMBEDDING, HIDDEN)
    assert report.architecture["published_query_axis"] is (decoder != "mh-fc")
    assert (report.lineage["epoch"], report.lineage["bleu-4"], report.lineage["cider"]) == (7, 0.2461, 0.5625)
    assert model.vocabulary.words[0] == "<pad>" and model.vocabulary.decode([2, 12]) == "man"
    preprocessing = model.preprocessing
    assert (preprocessing.image_size, preprocessing.mean, preprocessing.std) == (224, IMAGENET_MEAN, IMAGENET_STD)


def test_without_the_flag_the_logits_are_not_theirs(
    encoder: Weights, features: Tensor, tmp_path: Path, wordmap: Path
) -> None:
    weights = OrderedDict({**encoder, **decoder_weights("ada-lstm", torch.Generator().manual_seed(4))})
    model = import_captioner(write_checkpoint(tmp_path / "c.pth", weights), wordmap)
    model.decoder.attention.published_query_axis = False  # type: ignore[union-attr]
    with torch.no_grad():
        memory = model.remember(features.float())
        logits = model.step(memory, model.embed(torch.tensor([CAPTION[0]])), model.start(memory)).logits
    assert (logits[0].double() - Replica("ada-lstm", weights).logits(features[0], CAPTION[:1])[0]).abs().max() > 1e-4


def test_region_features_import_without_an_encoder(tmp_path: Path, wordmap: Path) -> None:
    weights = small_weights()
    model = import_captioner(write_checkpoint(tmp_path / "c.pth", weights), wordmap, heads=4)
    regions = torch.randn(1, 36, 20, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        steps = model.unroll(
            model.remember(regions), lambda t, _: model.embed(torch.tensor([CAPTION[t]])), len(CAPTION)
        )
    expected = Replica("mh-fc", weights, heads=4).logits(regions[0], CAPTION)
    assert (torch.cat([step.logits for step in steps]).double() - expected).abs().max() < 1e-5
    assert model.specification.encoder == "features"


def test_an_adaptive_model_on_region_features_is_refused(tmp_path: Path, wordmap: Path) -> None:
    with pytest.raises(ModelError, match="region features"):
        import_captioner(write_checkpoint(tmp_path / "c.pth", small_weights("ada-lstm")), wordmap)


@pytest.mark.parametrize("legacy", [False, True])
def test_data_parallel_weights_from_a_gpu_come_to_the_cpu(
    legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    weights = small_weights()
    path = write_checkpoint(tmp_path / "c.pth", weights, legacy=legacy, parallel=True)
    assert b"cuda:0" in path.read_bytes()
    read = read_checkpoint(path)
    assert list(read.weights) == list(weights)
    assert all(torch.equal(read.weights[name], tensor) for name, tensor in weights.items())


def test_views_transposed_and_half_precision_weights_are_read(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = {"t": base.t(), "rows": base[1:3], "half": base.half(), "scalar": torch.tensor(3), "empty": base[:0]}
    for legacy in (False, True):
        torch.save({"state_dict": state}, tmp_path / "c.pth", _use_new_zipfile_serialization=not legacy)
        read = read_checkpoint(tmp_path / "c.pth").weights
        assert all(
            torch.equal(read[name], tensor.float() if name == "half" else tensor) for name, tensor in state.items()
        )
        assert read["half"].dtype == torch.float32


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_resnet_encoders_are_recognized_and_fill_every_weight(name: str, wordmap: Path) -> None:
    from torchvision.models import resnet50, resnet101

    with torch.device("meta"):
        network = {"resnet50": resnet50, "resnet101": resnet101}[name](weights=None)
    weights = {f"img_encoder.encoder.{key}": tensor for key, tensor in network.state_dict().items()}
    weights |= decoder_weights("ada-lstm", torch.Generator().manual_seed(6), channels=2048)
    layout = recognize(weights, None)
    assert (layout.specification.encoder, layout.image_size) == (name, 448)
    assert any("classifier" in note for note in layout.notes)
    with torch.device("meta"):
        model = build_captioner(layout.specification, read_wordmap(wordmap), Preprocessing(layout.image_size))
    translated = translate(weights, "ada-lstm", model.state_dict())
    assert translated.keys() == model.state_dict().keys()


def test_heads_are_assumed_aloud_and_must_divide(tmp_path: Path, wordmap: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c.pth", small_weights())
    notes = Notes()
    run(ImportCheckpointConfig(checkpoint, wordmap, tmp_path / "model"), notes)  # type: ignore[arg-type]
    assert any("8 is used" in text and "--heads" in text for text in notes.texts)
    for heads in (5, 0, -4):
        with pytest.raises(ModelError, match="one of: 1, 2, 4, 8, 16"):
            import_captioner(checkpoint, wordmap, heads=heads)


def test_missing_unknown_and_misshapen_weights_are_named_together(tmp_path: Path, wordmap: Path) -> None:
    weights = small_weights()
    del weights["decoder_k_proj.bias"]
    weights["refiner.weight"] = torch.zeros(2, 2)
    weights["decoder_v_proj.bias"] = torch.zeros(HIDDEN + 1)
    with pytest.raises(ModelError) as caught:
        import_captioner(write_checkpoint(tmp_path / "c.pth", weights), wordmap)
    for part in ("missing: decoder_k_proj.bias", "unknown: refiner.weight", "decoder_v_proj.bias (17,) for (16,)"):
        assert part in str(caught.value)


def test_a_model_of_another_kind_or_encoder_is_refused(tmp_path: Path, wordmap: Path) -> None:
    with pytest.raises(ModelError, match="modules are layer"):
        import_captioner(write_checkpoint(tmp_path / "c.pth", OrderedDict({"layer.weight": torch.zeros(2)})), wordmap)
    weights = small_weights()
    weights["img_encoder.encoder.0.weight"] = torch.zeros(8, 3, 3, 3)
    with pytest.raises(ModelError, match="Expected one of: vgg16, resnet50, resnet101"):
        import_captioner(write_checkpoint(tmp_path / "c.pth", weights), wordmap)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, wordmap: Path) -> None:
    weights = small_weights()
    weights["fc.bias"][3] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        import_captioner(write_checkpoint(tmp_path / "c.pth", weights), wordmap)


def changed(**changes: object) -> dict[str, object]:
    return {**word_map(), **changes}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({word: number for word, number in word_map().items() if word != "<end>"}, "<end> is missing"),
        (changed(dog=99), "none has the id 3"),
        (changed(dog=2), "the id 2 is given to more than one word"),
        (changed(dog="3"), "the id of 'dog' is no whole number"),
        (changed(dog=True), "the id of 'dog' is no whole number"),
        ({**word_map(), "<pad>": 1, "a": 0}, "<pad> has the id 1"),
    ],
)
def test_a_word_map_that_cannot_be_used_is_refused(words: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=message):
        read_wordmap(write_word_map(tmp_path / "w.json", words))


@pytest.mark.parametrize(
    "content", [b"[1, 2]", b"{}", b"3", b"[]", b"{", b"\x80\x02}q\x00.", b"\xff\xfe", b"[" * 100_000]
)
def test_a_word_map_that_is_no_json_object_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.json").write_bytes(content)
    with pytest.raises(VocabularyError, match="word map|word: id"):
        read_wordmap(tmp_path / "w.json")


def test_a_word_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text('{"<pad>": 0, "a": 1, "<unk>": 2, "<start>": 3, "<end>": 4, "a": 5}')
    with pytest.raises(VocabularyError, match="'a' is there more than once"):
        read_wordmap(tmp_path / "w.json")


def test_a_word_map_of_another_data_set_is_refused(tmp_path: Path) -> None:
    words = write_word_map(tmp_path / "w.json", {**word_map(), "cat": len(word_map())})
    with pytest.raises(ModelError, match="has 13 words, the word map .* has 14"):
        import_captioner(write_checkpoint(tmp_path / "c.pth", small_weights()), words)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_truncated_file_is_refused_wherever_it_ends(legacy: bool, tmp_path: Path) -> None:
    whole = write_checkpoint(tmp_path / "c.pth", small_weights(), legacy=legacy).read_bytes()
    for length in (1, 3, 10, 40, 200, len(whole) // 3, len(whole) - 9000, len(whole) - 1):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(ModelError, match="again"):
            read_checkpoint(tmp_path / "cut.pth")


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_bytes_end_in_a_clear_error_or_in_weights(legacy: bool, tmp_path: Path) -> None:
    whole = write_checkpoint(tmp_path / "c.pth", small_weights(), legacy=legacy).read_bytes()
    chance = random.Random(8)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[chance.randrange(6000)] = chance.randrange(256)
        (tmp_path / "c.pth").write_bytes(damaged)
        try:
            read_checkpoint(tmp_path / "c.pth")
        except ModelError:
            refused += 1
    assert refused > 30


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    with pytest.raises(ModelError, match="There is no file"):
        read_checkpoint(path)
    for content, message in (
        (b"", "is empty"),
        (b"a caption\n", "not in a format"),
        (pickle.dumps([1, 2]), "torn|not a checkpoint"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=message):
            read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/readme.txt", "text")
    with pytest.raises(ModelError, match="no data.pkl"):
        read_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_without_a_state_dict_is_refused(legacy: bool, tmp_path: Path) -> None:
    for content, message in (
        ({"epoch": 1, "model": {}}, "keys epoch, model"),
        ([1], "no mapping"),
        ({"state_dict": 3}, "no mapping"),
    ):
        torch.save(content, tmp_path / "c.pth", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ModelError, match=message):
            read_checkpoint(tmp_path / "c.pth")


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


class WithState:
    """Pickles as an allowed container whose state holds a call."""

    def __init__(self, state: object) -> None:
        self.state = state

    def __reduce__(self) -> tuple[object, tuple[()], object]:
        return OrderedDict, (), self.state


def write_pickle(path: Path, program: bytes, legacy: bool) -> Path:
    """Put a pickle program where torch.save puts the one of the content."""
    if legacy:
        head = [
            pickle.dumps(part, 2) for part in (LEGACY_MAGIC, 1001, {"little_endian": True, "protocol_version": 1001})
        ]
        path.write_bytes(b"".join(head) + program + pickle.dumps([], 2))
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3")
    return path


def global_call(module: str, name: str, argument: str) -> bytes:
    """Write the program of ``module.name(argument)`` for names that cannot be pickled from here."""
    return (
        b"\x80\x02c"
        + f"{module}\n{name}\n".encode()
        + b"X"
        + struct.pack("<I", len(argument))
        + argument.encode()
        + b"\x85R."
    )


def touching(canary: Path) -> dict[str, tuple[bytes, str]]:
    """Programs that make the canary when a pickle is loaded as usual, and what each asks for."""
    shell, code = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    call = Call(os.system, shell)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    optimizer.state["evil"] = call  # type: ignore[index]
    content: dict[str, object] = {"epoch": 1, "state_dict": OrderedDict()}
    system = f"{os.system.__module__}.system"
    as_instance = (
        b"(X" + struct.pack("<I", len(shell)) + shell.encode() + b"i" + system.replace(".", "\n").encode() + b"\n."
    )
    as_object = (
        b"(c" + system.replace(".", "\n").encode() + b"\nX" + struct.pack("<I", len(shell)) + shell.encode() + b"o."
    )
    return {
        "whole": (pickle.dumps(call, 2), system),
        "protocol 0": (pickle.dumps({**content, "optimizer": call}, 0), system),
        "protocol 4": (pickle.dumps({**content, "optimizer": call}, 4), system),
        "in the optimizer": (pickle.dumps({**content, "optimizer": optimizer}, 2), system),
        "in a state": (pickle.dumps({**content, "x": WithState({"hook": call})}, 2), system),
        "as a key": (pickle.dumps({**content, "x": [Call(os.system, shell)]}, 2), system),
        "eval": (pickle.dumps(Call(eval, code.replace("open", "__import__('builtins').open")), 2), "eval"),
        "exec": (pickle.dumps({"state_dict": {"w": Call(exec, code)}}, 2), "exec"),
        "subprocess": (pickle.dumps(Call(subprocess.check_call, ["touch", str(canary)]), 4), "subprocess.check_call"),
        "INST": (as_instance, system),
        "OBJ": (as_object, system),
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("case", list(touching(Path("canary"))))
def test_a_pickle_that_would_run_code_is_refused_and_nothing_runs(
    case: str, legacy: bool, tmp_path: Path, wordmap: Path
) -> None:
    canary = tmp_path / "canary"
    program, asked_for = touching(canary)[case]
    checkpoint = write_pickle(tmp_path / "c.pth", program, legacy)
    with pytest.raises(UnsafeCheckpointError, match=asked_for):
        run(ImportCheckpointConfig(checkpoint, wordmap, tmp_path / "model"))
    assert not canary.exists() and not (tmp_path / "model").exists()
    if not legacy and "optimizer" not in case:
        pickle.loads(program)
        assert canary.exists(), "the program must really run when it is loaded as usual"


REFUSED = [
    ("torch.hub", "load"),
    ("torch", "load"),
    ("torch.storage", "_load_from_bytes"),
    ("torch.optim.adam", "os.system"),
    ("torch.nn.modules.module", "torch.hub.load"),
    ("torch.nn.utils", "stateless"),
    ("torch.jit", "load"),
    ("torch._utils", "_import_dotted_name"),
    ("numpy", "load"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.testing._private.utils", "runstring"),
    ("collections", "namedtuple"),
    ("copyreg", "_reconstructor"),
    ("_codecs", "decode"),
    ("__builtin__", "getattr"),
    ("builtins", "open"),
    ("importlib", "import_module"),
    ("operator", "attrgetter"),
    ("functools", "partial"),
    ("models.gridTDmodel", "GridTDModel"),
]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("module", "name"), REFUSED)
def test_a_global_that_is_not_needed_is_refused_by_name(module: str, name: str, legacy: bool, tmp_path: Path) -> None:
    loaded = set(sys.modules)
    checkpoint = write_pickle(tmp_path / "c.pth", global_call(module, name, "x"), legacy)
    with pytest.raises(UnsafeCheckpointError) as caught:
        read_checkpoint(checkpoint)
    assert f"'{module}.{name}'" in str(caught.value) and "Nothing of it was run" in str(caught.value)
    assert set(sys.modules) <= loaded, "a refused module must not be imported either"


def test_the_extension_registry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeCheckpointError, match="extension registry"):
        read_checkpoint(write_pickle(tmp_path / "c.pth", b"\x80\x02\x82\x07.", legacy=False))


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02ctorch\nFloatStorage\n)R.",  # a storage class called
        b"\x80\x02X\x01\x00\x00\x00aX\x01\x00\x00\x00bR.",  # text called
        b"\x80\x02X\x01\x00\x00\x00a}b.",  # text given a state
        b"\x80\x02]]Ns.",  # an entry set in a list
        b"\x80\x02}(N)Nu.",  # an entry too few
        b"\x80\x02})Ns.",  # a tuple as a key
        b"\x80\x02h\x05.",  # an unknown memo entry
        b"\x80\x02\x85.",  # an empty stack
        b"\x80\x05\x97.",  # an out-of-band buffer
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",  # a tensor without arguments
    ],
)
def test_a_pickle_that_makes_no_sense_is_torn(program: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="torn") as caught:
        read_checkpoint(write_pickle(tmp_path / "c.pth", program, legacy=False))
    assert not isinstance(caught.value, UnsafeCheckpointError)


class FourNumbers:
    """Stands for a storage of four numbers outside the pickle."""


class OutsidePickler(pickle.Pickler):
    """Writes the numbers' place as torch.save does."""

    def persistent_id(self, obj: object) -> tuple[object, ...] | None:
        return ("storage", torch.FloatStorage, "0", "cpu", 4) if isinstance(obj, FourNumbers) else None


def test_a_tensor_within_its_numbers_is_read(tmp_path: Path) -> None:
    write_numbers(tmp_path / "c.pth", 1, (3,), (1,))
    assert read_checkpoint(tmp_path / "c.pth").weights["w"].tolist() == [2, 3, 4]


def write_numbers(path: Path, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
    """Write a checkpoint whose one tensor is the given view of 1, 2, 3, 4."""
    buffer = io.BytesIO()
    rebuilt = Call(torch._utils._rebuild_tensor_v2, FourNumbers(), offset, size, stride, False, OrderedDict())
    OutsidePickler(buffer, 2).dump({"state_dict": {"w": rebuilt}})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        archive.writestr("archive/data/0", struct.pack("<4f", 1, 2, 3, 4))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (5,), (1,)), (2, (3,), (1,)), (-1, (2,), (1,)), (0, (10**9,), (0,)), (0, (2, 2), (1,))],
)
def test_a_tensor_that_leaves_its_numbers_is_refused(
    offset: int, size: tuple[int, ...], stride: tuple[int, ...], tmp_path: Path
) -> None:
    write_numbers(tmp_path / "c.pth", offset, size, stride)
    with pytest.raises(ModelError, match="'w'.*does not fit its numbers"):
        read_checkpoint(tmp_path / "c.pth")
