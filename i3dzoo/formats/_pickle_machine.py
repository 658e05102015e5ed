"""Decode pickles safely: no function that a file names is imported or called.

`pickletools` decodes the opcodes, and a small stack machine executes those that build data. A name
such as `torch._utils._rebuild_tensor_v2` stays a name. A call gives the result of a replacement
function, if the reader has one for that name, and an inert `Opaque` otherwise. Readers refuse files
that contain an `Opaque` where they expect data.
"""

import mmap
import pickletools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

from i3dzoo.errors import FormatError, UnsafeFileError
from i3dzoo.formats.limits import MAX_NAME, MAX_OBJECT, MAX_OPCODES, MAX_TEXT
from i3dzoo.text import shorten

_MARK: Final = object()
_KEYS: Final = (str, bytes, int, float, type(None))
_PUSH: Final = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK}
_EMPTY: Final[dict[str, type]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
}
_TAKES_TO_MARK: Final = frozenset(
    ("TUPLE", "LIST", "FROZENSET", "DICT", "APPENDS", "ADDITEMS", "SETITEMS", "OBJ", "INST")
)
_TAKES: Final = {
    **dict.fromkeys(("POP", "APPEND", "BUILD", "BINPERSID", "TUPLE1"), 1),
    **dict.fromkeys(("SETITEM", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "TUPLE2"), 2),
    **dict.fromkeys(("NEWOBJ_EX", "TUPLE3"), 3),
}
"""How many objects an opcode takes from the stack; 0 if it is not listed."""


@dataclass(frozen=True)
class Global:
    """The name of a function or class in a pickle: module and name, joined by a dot."""

    name: str


@dataclass(eq=False)
class Opaque:
    """The place of an object that a call would have created; nothing was called.

    `state` is usually a dict of the attributes of the object.
    """

    name: str
    state: Any = None
    arguments: tuple[Any, ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        return self.name


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(
        self, makers: Mapping[str, Callable[..., Any]], persistent: Callable[[Any], Any]
    ) -> None:
        self.makers = makers
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Execute one opcode."""
        stack = self.stack
        if name in _PUSH:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[int(argument)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[int(argument)])
        else:
            self.execute(name, argument, self.take(name))

    def take(self, name: str) -> list[Any]:
        """Pop the objects that an opcode takes from the stack."""
        if name in _TAKES_TO_MARK:
            items = []
            while (item := self.stack.pop()) is not _MARK:
                items.append(item)
            return items[::-1]
        start = len(self.stack) - _TAKES.get(name, 0)
        if start < 0:
            raise IndexError("the stack is empty")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def execute(self, name: str, argument: Any, items: list[Any]) -> None:
        stack = self.stack
        match name:
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(items))
            case "LIST" | "FROZENSET":
                stack.append(items)
            case "DICT":
                stack.append({})
                self.set_items(items)
            case "APPEND" | "APPENDS" | "ADDITEMS":
                if isinstance(stack[-1], list):
                    stack[-1].extend(items)
                elif not isinstance(stack[-1], Opaque):
                    raise ValueError("it appends to something that is not a list")
            case "SETITEM" | "SETITEMS":
                self.set_items(items)
            case "GLOBAL":
                stack.append(_global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_global(*items))
            case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
                self.call(items[0], items[1])
            case "OBJ":
                self.call(items[0], tuple(items[1:]))
            case "INST":
                self.call(_global(*argument.split(" ", 1)), tuple(items))
            case "BUILD":
                self.set_state(stack[-1], items[0])
            case "BINPERSID":
                stack.append(self.persistent(items[0]))
            case "POP" | "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise ValueError(f"it uses the opcode {name}")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("it sets items of something that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # hashing a deeply nested tuple can overflow the stack
            target[key if isinstance(key, _KEYS) else f"<{type(key).__name__}>"] = value

    def call(self, function: Any, arguments: Any) -> None:
        if not isinstance(arguments, tuple):
            raise ValueError("it calls a function with arguments that are not a tuple")
        name = function.name if isinstance(function, Global) else repr(type(function).__name__)
        maker = self.makers.get(name) if isinstance(function, Global) else None
        self.stack.append(maker(*arguments) if maker else Opaque(name, arguments=arguments))

    def set_state(self, target: Any, state: Any) -> None:
        if isinstance(target, Opaque):
            target.state = state
        elif hasattr(target, "set_state"):
            target.set_state(state)
        elif not isinstance(target, dict):  # a dict with attributes, like PyTorch's `_metadata`
            raise ValueError("it sets the state of something that is not an object")


def _global(module: Any, name: Any) -> Global:
    if not isinstance(name, str) or not isinstance(module, str):
        raise ValueError("it has a name that is not a string")
    if len(name) + len(module) > MAX_NAME:
        raise ValueError(f"it has a name of more than {MAX_NAME} characters")
    return Global(f"{module}.{name}")


def _no_persistent(_: Any) -> Any:
    raise ValueError("it refers to an object outside the pickle")


def load(
    path: Path,
    data: mmap.mmap | IO[bytes],
    makers: Mapping[str, Callable[..., Any]],
    persistent: Callable[[Any], Any] = _no_persistent,
) -> Any:
    """Decode one pickle from the current position of a file.

    `makers` replace the functions that the pickle calls, by name; `persistent` returns the object
    of a persistent id.
    """
    machine, source = _Machine(makers, persistent), _Source(data)
    text = 0
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], source))):
            if number > MAX_OPCODES:
                raise UnsafeFileError(
                    f"{path}: the pickle has more than {MAX_OPCODES} opcodes; expected about ten "
                    "thousand"
                )
            if isinstance(argument, str):
                text += sys.getsizeof(argument)
                if text > source.read_bytes + MAX_TEXT:
                    raise UnsafeFileError(f"{path}: the texts of the pickle take {text} bytes")
            machine.step(opcode.name, argument)
        (root,) = machine.stack
    except UnsafeFileError:
        raise
    except Exception as error:  # a corrupt pickle can raise nearly any error
        reason = shorten(str(error), 200) or type(error).__name__
        raise FormatError(f"{path}: the pickle is truncated or corrupt: {reason}") from error
    return root


class _Source:
    """A file that genops reads, object by object, of bounded size."""

    def __init__(self, data: mmap.mmap | IO[bytes]) -> None:
        self.data = data
        self.read_bytes = 0

    def read(self, size: int) -> bytes:
        if size > MAX_OBJECT:
            raise ValueError(f"it has an object of {size} bytes; expected at most {MAX_OBJECT}")
        self.read_bytes += size
        return self.data.read(size)

    def readline(self) -> bytes:
        line = self.data.readline()
        self.read_bytes += len(line)
        return line

    def tell(self) -> int:
        return self.data.tell()
