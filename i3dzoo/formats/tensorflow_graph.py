"""Read the constants of frozen TensorFlow graphs (`.pb`) without TensorFlow.

A graph is frozen when `convert_variables_to_constants` has replaced its variables by constants of
the same names. Sources, in tensorflow/core/framework: graph.proto, node_def.proto, attr_value.proto
and tensor.proto. GraphDef: node 1. NodeDef: name 1, op 2, attr 5 (key 1, value 2). AttrValue:
tensor 8. TensorProto: dtype 1, tensor_shape 2 (dim 2, size 1), tensor_content 4, float_val 5,
double_val 6, half_val 13.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from i3dzoo.arrays import Array, bfloat16
from i3dzoo.errors import FormatError
from i3dzoo.formats._protobuf import Decoder, TruncatedError, varint
from i3dzoo.formats.container import Container, by_name, is_shape, mapped
from i3dzoo.formats.limits import MAX_AXES, MAX_REPEATED
from i3dzoo.text import shorten

_DTYPES: Final = {1: "<f4", 2: "<f8", 19: "<f2"}
_BFLOAT16: Final = 14
_FLOATS: Final = {1: (5, "<f4"), 2: (6, "<f8")}  # the field of single numbers, and their type
_CONTENT: Final = 4


def read(path: Path) -> Container:
    """Read the floating-point constants of a graph; integers are shapes and axes."""
    reader = _Reader(path)
    named = (constant for node in reader.nodes() if (constant := reader.constant(node)))
    remedy = "freeze its variables with convert_variables_to_constants, or give its checkpoint"
    tensors = by_name(path, named, f"is a TensorFlow graph without weights; {remedy}")
    return Container("graphdef", path, tensors)


class _Reader:
    """Reads one graph; numbers that it repeats take at most MAX_REPEATED bytes in all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = mapped(path).data
        self.decoder = Decoder()
        self.repeated = 0

    def nodes(self) -> Iterator[memoryview]:
        return self.decoder.parts(self.data, 1)

    def constant(self, node: memoryview) -> tuple[str, Array] | None:
        """Return the name and the array of a node, or None if it is not a constant of floats."""
        decoder = self.decoder
        name, operator = decoder.texts(node, 1, 2)
        if operator != "Const":
            return None
        for attribute in decoder.parts(node, 5):
            if decoder.texts(attribute, 1) == ("value",):
                for value in decoder.parts(attribute, 2):
                    for tensor in decoder.parts(value, 8):
                        array = self._tensor(name, tensor)
                        return None if array is None else (name, array)
        return None

    def _tensor(self, name: str, message: memoryview) -> Array | None:
        kind, shape = 0, []  # type: tuple[int, list[int]]
        raw: dict[int, Any] = {}
        for number, value in self.decoder.fields(message):
            if number == 1 and isinstance(value, int):
                kind = value
            elif number == 2 and not isinstance(value, int):
                for dimension in self.decoder.parts(value, 2):
                    shape += self.decoder.integers(dimension, 1)
                    if len(shape) > MAX_AXES:
                        raise FormatError(f"{self.path}: a constant has more than {MAX_AXES} axes")
            elif number in (_CONTENT, 5, 6):
                if number in raw:
                    raise TruncatedError("it stores numbers one by one")
                raw[number] = value
        if kind not in _DTYPES and kind != _BFLOAT16:
            return None
        if not is_shape(shape):
            raise FormatError(f"{self.path}: {shorten(name)} has an impossible shape")
        dtype = bfloat16() if kind == _BFLOAT16 else np.dtype(_DTYPES[kind])
        content = raw.get(_CONTENT, b"")
        if isinstance(content, memoryview) and len(content):
            return self._view(name, content, shape, dtype)
        field, own = _FLOATS.get(kind, (0, ""))
        return self._repeat(name, raw.get(field, b""), shape, np.dtype(own)) if field else None

    def _view(
        self, name: str, content: memoryview, shape: list[int], dtype: np.dtype[Any]
    ) -> Array:
        size = math.prod(shape) * dtype.itemsize
        if len(content) != size:
            raise FormatError(
                f"{self.path}: {shorten(name)} of shape {tuple(shape)} has {len(content)} bytes; "
                f"expected {size}"
            )
        return np.ndarray(tuple(shape), dtype, buffer=content)

    def _repeat(self, name: str, numbers: Any, shape: list[int], dtype: np.dtype[Any]) -> Array:
        """Return an array whose last stored number stands for all that follow."""
        if isinstance(numbers, int):  # one number, not in a packed field
            numbers = numbers.to_bytes(dtype.itemsize, "little")
        count, size = len(numbers) // dtype.itemsize, math.prod(shape)
        self.repeated += max(size - count, 0) * dtype.itemsize
        if self.repeated > MAX_REPEATED or not count <= size or (size and not count):
            raise FormatError(
                f"{self.path}: {shorten(name)} of shape {tuple(shape)} has {count} numbers; "
                f"expected {size}"
            )
        if not size:
            return np.zeros(shape, dtype)
        return np.pad(np.frombuffer(numbers, dtype), (0, size - count), "edge").reshape(shape)


def is_graph(head: bytes) -> bool:
    """Whether these first bytes of a file may be a GraphDef: a node that begins with its name."""
    try:
        return head[:1] == b"\n" and head[varint(head, 1)[1]] == ord("\n")
    except (IndexError, TruncatedError):
        return False
