"""Read and write pickles of nested dicts of numpy arrays, as Flax users save them.

Pickles are decoded, not executed. Names are the keys joined by slashes. A slash within a key, such
as in `Logits/Conv3d_0c_1x1` of the published file, becomes `~1`, and `~` becomes `~0`, as in JSON
pointers (RFC 6901).
"""

import itertools
import math
import mmap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from i3dzoo.arrays import Array, Tensors, flat_bytes
from i3dzoo.errors import OutputError, UnsafeFileError
from i3dzoo.files import atomic_write
from i3dzoo.formats import _pickle_write as opcodes
from i3dzoo.formats._pickle_machine import Global, Opaque, load
from i3dzoo.formats.container import Container, is_shape
from i3dzoo.formats.limits import MAX_NAME, MAX_TENSORS

_MAX_DEPTH: Final = 20
_MAX_CODE: Final = 8  # characters
_DTYPES: Final = ("f2", "f4", "f8", "i4", "i8", "u4", "u8")


class _Dtype:
    """A dtype: a code such as f4, and a state whose second item is the byte order."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code[:_MAX_CODE].lstrip("<") if isinstance(code, str) else type(code).__name__
        self.order = "<"

    def set_state(self, state: Any) -> None:
        self.order = state[1] if isinstance(state[1], str) else type(state[1]).__name__

    def resolve(self) -> np.dtype[Any]:
        if self.code not in _DTYPES:
            raise ValueError(f"an array has dtype {self.code!r}")
        if self.order not in ("<", "=", "|"):
            raise ValueError(f"an array has byte order {self.order!r}")
        return np.dtype("<" + self.code)


def _decode(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    numpy_dtype = dtype.resolve()
    if not isinstance(data, bytes | bytearray) or not is_shape(shape):
        raise ValueError("the state of an array is not a shape and bytes")
    if math.prod(shape) * numpy_dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {shape} has {len(data)} bytes")
    return np.frombuffer(data, numpy_dtype).reshape(shape, order="F" if order == "F" else "C")


class _Array:
    """An array, which is None until its state is set."""

    def __init__(self, *_: Any) -> None:
        self.array: Array | None = None

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _decode(data, dtype, shape, "F" if fortran else "C")


_ARRAYS: Final[dict[str, Callable[..., Any]]] = {
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.core.numeric._frombuffer": _decode,
    "numpy._core.numeric._frombuffer": _decode,
}


def read(path: Path) -> Container:
    """Read a pickle of nested dicts of arrays."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        root = load(path, data, array_makers(len(data)))
    return Container("flax", path, arrays(path, root))


def array_makers(size: int) -> dict[str, Callable[..., Any]]:
    """Return the functions that make the arrays of one pickle of `size` bytes."""
    room = size

    def encode(text: str, encoding: str) -> bytes:
        """Encode bytes, which protocol 2 stores as text, to at most the size of the pickle."""
        nonlocal room
        if encoding != "latin1":
            raise ValueError("it encodes bytes in an encoding other than latin1")
        room -= len(text)
        if room < 0:
            raise ValueError("it encodes more text than it contains")
        return text.encode("latin1")

    return {**_ARRAYS, "_codecs.encode": encode}


def arrays(path: Path, root: Any) -> dict[str, Array]:
    """Return the arrays of nested dicts, by their keys joined by slashes."""
    return dict(_leaves(path, root, itertools.count(1)))


def as_array(value: Any) -> Array | None:
    """Return the array that a pickled object is, or None."""
    array = value.array if isinstance(value, _Array) else value
    return array if isinstance(array, np.ndarray) else None


def _leaves(
    path: Path, node: Any, visits: Iterator[int], name: str = "", depth: int = 0
) -> Iterator[tuple[str, Array]]:
    """Yield the arrays below a node; dicts may contain one another repeatedly, or themselves."""
    if depth > _MAX_DEPTH or next(visits) > MAX_TENSORS or len(name) > MAX_NAME:
        raise _unsafe(path, "is nested too deeply or has too many items")
    array = as_array(node)
    if isinstance(node, dict):
        for key, value in node.items():
            if not isinstance(key, str):
                raise _unsafe(path, "has a dict key that is not a string")
            escaped = key.replace("~", "~0").replace("/", "~1")
            below = f"{name}/{escaped}" if name else escaped
            yield from _leaves(path, value, visits, below, depth + 1)
    elif array is not None and name:
        yield name, array
    elif isinstance(node, Opaque | Global):
        raise _unsafe(path, f"calls {node.name}")
    else:
        kind = type(node).__name__.strip("_").lower()
        raise _unsafe(path, f"holds {kind} at {name or 'its root'}")


def _unsafe(path: Path, what: str) -> UnsafeFileError:
    return UnsafeFileError(f"{path}: the pickle {what}; expected only nested dicts of numpy arrays")


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write nested dicts of arrays, without metadata, that any version of numpy unpickles."""
    tree: dict[str, Any] = {}
    for name, array in tensors.items():
        if array.dtype.str.lstrip("<") not in _DTYPES:
            raise OutputError(
                f"{path}: {name} has dtype {array.dtype}, which this layout does not support; "
                "write a float32 checkpoint"
            )
        node: Any = tree
        *parents, leaf = (k.replace("~1", "/").replace("~0", "~") for k in name.split("/"))
        for key in parents:
            node = node.setdefault(key, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict) or leaf in node:
            raise OutputError(
                f"{path}: {name} conflicts with the name of another tensor, because one would be a "
                "dict that holds the other; change the names in the converter table"
            )
        node[leaf] = array
    with atomic_write(path) as file:
        file.write(b"\x80\x04")
        _dump(file, tree)
        file.write(opcodes.STOP)


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
    """Write the pickle of an array as numpy does, with names that exist in numpy 1 and 2."""
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
    for piece in (opcodes.FALSE + b"\x8e" + raw.size.to_bytes(8, "little"), raw.data, b"tb"):
        file.write(piece)
