"""ONNX files: their initializers, read without the onnx package.

Exporters keep the names of a state dict for weights that they do not fold together; of several
that are equal PyTorch's keeps one, and an Identity node for the name of each other. Source:
onnx/onnx.proto: ModelProto.graph is field 7, metadata_props 14 (key 1, value 2); GraphProto.node 1
and initializer 5; of NodeProto input is 1, output 2, op_type 4; of TensorProto dims is 1, data_type
2, float_data 4, name 8, raw_data 9, external_data 13 (key 1, value 2), data_location 14.

PyTorch's exporter of today puts weights into a second file. It is read where it is a plain file
beside the first, and nowhere else.
"""

import math
import mmap
from pathlib import Path
from typing import Any, Final

import numpy as np

from i3dzoo.arrays import Array, bfloat16
from i3dzoo.errors import FormatError, MissingFileError, UnsafeFileError
from i3dzoo.formats._protobuf import fields, varint
from i3dzoo.formats.container import MAX_TENSORS, Container

__all__ = ["read", "read_properties"]

_DTYPES: Final = {1: "<f4", 10: "<f2", 11: "<f8"}
_BFLOAT16: Final = 16


def read(path: Path) -> Container:
    """Read the floating-point initializers of a graph; integers are shapes and axes, not weights.

    Raises:
        UnsafeFileError: Weights lie in another file that is not beside this one.
        FormatError: The file is truncated, corrupt or no ONNX, or has no such initializer.
    """
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    tensors: dict[str, Array] = {}
    copies: dict[str, str] = {}
    beside = _Beside(path)
    try:
        for number, graph in fields(data):
            if number != 7 or isinstance(graph, int):
                continue
            for part, message in fields(graph):
                if part == 5 and not isinstance(message, int):
                    _add(path, message, tensors, beside)
                elif part == 1 and not isinstance(message, int):
                    copies.update(_copy(message))
    except FormatError:
        raise
    except (ValueError, IndexError, OverflowError) as error:
        raise FormatError(f"{path}: is truncated or no ONNX file: {error}") from error
    originals = dict(tensors)
    tensors |= {copy: originals[name] for copy, name in copies.items() if name in originals}
    if not tensors:
        raise FormatError(f"{path}: holds no ONNX graph with weights")
    return Container("onnx", path, tensors)


def read_properties(path: Path) -> dict[str, str]:
    """Read the texts by key that a model carries about itself.

    Raises:
        MissingFileError: There is no such file.
        FormatError: It is truncated, corrupt or no ONNX.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: there is no such ONNX file")
    found: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        for number, value in fields(data):
            if number == 14 and not isinstance(value, int):
                found |= _entry(value)
    except (ValueError, IndexError, OverflowError) as error:
        raise FormatError(f"{path}: is truncated or no ONNX file: {error}") from error
    return found


class _Beside:
    """The files beside the model that hold its weights, each mapped once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, memoryview] = {}

    def window(self, name: str, entries: dict[str, str]) -> memoryview:
        """Return the bytes of a tensor that say where they are."""
        location = entries.get("location", "")
        file = self.path.with_name(location) if _plain(location) else None
        if file is None or file.is_symlink() or not file.is_file():
            raise UnsafeFileError(
                f"{self.path}: {name} lies in another file, {location or 'which has no name'}; put "
                "that file itself beside this one, or save the model in one file (onnx.save)"
            )
        if location not in self.files:
            self.files[location] = np.memmap(file, "u1", "r").data
        data = self.files[location]
        start = int(entries.get("offset", "0"))
        size = int(entries.get("length", len(data) - start))
        if min(start, size) < 0 or start + size > len(data):
            raise FormatError(
                f"{self.path}: {name} ends at byte {start + size} of {location}, which has "
                f"{len(data)}; it is truncated or another model's"
            )
        return data[start : start + size]


def _plain(location: str) -> bool:
    """Whether this is the name of a file and no path."""
    return bool(location.strip(".")) and not set(location) & set("/\\\0:")


def _copy(node: memoryview) -> dict[str, str]:
    """Return {output: input} of an Identity node, and nothing of any other."""
    parts = {number: value for number, value in fields(node) if not isinstance(value, int)}
    if bytes(parts.get(4, b"")) != b"Identity" or not {1, 2} <= set(parts):
        return {}
    return {str(parts[2], "utf-8"): str(parts[1], "utf-8")}


def _add(path: Path, message: memoryview, tensors: dict[str, Array], beside: _Beside) -> None:
    """Put an initializer among the tensors, if it is of floating-point numbers."""
    shape: list[int] = []
    parts: dict[int, Any] = {}
    external: dict[str, str] = {}
    for number, value in fields(message):
        if number == 13 and not isinstance(value, int):
            external |= _entry(value)
        elif number == 1:
            shape.extend([value] if isinstance(value, int) else _varints(value))
        elif number == 4 and 4 in parts:
            raise FormatError(f"{path}: keeps numbers one by one; save it again with onnx.save")
        else:
            parts[number] = value
    name = str(parts.get(8, b""), "utf-8")
    kind = parts.get(2, 0)
    if kind not in _DTYPES and kind != _BFLOAT16:
        return
    dtype = bfloat16() if kind == _BFLOAT16 else np.dtype(_DTYPES[kind])
    raw: Any
    if external or parts.get(14, 0):
        raw = beside.window(name, external)
    else:
        raw = parts.get(9, parts.get(4, b"") if kind == 1 else b"")
    size = math.prod(shape) * dtype.itemsize
    if isinstance(raw, int) or len(raw) != size:
        found = "nothing" if isinstance(raw, int) else f"{len(raw)} bytes"
        raise FormatError(f"{path}: {name} of shape {tuple(shape)} has {found}; expected {size}")
    if name in tensors or len(tensors) >= MAX_TENSORS:
        raise FormatError(f"{path}: {name} stands twice, or there are more than {MAX_TENSORS}")
    tensors[name] = np.ndarray(tuple(shape), dtype, buffer=raw)


def _entry(message: memoryview) -> dict[str, str]:
    parts = {number: value for number, value in fields(message) if not isinstance(value, int)}
    return {str(parts.get(1, b""), "utf-8"): str(parts.get(2, b""), "utf-8")}


def _varints(packed: memoryview) -> list[int]:
    numbers: list[int] = []
    at = 0
    while at < len(packed) and len(numbers) <= 8:
        number, at = varint(packed, at)
        numbers.append(number)
    return numbers
