"""The house rules that a reader would otherwise have to trust: imports go down, only the command line prints."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "capxai"
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "types", "config", "files"}),
    frozenset({"layers", "data"}),
    frozenset({"lrp", "models"}),
    frozenset({"explain", "evaluate", "finetune", "train"}),
    frozenset({"recipes"}),
    frozenset({"cli"}),
)
GROUND = FLOORS[0]
LONGEST_FILE = 330
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def _part(dotted: str) -> str:
    """Return the part of the package that a module belongs to; "" for the package itself and ``__main__``."""
    pieces = dotted.split(".")
    return pieces[1] if len(pieces) > 1 and not pieces[1].startswith("__") else ""


def _floor(part: str) -> int:
    return next(number for number, parts in enumerate(FLOORS) if part in parts)


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names of everything imported from capxai, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "capxai")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            module = node.module or ""
            if module == "capxai":
                yield from (f"capxai.{alias.name}" for alias in node.names)
            elif module.startswith("capxai."):
                yield module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            target = node.args[0]
            if isinstance(target, ast.Constant) and str(target.value).startswith("capxai"):
                yield str(target.value)


def misplaced_imports(module: str, source: str) -> list[str]:
    """Return the imports of a module that go up, or sideways to a sibling."""
    part = _part(module)
    if not part:
        return []
    found = []
    for imported in _imports(ast.parse(source)):
        other = _part(imported)
        known = any(other in parts for parts in FLOORS)
        if other in ("", part) or not known:  # the package itself offers its version, and lazily its functions
            continue
        if _floor(other) > _floor(part) or (_floor(other) == _floor(part) and part not in GROUND):
            found.append(imported)
    return found


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_only_go_down(path: Path) -> None:
    assert misplaced_imports(_name(path), path.read_text(encoding="utf-8")) == []


def test_every_part_of_the_package_has_a_floor() -> None:
    parts = {_part(_name(path)) for path in MODULES} - {""}
    assert parts <= frozenset().union(*FLOORS)


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("capxai.models.x", "from capxai.explain import y", ["capxai.explain"]),
        ("capxai.models.x", "import capxai.lrp.rules", ["capxai.lrp.rules"]),
        ("capxai.lrp.x", "def f():\n    from capxai.models.state import State", ["capxai.models.state"]),
        ("capxai.train.x", "from capxai import evaluate", ["capxai.evaluate"]),
        ("capxai.errors", "importlib.import_module('capxai.data.images')", ["capxai.data.images"]),
        ("capxai.recipes.x", "from capxai.models.folder import load", []),
        ("capxai.models.x", "from capxai import __version__", []),
    ],
)
def test_a_misplaced_import_is_found(module: str, source: str, expected: list[str]) -> None:
    assert misplaced_imports(module, source) == expected


@pytest.mark.parametrize("path", [path for path in MODULES if _part(_name(path)) != "cli"], ids=_name)
def test_only_the_command_line_prints(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not calls & {"print", "sys.stdout.write", "sys.stderr.write", "warnings.warn", "logging.getLogger"}
    imported = {
        (node.module or "" if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not imported & {"rich", "typer", "click", "tqdm"}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


def test_no_module_is_named_after_nothing() -> None:
    assert not {path.stem for path in MODULES} & FORBIDDEN_NAMES


def test_the_version_stands_once_in_two_places() -> None:
    project = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    package = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    versions = [re.search(pattern, text, re.M) for pattern, text in (
        (r'^version = "(.+)"$', project),
        (r'^__version__ = "(.+)"$', package),
    )]  # fmt: skip
    assert all(versions)
    assert len({match.group(1) for match in versions if match}) == 1
