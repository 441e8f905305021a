"""Settings from the command line, a file and the defaults."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from capxai.config import resolve, run_record, to_json
from capxai.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Every kind of field."""

    name: str = "run"
    epochs: int = 10
    rate: float = 1e-4
    resume: bool = False
    out: Path | None = None
    metrics: tuple[str, ...] = ("bleu",)
    decoder: Literal["ada-lstm", "mh-fc"] = "ada-lstm"
    head: Literal["all"] | int = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ConfigError(f"epochs is {self.epochs}. Expected 0 or more.")


@dataclass(frozen=True)
class Required:
    """A config with a field that has no default."""

    corpus: Path
    size: int


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(file: Path | None, overrides: list[str], **given: object) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(Settings, file, overrides, **given)
    return str(caught.value)


def test_defaults() -> None:
    assert resolve(Settings, None, []) == Settings()


def test_precedence(tmp_path: Path) -> None:
    file = toml(tmp_path, "epochs = 1\nseed = 1\nrate = 1\nname = 'file'\n")
    config = resolve(Settings, file, ["epochs=2", "seed=2", "seed=3", "rate=0.5"], epochs=4, rate=None, seed=None)
    assert config == Settings(name="file", epochs=4, seed=3, rate=0.5)


def test_every_kind_from_toml(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        "\ufeffname = '7'\nepochs = 3\nrate = 1\nresume = true\nout = 'runs/a'\nmetrics = ['cider', 'spice']\n"
        "decoder = 'mh-fc'\nhead = 3\n",
    )
    expected = Settings("7", 3, 1.0, True, Path("runs/a"), ("cider", "spice"), "mh-fc", 3)
    config = resolve(Settings, file, [])
    assert config == expected and isinstance(config.rate, float)


def test_every_kind_from_text() -> None:
    overrides = ["name=7", "epochs=3", "rate=1e-3", "resume=Yes", "out=a=b", "metrics=cider, spice", "head=3"]
    assert resolve(Settings, None, overrides) == Settings("7", 3, 1e-3, True, Path("a=b"), ("cider", "spice"), head=3)
    assert resolve(Settings, None, ["out=x", "out=none", "head=all", "metrics="]) == Settings(metrics=())


def test_explicit_options_are_checked_too() -> None:
    config = resolve(Settings, None, [], out="x", metrics=["a"], resume=False)
    assert config == Settings(out=Path("x"), metrics=("a",))
    assert "'decoder' as an option is 'mhfc'. Expected one of: ada-lstm, mh-fc. Did you mean 'mh-fc'?" in problems_of(
        None, [], decoder="mhfc"
    )


def test_a_dash_is_an_underscore() -> None:
    @dataclass(frozen=True)
    class Dashed:
        batch_size: int = 1

    globals()["Dashed"] = Dashed
    assert resolve(Dashed, None, ["batch-size=4"]).batch_size == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs=many", "'epochs' in --set is 'many'. Expected a whole number."),
        ("epochs=1.5", "Expected a whole number."),
        ("rate=fast", "'rate' in --set is 'fast'. Expected a finite number."),
        ("rate=nan", "Expected a finite number."),
        ("resume=perhaps", "Expected true or false."),
        ("out=", "Expected a path or none."),
        ("head=some", "Expected one of: all or a whole number."),
        ("ephocs=3", "Unknown setting 'ephocs' in --set. Choose one of: name, epochs,"),
        ("ephocs=3", "Did you mean 'epochs'?"),
        ("epochs", "--set 'epochs' has no key and value. Write it as --set key=value."),
        ("=3", "--set '=3' has no key and value."),
    ],
)
def test_wrong_overrides(text: str, message: str) -> None:
    found = problems_of(None, [text])
    assert message in found and "\n" not in found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epochs = '3'", "is '3'. Expected a whole number."),
        ("epochs = true", "is True. Expected a whole number."),
        ("epochs = 3.0", "is 3.0. Expected a whole number."),
        ("rate = true", "Expected a finite number."),
        ("rate = inf", "Expected a finite number."),
        ("resume = 1", "is 1. Expected true or false."),
        ("name = 3", "is 3. Expected text."),
        ("metrics = 'bleu'", "Expected a list"),
        ("metrics = [1]", "Expected a list in which each entry is text."),
        ("[train]\nepochs = 3", "Settings stand at the top level of the file, not in tables."),
        ("epochs = ", "is not valid TOML"),
    ],
)
def test_wrong_files(tmp_path: Path, line: str, message: str) -> None:
    file = toml(tmp_path, line)
    found = problems_of(file, [])
    assert message in found and str(file) in found


def test_unreadable_files(tmp_path: Path) -> None:
    assert "none.toml' cannot be read (No such file" in problems_of(tmp_path / "none.toml", [])
    assert f"'{tmp_path}' cannot be read (Is a directory)" in problems_of(tmp_path, [])
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    assert "is not valid TOML" in problems_of(tmp_path / "latin.toml", [])


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    file = toml(tmp_path, "epochs = 'x'\ncolour = 1\n")
    lines = problems_of(file, ["rate=x", "word"], decoder="lstm").splitlines()
    assert lines[0] == "5 problems with the settings:"
    assert all(line.startswith("- ") for line in lines[1:]) and len(lines) == 6


def test_checks_of_the_class_itself() -> None:
    assert problems_of(None, ["epochs=-1"]) == "epochs is -1. Expected 0 or more."


def test_missing_settings() -> None:
    with pytest.raises(ConfigError, match="The setting 'corpus' is missing"):
        resolve(Required, None, ["size=3"])
    with pytest.raises(ConfigError) as caught:
        resolve(Required, None, ["size=x"], corpus=Path("c"))
    assert str(caught.value) == "'size' in --set is 'x'. Expected a whole number."
    assert resolve(Required, None, ["size=3", "corpus=c"]) == Required(Path("c"), 3)


def test_to_json_is_plain() -> None:
    config = Settings(out=Path("runs") / "a", metrics=("x", "y"))
    described = json.loads(json.dumps(to_json(config)))
    assert described == {
        "name": "run",
        "epochs": 10,
        "rate": 1e-4,
        "resume": False,
        "out": str(Path("runs") / "a"),
        "metrics": ["x", "y"],
        "decoder": "ada-lstm",
        "head": "all",
        "seed": 0,
    }


def test_run_record() -> None:
    record = run_record(Settings(seed=7), device="cpu", pictures=[Path("a.jpg")])
    assert json.loads(json.dumps(record)) == record
    assert record["config"] == to_json(Settings(seed=7)) and record["seed"] == 7
    assert record["versions"]["numpy"] == importlib.metadata.version("numpy")
    assert record["versions"]["torch"] == importlib.metadata.version("torch")
    assert record["versions"]["python"] == platform.python_version()
    assert set(record["versions"]) == {"python", "capxai", "torch", "numpy"}
    assert record["device"] == "cpu" and record["pictures"] == ["a.jpg"]
    assert run_record(Required(Path("c"), 1))["seed"] is None


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve(Settings, None, []).epochs = 3  # type: ignore[misc]


def test_torch_is_not_imported() -> None:
    program = (
        "import dataclasses, sys, capxai.files, capxai.data.vocabulary, capxai.data.images, capxai.data.corpus\n"
        "from capxai.config import run_record\n"
        "assert run_record(dataclasses.make_dataclass('Empty', [])())['versions']['torch']\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
