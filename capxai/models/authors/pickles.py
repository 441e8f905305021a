"""Read a pickle without running it.

A pickle is a program for a small stack machine. `pickletools.genops` splits it into opcodes and decodes their
arguments; the machine here carries them out on plain containers and on the harmless stand-ins that `find` hands out.
It imports no module, looks up no attribute, calls nothing but `Constructor.make` and sets no attribute of anything, so
whatever a pickle holds, none of it runs.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, runtime_checkable

from capxai.errors import CapxaiError, ModelError, UnsafeCheckpointError


@dataclass(frozen=True, eq=False)
class Constructor:
    """What stands on the stack for a class or function that a pickle names.

    Attributes:
        name: The full name in the pickle.
        make: Builds the stand-in from the arguments that the pickle gives.
    """

    name: str
    make: Callable[..., object]


@runtime_checkable
class TakesState(Protocol):
    """A stand-in that a pickle may give a state to."""

    def take_state(self, state: object) -> None:
        """Keep what matters of the state, or nothing."""


class Key:
    """Base of the stand-ins that may be keys of a dict; they are told apart by identity."""


Find = Callable[[str, str], Constructor]
"""``find(module, name)``: the stand-in for a global; raises `UnsafeCheckpointError` for one that is not expected."""

Persistent = Callable[[object], object]
"""``persistent(identifier)``: the stand-in for an object that is stored outside the pickle."""

_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
_LITERALS = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    ]
)
_FRESH: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}


def read_pickle(stream: BinaryIO, find: Find, persistent: Persistent) -> object:
    """Read one pickle and leave the stream right behind it.

    Raises:
        UnsafeCheckpointError: The pickle names a global that `find` refuses, or uses the extension registry.
        ModelError: The pickle is torn, or is not one.
    """
    machine = _Machine(find, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.execute(opcode.name, argument)
        return machine.stack.pop()
    except CapxaiError:
        raise
    except Exception as error:
        raise ModelError(
            f"The file's pickle is torn ({type(error).__name__}: {error}). Expected what torch.save writes. Copy or "
            "download the "
            "file again."
        ) from error


class _Machine:
    """The stack, the marks on it and the memo. Stack underflow raises IndexError, an unknown memo entry KeyError."""

    def __init__(self, find: Find, persistent: Persistent) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.find = find
        self.persistent = persistent

    def execute(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        if name in _IGNORED:
            return
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _FRESH:
            self.stack.append(_FRESH[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name.startswith("EXT"):
            raise UnsafeCheckpointError(
                f"The checkpoint's pickle uses entry {argument} of Python's extension registry, which can stand for "
                "any code. "
                "No checkpoint of a captioner needs that; nothing of it was run. Do not use this file."
            )
        else:
            raise ValueError(f"opcode {name}, which torch.save does not write")

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def mark(self, _: object) -> None:
        self.marks.append(len(self.stack))

    def pop(self, _: object) -> None:
        self.stack.pop()

    def pop_mark(self, _: object) -> None:
        self.since_mark()

    def duplicate(self, _: object) -> None:
        self.stack.append(self.stack[-1])

    def put(self, index: Any) -> None:
        self.memo[int(index)] = self.stack[-1]

    def memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: Any) -> None:
        self.stack.append(self.memo[int(index)])

    def list_(self, _: object) -> None:
        self.stack.append(self.since_mark())

    def tuple_(self, _: object) -> None:
        self.stack.append(tuple(self.since_mark()))

    def short_tuple(self, length: int) -> None:
        items = [self.stack.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(items)))

    def dict_(self, _: object) -> None:
        items = self.since_mark()
        self.stack.append({})
        self.fill(items)

    def frozenset_(self, _: object) -> None:
        self.stack.append(frozenset(_checked_key(item) for item in self.since_mark()))

    def append(self, _: object) -> None:
        self.extend([self.stack.pop()])

    def appends(self, _: object) -> None:
        self.extend(self.since_mark())

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(_checked_key(item) for item in items)
        elif not isinstance(target, TakesState):
            raise TypeError(f"items are added to a {type(target).__name__}")

    def set_item(self, _: object) -> None:
        value = self.stack.pop()
        self.fill([self.stack.pop(), value])

    def set_items(self, _: object) -> None:
        self.fill(self.since_mark())

    def fill(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[_checked_key(key)] = value
        elif not isinstance(target, TakesState):
            raise TypeError(f"entries are set in a {type(target).__name__}")

    def global_(self, argument: Any) -> None:
        module, _, name = str(argument).partition(" ")
        self.stack.append(self.find(module, name))

    def stack_global(self, _: object) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise TypeError("a global without a name")
        self.stack.append(self.find(module, name))

    def instance(self, argument: Any) -> None:
        arguments = self.since_mark()
        self.global_(argument)
        self.construct(arguments)

    def object_(self, _: object) -> None:
        constructor, *arguments = self.since_mark()
        self.stack.append(constructor)
        self.construct(arguments)

    def reduce(self, _: object) -> None:
        self.construct(self.stack.pop())

    def reduce_with_keywords(self, _: object) -> None:
        self.stack.pop()
        self.construct(self.stack.pop())

    def construct(self, arguments: Any) -> None:
        constructor = self.stack.pop()
        if not isinstance(constructor, Constructor):
            raise TypeError(f"a {type(constructor).__name__} is called")
        self.stack.append(constructor.make(*arguments))

    def build(self, _: object) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, TakesState):
            target.take_state(state)
        elif not isinstance(target, dict):
            raise TypeError(f"a {type(target).__name__} is given a state")

    def outside(self, argument: Any) -> None:
        self.stack.append(self.persistent(argument))

    def outside_from_stack(self, _: object) -> None:
        self.stack.append(self.persistent(self.stack.pop()))


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "LIST": _Machine.list_,
    "TUPLE": _Machine.tuple_,
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "DICT": _Machine.dict_,
    "FROZENSET": _Machine.frozenset_,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "INST": _Machine.instance,
    "OBJ": _Machine.object_,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.reduce_with_keywords,
    "BUILD": _Machine.build,
    "PERSID": _Machine.outside,
    "BINPERSID": _Machine.outside_from_stack,
}


def _checked_key(key: object) -> Any:
    """Let simple keys pass: hashing a tuple that is nested very deep would overflow the C stack."""
    if key is None or isinstance(key, str | bytes | int | float | Key | Constructor):
        return key
    raise TypeError(f"a {type(key).__name__} is a key")
