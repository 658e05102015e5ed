"""Pickles of nested dicts of numpy arrays, as Flax users save them, read without unpickling.

Names are the keys joined by slashes. A key may itself hold a slash, as `Logits/Conv3d_0c_1x1` does
in the published file; it is written `~1` in names, and `~` is `~0`, as in JSON pointers (RFC 6901).
"""

import math
import mmap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from i3dzoo._files import atomic_write
from i3dzoo.arrays import Array, Tensors, flat_bytes
from i3dzoo.errors import FormatError, OutputError, UnsafeFileError
from i3dzoo.formats import _pickle_write as opcodes
from i3dzoo.formats._pickle_machine import Global, Opaque, load
from i3dzoo.formats.container import MAX_NAME, MAX_TENSORS, Container, is_shape

__all__ = ["read", "write"]

_MAX_DEPTH: Final = 20
_LONGEST: Final = 8  # of the codes of numpy's numbers
_DTYPES: Final = ("f2", "f4", "f8", "i4", "i8", "u4", "u8")


class _Dtype:
    """A dtype: a code such as f4, then a state whose second item is the byte order."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code[:_LONGEST].lstrip("<") if isinstance(code, str) else type(code).__name__
        self.order = "<"

    def set_state(self, state: Any) -> None:
        self.order = state[1] if isinstance(state[1], str) else type(state[1]).__name__

    def resolve(self) -> np.dtype[Any]:
        if self.code not in _DTYPES:
            raise ValueError(f"an array has dtype {self.code!r}")
        if self.order not in ("<", "=", "|"):
            raise ValueError(f"an array has byte order {self.order!r}")
        return np.dtype("<" + self.code)


class _Array:
    """An array whose state has not been read yet, or has."""

    def __init__(self, *_: Any) -> None:
        self.array: Array | None = None

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.fill(shape, dtype, "F" if fortran else "C", data)

    def fill(self, shape: Any, dtype: Any, order: Any, data: Any) -> "_Array":
        numpy_dtype = dtype.resolve()
        if not isinstance(data, bytes | bytearray) or not is_shape(shape):
            raise ValueError("an array's state is not a shape and bytes")
        if math.prod(shape) * numpy_dtype.itemsize != len(data):
            raise ValueError(f"an array of shape {shape} has {len(data)} bytes")
        flat = np.frombuffer(data, numpy_dtype)
        self.array = flat.reshape(shape, order="F" if order == "F" else "C")
        return self


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array().fill(shape, dtype, order, data)


class _Encode:
    """Encodes text, which takes as many bytes of the file at least, and at most all of them."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise ValueError("it encodes bytes as something else than latin1")
        self.room -= len(text)
        if self.room < 0:
            raise ValueError("it encodes more text than it holds")
        return text.encode("latin1")


_MAKERS: Final[dict[str, Callable[..., Any]]] = {
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
}


class _Leaves:
    """A walk through dicts that may contain one another many times over, or themselves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.visits = 0

    def refuse(self, what: str) -> UnsafeFileError:
        return UnsafeFileError(
            f"{self.path}: the pickle {what}; i3dzoo admits dicts of numpy arrays and nothing else"
        )

    def of(self, node: Any, name: str, depth: int = 0) -> Iterator[tuple[str, Array]]:
        """Yield the arrays below a node with their names."""
        self.visits += 1
        if depth > _MAX_DEPTH or self.visits > MAX_TENSORS or len(name) > MAX_NAME:
            raise self.refuse("nests without end")
        if isinstance(node, dict):
            for key, value in node.items():
                if not isinstance(key, str):
                    raise self.refuse("has a dict key that is no text")
                escaped = key.replace("~", "~0").replace("/", "~1")
                yield from self.of(value, f"{name}/{escaped}" if name else escaped, depth + 1)
        elif isinstance(node, _Array) and node.array is not None and name:
            yield name, node.array
        elif isinstance(node, Opaque | Global):
            raise self.refuse(f"asks for {node.name}")
        else:
            kind = type(node).__name__.strip("_").lower()
            raise self.refuse(f"holds {kind} at {name or 'its root'}")


def read(path: Path) -> Container:
    """Read a pickle of nested dicts of arrays.

    Raises:
        UnsafeFileError: The pickle holds anything but dicts, text, and numeric arrays.
        FormatError: It is truncated or corrupt.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            encode = _Encode(len(data))  # how Python 3 writes bytes for Python 2
            root = load(path, data, {**_MAKERS, "_codecs.encode": encode})
    except ValueError as error:  # mmap's, of an empty file
        raise (
            error if isinstance(error, FormatError) else FormatError(f"{path}: is empty")
        ) from error
    return Container("flax", path, dict(_Leaves(path).of(root, "")))


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write nested dicts of arrays that `pickle.loads` gives back, with any version of numpy.

    Args:
        path: The file.
        tensors: Arrays by name; slashes in names make the nesting, `~1` is a slash in a key.
        metadata: Not written: the file is the dict and nothing else.

    Raises:
        OutputError: The file cannot be written, a dtype is none of numpy's own or big-endian, or a
            tensor has the name of a dict of others.
    """
    tree: dict[str, Any] = {}
    for name, array in tensors.items():
        if array.dtype.str.lstrip("<") not in _DTYPES:
            raise OutputError(
                f"{path}: {name} has dtype {array.dtype}, which this layout's readers do not know; "
                "write a float32 checkpoint"
            )
        node = tree
        *parents, leaf = (k.replace("~1", "/").replace("~0", "~") for k in name.split("/"))
        for key in parents:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise _in_the_way(path, name)
        if leaf in node:
            raise _in_the_way(path, name)
        node[leaf] = array
    with atomic_write(path) as file:
        file.write(b"\x80\x04")
        _dump(file, tree)
        file.write(opcodes.STOP)


def _in_the_way(path: Path, name: str) -> OutputError:
    return OutputError(
        f"{path}: {name} and another tensor cannot both be written, one would be a dict that holds "
        "the other; change the names of the converter table"
    )


def _dump(file: BinaryIO, node: dict[str, Any]) -> None:
    file.write(opcodes.EMPTY_DICT)
    for key, value in node.items():
        file.write(opcodes.text(key))
        if isinstance(value, dict):
            _dump(file, value)
        else:
            _dump_array(file, value)
        file.write(b"s")


def _dump_array(file: BinaryIO, array: Array) -> None:
    """Write what numpy writes for an array, under the names that numpy 1 and 2 both know."""
    small = opcodes.integer
    empty = opcodes.tuple_of([small(0)])
    kind = b"C\x01b"  # the bytes b"b"
    array_type = opcodes.glob("numpy", "ndarray")
    file.write(opcodes.call("numpy.core.multiarray", "_reconstruct", array_type, empty, kind))
    code = opcodes.text(array.dtype.str[1:])
    file.write(b"(" + small(1) + opcodes.tuple_of(map(small, array.shape)))
    file.write(opcodes.call("numpy", "dtype", code, opcodes.FALSE, b"\x88"))
    order = [opcodes.text("<"), opcodes.NONE, opcodes.NONE, opcodes.NONE]
    minus = b"J\xff\xff\xff\xff"
    file.write(opcodes.tuple_of([small(3), *order, minus, minus, small(0)]) + b"b")
    raw = flat_bytes(array)
    file.write(opcodes.FALSE + b"\x8e" + raw.size.to_bytes(8, "little"))
    file.write(raw.data)
    file.write(b"tb")
