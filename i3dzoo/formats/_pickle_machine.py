"""Pickles decoded without unpickling: no function that a file names is looked up or called.

`pickletools` decodes the opcodes, and a small stack machine carries out those that build data. A
name such as `torch._utils._rebuild_tensor_v2` stays a name; what calling it would give is made by
one of our own functions where there is one for it, and is an inert `Opaque` otherwise. The reader
of a format then takes what it wants, and refuses a file in which an `Opaque` stands in its place.
"""

import mmap
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

from i3dzoo.errors import FormatError, UnsafeFileError
from i3dzoo.formats.container import MAX_NAME

__all__ = ["Global", "Opaque", "load"]

_MAX_STEPS: Final = 300_000
"""A checkpoint with its optimiser takes some ten thousand opcodes; each may make an object."""

_MARK: Final = object()
_KEYS: Final = (str, bytes, int, float, type(None))
_PUSH: Final = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: Final[dict[str, type]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
}


@dataclass(frozen=True)
class Global:
    """A name in the file of a function or class.

    Attributes:
        name: Module and name, with a dot.
    """

    name: str


@dataclass(eq=False)
class Opaque:
    """What a call would have made; nothing was called.

    Attributes:
        name: What the file wanted to call.
        state: What the file says of the object, usually a dict of its attributes.
    """

    name: str
    state: Any = None
    arguments: tuple[Any, ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        return self.name


Maker = Callable[..., Any]


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, makers: Mapping[str, Maker], persistent: Callable[[Any], Any]) -> None:
        self.makers = makers
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def step(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        stack = self.stack
        if name in _PUSH:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[int(argument)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[int(argument)])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            self.shorten(int(name[-1]))
        elif method := getattr(self, f"do_{name.lower()}", None):
            method(argument)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"it uses the opcode {name}")

    def shorten(self, count: int) -> None:
        if count > len(self.stack):
            raise IndexError("the stack is empty")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(items)

    def do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.pop_mark()))

    def do_list(self, _: Any) -> None:
        self.stack.append(self.pop_mark())

    do_frozenset = do_list

    def do_dict(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self.set_items(items)

    def do_pop(self, _: Any) -> None:
        self.stack.pop()

    def do_append(self, _: Any) -> None:
        self.extend([self.stack.pop()])

    def do_appends(self, _: Any) -> None:
        self.extend(self.pop_mark())

    do_additems = do_appends

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)
        elif not isinstance(self.stack[-1], Opaque):
            raise ValueError("it appends to something that is no list")

    def do_setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def do_setitems(self, _: Any) -> None:
        self.set_items(self.pop_mark())

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("it sets items of something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # tuples may be so deep that hashing them overflows the stack
            target[key if isinstance(key, _KEYS) else f"<{type(key).__name__}>"] = value

    def do_global(self, argument: str) -> None:
        self.stack.append(Global(argument.replace(" ", ".", 1)))

    def do_stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("it names something by what is no text")
        if len(name) + len(module) > MAX_NAME:
            raise ValueError(f"it names something by more than {MAX_NAME} characters")
        self.stack.append(Global(f"{module}.{name}"))

    def do_reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple):
            raise ValueError("it calls with arguments that are no tuple")
        self.call(function, arguments)

    do_newobj = do_reduce

    def do_newobj_ex(self, _: Any) -> None:
        self.stack.pop()
        self.do_reduce(None)

    def do_obj(self, _: Any) -> None:
        function, *arguments = self.pop_mark()
        self.call(function, tuple(arguments))

    def do_inst(self, argument: str) -> None:
        self.call(Global(argument.replace(" ", ".", 1)), tuple(self.pop_mark()))

    def call(self, function: Any, arguments: tuple[Any, ...]) -> None:
        name = function.name if isinstance(function, Global) else repr(type(function).__name__)
        maker = self.makers.get(name) if isinstance(function, Global) else None
        self.stack.append(maker(*arguments) if maker else Opaque(name, arguments=arguments))

    def do_build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Opaque):
            target.state = state
        elif hasattr(target, "set_state"):
            target.set_state(state)
        elif not isinstance(target, dict):  # a dict with attributes, as PyTorch's `_metadata`
            raise ValueError("it sets the state of something that is no object")

    def do_binpersid(self, _: Any) -> None:
        self.stack.append(self.persistent(self.stack.pop()))


def _no_persistent(_: Any) -> Any:
    raise ValueError("it refers to something outside the pickle")


def load(
    path: Path,
    data: mmap.mmap | IO[bytes],
    makers: Mapping[str, Maker],
    persistent: Callable[[Any], Any] = _no_persistent,
) -> Any:
    """Decode one pickle from where a file stands to its end.

    Args:
        path: The file, for messages.
        data: The pickle; a mapped file cuts a length that lies at the file's end, where a read
            would allocate it.
        makers: Functions of ours that stand in for those that the file names.
        persistent: Makes of a persistent id what it means.

    Raises:
        UnsafeFileError: It has more opcodes than any checkpoint.
        FormatError: It is truncated or corrupt.
    """
    machine = _Machine(makers, persistent)
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], data))):
            if number > _MAX_STEPS:
                raise UnsafeFileError(
                    f"{path}: the pickle has more than {_MAX_STEPS} opcodes; a checkpoint has "
                    "some ten thousand"
                )
            machine.step(opcode.name, argument)
        (root,) = machine.stack
    except UnsafeFileError:
        raise
    except Exception as error:  # a corrupt pickle can fail in any opcode, in any way
        raise FormatError(
            f"{path}: the pickle is truncated or corrupt: {error or type(error).__name__}"
        ) from error
    return root
