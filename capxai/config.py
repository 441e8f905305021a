"""Settings: from the command line, a file and the defaults to one typed, frozen config, and the record of a run."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import platform
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

from capxai import __version__
from capxai.errors import ConfigError
from capxai.types import JsonObject

RECORD_SCHEMA = 1
_RECORDED_PACKAGES = ("capxai", "torch", "numpy")
_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_NONE = "none"


class Config(Protocol):
    """Any frozen dataclass whose fields are str, int, float, bool, Path, Literal, tuples of these, or these or None."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


ConfigType = TypeVar("ConfigType", bound=Config)


class _MismatchError(Exception):
    """A value that cannot become what its field asks for; the text says what was expected."""


class _Source(NamedTuple):
    """Settings from one place; ``place`` says which, as it reads in a message."""

    place: str
    values: Mapping[str, object]
    only_text: bool = False


def resolve(config_class: type[ConfigType], file: Path | None, overrides: Sequence[str], **given: object) -> ConfigType:
    """Collect the settings of a recipe from all places where they can be given.

    The order of precedence is: ``given``, then ``overrides``, then the file, then the defaults of the class. Relative
    paths mean relative to the working folder, wherever they are written. ``none`` stands for None in the file and the
    overrides.

    Args:
        config_class: A frozen dataclass (see `Config`); its ``__post_init__`` may raise ConfigError too.
        file: A TOML file with settings at its top level, or None.
        overrides: ``key=value`` texts, as given by ``--set``; of two for one key the last one counts.
        **given: Values of options that were typed explicitly; None means not given.

    Raises:
        ConfigError: Anything is wrong; all problems are in one message.
    """
    return resolve_over(config_class, {}, file, overrides, **given)


def resolve_over(
    config_class: type[ConfigType],
    saved: Mapping[str, object],
    file: Path | None,
    overrides: Sequence[str],
    /,
    **given: object,
) -> ConfigType:
    """Collect settings as `resolve` does, over those of an earlier run, as `to_json` described them, instead of the defaults.

    Raises:
        ConfigError: Anything is wrong; all problems are in one message.
    """
    problems: list[str] = []
    sources = [_Source("of the run", {key: value for key, value in saved.items() if value is not None})]
    if file is not None:
        sources.append(_Source(f"in '{file}'", _read_toml(file, problems)))
    sources.append(_Source("in --set", _read_overrides(overrides, problems), only_text=True))
    sources.append(_Source("as an option", {key: value for key, value in given.items() if value is not None}))
    types_of = _field_types(config_class)
    values: dict[str, object] = {}
    for source in sources:
        values.update(_checked(source, types_of, problems))
    named = {_field_name(key) for source in sources for key in source.values}
    problems.extend(_missing(config_class, named))
    if problems:
        raise ConfigError(_collected(problems))
    return config_class(**values)


