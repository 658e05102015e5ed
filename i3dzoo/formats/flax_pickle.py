"""Pickles of nested dicts of numpy arrays, as Flax users save them, read without unpickling.

`pickle` would run what the file says. Here `pickletools` only decodes the opcodes, and a small
machine admits the few that plain dicts and numeric arrays need. No function named in the file is
ever looked up or called.
"""

import math
import mmap
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np

from i3dzoo.arrays import Array
from i3dzoo.errors import FormatError, UnsafeFileError
from i3dzoo.formats.container import MAX_TENSORS, Container

__all__ = ["read"]

_RECONSTRUCT: Final = (
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
)
_NDARRAY: Final = ("numpy", "ndarray")
_DTYPE: Final = ("numpy", "dtype")
_MARK: Final = object()
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MAX_DEPTH: Final = 20
_PUSH: Final = (
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
)


class _ArrayBuild:
    """An array whose state has not been read yet, or has."""

    def __init__(self) -> None:
        self.array: Array | None = None

    def set(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        numpy_dtype = dtype.resolve()
        if not isinstance(data, bytes) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError("an array's state is not a shape and bytes")
        if math.prod(shape) * numpy_dtype.itemsize != len(data):
            raise ValueError(f"an array of shape {shape} has {len(data)} bytes")
        flat = np.frombuffer(data, numpy_dtype)
        self.array = flat.reshape(shape, order="F" if fortran else "C")


class _DtypeBuild:
    """A dtype: a code such as f4, then a state whose second item is the byte order."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "="

    def set(self, state: Any) -> None:
        self.order = state[1]

    def resolve(self) -> np.dtype[Any]:
        if self.code not in ("f2", "f4", "f8", "i4", "i8", "u4", "u8"):
            raise ValueError(f"an array has dtype {self.code!r}")
        if self.order not in ("<", "=", "|"):
            raise ValueError(f"an array has byte order {self.order!r}")
        return np.dtype("<" + self.code)


class _Machine:
    """The stack and the memo of a pickle, for the opcodes of dicts and arrays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.visits = 0

    def refuse(self, what: str) -> UnsafeFileError:
        return UnsafeFileError(
            f"{self.path}: the pickle {what}; i3dzoo admits dicts of numpy arrays and nothing else"
        )

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
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("SETITEM", "SETITEMS"):
            self.set_items(name)
        elif name in ("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            self.make_tuple(name)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.push_global(argument)
        elif name == "REDUCE":
            self.reduce()
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], _ArrayBuild | _DtypeBuild):
                raise self.refuse("sets the state of an object")
            stack[-1].set(state)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise self.refuse(f"uses the opcode {name}")

    def set_items(self, name: str) -> None:
        items = self.pop_mark() if name == "SETITEMS" else [self.stack.pop(-2), self.stack.pop()]
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise self.refuse("sets items of something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise self.refuse("has a dict key that is no text")
            target[key] = value

    def make_tuple(self, name: str) -> None:
        if name == "EMPTY_TUPLE":
            self.stack.append(())
        elif name == "TUPLE":
            self.stack.append(tuple(self.pop_mark()))
        else:
            count = int(name[-1])
            items = self.stack[-count:]
            del self.stack[-count:]
            self.stack.append(tuple(items))

    def push_global(self, argument: str | None) -> None:
        if argument is None:
            name = self.stack.pop()
            found = (self.stack.pop(), name)
        else:
            module, _, name = argument.partition(" ")
            found = (module, name)
        if found not in (*_RECONSTRUCT, _NDARRAY, _DTYPE):
            raise self.refuse(f"asks for {found[0]}.{found[1]}")
        self.stack.append(found)

    def reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack.pop()
        if function in _RECONSTRUCT:
            self.stack.append(_ArrayBuild())
        elif function == _DTYPE and isinstance(arguments[0], str):
            self.stack.append(_DtypeBuild(arguments[0]))
        else:
            raise self.refuse("calls a function")

    def leaves(self, node: Any, name: str, depth: int = 0) -> Iterator[tuple[str, Array]]:
        """Yield the arrays below a node with their names."""
        self.visits += 1
        # dicts may contain one another many times over, or themselves
        if depth > _MAX_DEPTH or self.visits > MAX_TENSORS:
            raise self.refuse("nests without end")
        if isinstance(node, dict):
            for key, value in node.items():
                yield from self.leaves(value, f"{name}/{key}" if name else key, depth + 1)
        elif isinstance(node, _ArrayBuild) and node.array is not None and name:
            yield name, node.array
        else:
            raise self.refuse(f"holds {type(node).__name__} at {name or 'its root'}")


def read(path: Path) -> Container:
    """Read a pickle of nested dicts of arrays; names are the keys joined by slashes.

    Raises:
        UnsafeFileError: The pickle holds anything but dicts, text, and numeric arrays.
        FormatError: It is truncated or corrupt.
    """
    machine = _Machine(path)
    try:
        # a mapped file cuts a length that lies at the file's end, where a read would allocate it
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for opcode, argument, _ in pickletools.genops(cast(IO[bytes], data)):
                machine.step(opcode.name, argument)
        (root,) = machine.stack
        tensors = dict(machine.leaves(root, ""))
    except UnsafeFileError:
        raise
    except Exception as error:  # a corrupt pickle can fail in any opcode, in any way
        raise FormatError(
            f"{path}: the pickle is truncated or corrupt: {error or type(error).__name__}"
        ) from error
    return Container("flax", path, tensors)