def to_json(config: Config) -> JsonObject:
    """Describe a config as plain JSON values: paths as text, tuples as lists."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def run_record(config: Config, **details: object) -> JsonObject:
    """Describe a run: its resolved config, the versions of what computed it, and the seed, if the config has one.

    Args:
        config: The config that was used.
        **details: More to record (JSON values or paths), such as the device that was chosen.
    """
    settings = to_json(config)
    versions = {"python": platform.python_version(), **{name: _version(name) for name in _RECORDED_PACKAGES}}
    record: JsonObject = {"schema": RECORD_SCHEMA, "config": settings, "versions": versions}
    record["platform"] = platform.platform()
    record["seed"] = settings.get("seed")
    return {**record, **{name: _plain(value) for name, value in details.items()}}


def _version(package: str) -> str | None:
    """Look up a version without importing the package (torch takes seconds); our own also where it runs from a checkout."""
    if package == "capxai":
        return __version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _read_toml(file: Path, problems: list[str]) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        problems.append(f"The config file '{file}' cannot be read ({error.strerror}). Give a TOML file that exists.")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"The config file '{file}' is not valid TOML ({error}). Write one 'key = value' a line.")
    return {}


def _read_overrides(overrides: Sequence[str], problems: list[str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if equals and key.strip():
            values[key.strip()] = value.strip()
        else:
            problems.append(f"--set '{text}' has no key and value. Write it as --set key=value.")
    return values


def _field_types(config_class: type[Config]) -> dict[str, object]:
    hints = typing.get_type_hints(config_class)
    return {field.name: hints[field.name] for field in dataclasses.fields(config_class) if field.init}


def _field_name(written: str) -> str:
    return written.replace("-", "_")


def _checked(source: _Source, types_of: Mapping[str, object], problems: list[str]) -> dict[str, object]:
    """Convert the values of one source to the types of their fields, and note what does not fit."""
    values: dict[str, object] = {}
    for written, value in source.values.items():
        key = _field_name(written)
        if key not in types_of:
            problems.append(_unknown(written, source.place, value, list(types_of)))
            continue
        try:
            values[key] = _convert(value, types_of[key], source.only_text)
        except _MismatchError as mismatch:
            problems.append(f"'{written}' {source.place} is {_shown(value)}. Expected {mismatch}.")
    return values


def _unknown(key: str, place: str, value: object, names: list[str]) -> str:
    close = difflib.get_close_matches(_field_name(key), names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    table = " Settings stand at the top level of the file, not in tables." if isinstance(value, dict) else ""
    return f"Unknown setting '{key}' {place}. Choose one of: {', '.join(names)}.{hint}{table}"


def _missing(config_class: type[Config], named: set[str]) -> list[str]:
    """Word a problem for each field without a default that was not named anywhere."""
    return [
        f"The setting '{field.name}' is missing. Expected a value. Give it with --set {field.name}=VALUE or --config."
        for field in dataclasses.fields(config_class)
        if field.init
        and field.name not in named
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]


def _collected(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return "\n".join([f"{len(problems)} problems with the settings:", *(f"- {problem}" for problem in problems)])


def _shown(value: object) -> str:
    return repr(str(value)) if isinstance(value, (str, Path)) else repr(value)


def _convert(value: object, kind: Any, from_text: bool) -> object:
    """Turn a value into a ``kind``; text is parsed only where it comes from ``--set``, which has nothing but text.

    Raises:
        _MismatchError: The value is no ``kind``.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, parts, from_text)
    if origin is Literal:
        return _convert_choice(value, parts)
    if origin is tuple:
        return _convert_tuple(value, parts[0], from_text)
    return _SCALARS[kind](value, from_text)


def _convert_union(value: object, parts: tuple[Any, ...], from_text: bool) -> object:
    kinds = [part for part in parts if part is not type(None)]
    if type(None) in parts and isinstance(value, str) and value.lower() == _NONE:
        return None
    expected = []
    for kind in kinds:
        try:
            return _convert(value, kind, from_text)
        except _MismatchError as mismatch:
            expected.append(str(mismatch))
    raise _MismatchError(" or ".join([*expected, *(["none"] if type(None) in parts else [])]))


def _convert_choice(value: object, choices: tuple[Any, ...]) -> object:
    for choice in choices:
        if (type(value) is type(choice) and value == choice) or (isinstance(value, str) and value == str(choice)):
            return choice
    names = [str(choice) for choice in choices]
    close = difflib.get_close_matches(str(value), names, n=1)
    raise _MismatchError(f"one of: {', '.join(names)}" + (f". Did you mean '{close[0]}'?" if close else ""))


def _convert_tuple(value: object, kind: Any, from_text: bool) -> tuple[object, ...]:
    if from_text and isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if not isinstance(value, (list, tuple)):
        raise _MismatchError("a list (in --set: separated by commas)")
    try:
        return tuple(_convert(item, kind, from_text) for item in value)
    except _MismatchError as mismatch:
        raise _MismatchError(f"a list in which each entry is {mismatch}") from mismatch


def _text(value: object, from_text: bool) -> str:
    if isinstance(value, str):
        return value
    raise _MismatchError("text")


def _path(value: object, from_text: bool) -> Path:
    if isinstance(value, (str, Path)) and str(value):
        return Path(value).expanduser()
    raise _MismatchError("a path")


def _truth(value: object, from_text: bool) -> bool:
    if isinstance(value, bool):
        return value
    if from_text and isinstance(value, str) and value.lower() in _TRUTH:
        return _TRUTH[value.lower()]
    raise _MismatchError("true or false")


def _whole(value: object, from_text: bool) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if from_text and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return int(value)
    raise _MismatchError("a whole number")


def _number(value: object, from_text: bool) -> float:
    number = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            number = float(value)
    elif from_text and isinstance(value, str):
        with contextlib.suppress(ValueError):
            number = float(value)
    if not math.isfinite(number):
        raise _MismatchError("a finite number")
    return number


_SCALARS: dict[Any, Any] = {str: _text, Path: _path, bool: _truth, int: _whole, float: _number}
