"""Read the initializers, the nodes and the metadata of ONNX files without the onnx package.

Exporters keep the names of a state dict for weights that they do not fold. PyTorch's exporter
stores equal weights once, and adds an Identity node for each other name. It also puts weights into
a second file, which is read only if it is a regular file in the same folder.

Source: onnx/onnx.proto. ModelProto: graph 7, metadata_props 14 (key 1, value 2). GraphProto: node
1, initializer 5. NodeProto: input 1, output 2, op_type 4. TensorProto: dims 1, data_type 2,
float_data 4, name 8, raw_data 9, external_data 13 (key 1, value 2), data_location 14.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from i3dzoo.arrays import Array, bfloat16
from i3dzoo.errors import FormatError, MissingFileError, UnsafeFileError
from i3dzoo.formats._protobuf import Decoder, varint
from i3dzoo.formats.container import Container, by_name, mapped
from i3dzoo.formats.limits import MAX_AXES
from i3dzoo.text import shorten

_DTYPES: Final = {1: "<f4", 10: "<f2", 11: "<f8"}
_BFLOAT16: Final = 16


@dataclass(frozen=True)
class Node:
    """An operation of a graph, and the names of its inputs and outputs."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """What an ONNX file computes: its metadata properties, its nodes, the names of its constants.

    Attributes of nodes are left out.
    """

    properties: dict[str, str]
    nodes: tuple[Node, ...]
    constants: frozenset[str]


def read(path: Path) -> Container:
    """Read the floating-point initializers of a graph; integers are shapes and axes."""
    data, decoder = mapped(path).data, Decoder()
    files: dict[str, memoryview] = {}
    initializers = (
        _initializer(path, decoder, part, files) for part in _graph_parts(decoder, data, 5)
    )
    tensors = by_name(path, filter(None, initializers), "has no ONNX graph with weights")
    copies = (
        (node.outputs[0], tensors[node.inputs[0]])
        for node in _nodes(decoder, data)
        if node.operator == "Identity" and node.inputs[:1] and node.inputs[0] in tensors
    )
    tensors = by_name(path, itertools.chain(tensors.items(), copies), "has no weights")
    return Container("onnx", path, tensors, _properties(decoder, data))


def read_graph(path: Path) -> Graph:
    """Read what a model computes, without its weights."""
    if not path.is_file():
        raise MissingFileError(f"{path}: there is no such ONNX file")
    try:
        data, decoder = mapped(path).data, Decoder()
        if not data:
            raise ValueError("it is empty")
        constants = (decoder.texts(part, 8)[0] for part in _graph_parts(decoder, data, 5))
        nodes = tuple(_nodes(decoder, data))
        return Graph(_properties(decoder, data), nodes, frozenset(constants))
    except (ValueError, IndexError, OverflowError) as error:
        raise FormatError(f"{path}: is truncated or not an ONNX file: {error}") from error


def _graph_parts(decoder: Decoder, data: memoryview, number: int) -> Iterator[memoryview]:
    for graph in decoder.parts(data, 7):
        yield from decoder.parts(graph, number)


def _properties(decoder: Decoder, data: memoryview) -> dict[str, str]:
    properties = {}
    for part in decoder.parts(data, 14):
        key, value = decoder.texts(part, 1, 2)
        properties[key] = value
    return properties


def _nodes(decoder: Decoder, data: memoryview) -> Iterator[Node]:
    for part in _graph_parts(decoder, data, 1):
        operator = ""
        names: tuple[list[str], list[str]] = ([], [])
        for number, value in decoder.fields(part):
            if number in (1, 2, 4) and not isinstance(value, int):
                text = str(value, "utf-8")
                if number == 4:
                    operator = text
                else:
                    names[number - 1].append(text)
        yield Node(operator, tuple(names[0]), tuple(names[1]))


def _initializer(
    path: Path, decoder: Decoder, message: memoryview, files: dict[str, memoryview]
) -> tuple[str, Array] | None:
    """Return the name and array of an initializer, or None if it is not of floating point."""
    shape: list[int] = []
    values: dict[int, Any] = {}
    location: dict[str, str] = {}
    for number, value in decoder.fields(message):
        if number == 13 and not isinstance(value, int):
            key, text = decoder.texts(value, 1, 2)
            if key in ("location", "offset", "length"):
                location[key] = text
        elif number == 1:
            shape.extend([value] if isinstance(value, int) else _packed(value))
        elif number == 4 and 4 in values:
            raise FormatError(f"{path}: stores numbers one by one; save it again with onnx.save")
        elif number in (2, 4, 8, 9, 14):
            values[number] = value
        if len(shape) > MAX_AXES:
            raise FormatError(f"{path}: a tensor has more than {MAX_AXES} axes")
    name = str(values.get(8, b""), "utf-8")
    kind = values.get(2, 0)
    if kind not in _DTYPES and kind != _BFLOAT16:
        return None
    dtype = bfloat16() if kind == _BFLOAT16 else np.dtype(_DTYPES[kind])
    raw = values.get(9, values.get(4, b"") if kind == 1 else b"")
    if location or values.get(14, 0):
        raw = _window(path, name, location, files)
    size = math.prod(shape) * dtype.itemsize
    actual = 0 if isinstance(raw, int) else len(raw)
    if isinstance(raw, int) or actual != size:
        raise FormatError(
            f"{path}: {shorten(name)} of shape {tuple(shape)} has {actual} bytes; expected {size}"
        )
    return name, np.ndarray(tuple(shape), dtype, buffer=raw)


def _window(
    path: Path, name: str, entries: dict[str, str], files: dict[str, memoryview]
) -> memoryview:
    """Return the bytes of a tensor in a second file, which is then in `files`, by its name."""
    location = entries.get("location", "")
    is_name = bool(location.strip(".")) and not set(location) & set("/\\\0:")
    is_name = is_name and len(location) < 256
    file = path.with_name(location) if is_name else None
    if file is None or file.is_symlink() or not file.is_file():
        where = shorten(location) or "which has no name"
        raise UnsafeFileError(
            f"{path}: {shorten(name)} is in another file, {where}; put that file (not a link) in "
            "the same folder, or save one file with onnx.save"
        )
    if location not in files:
        files[location] = mapped(file).data
    data = files[location]
    start = int(entries.get("offset", "0"))
    size = int(entries.get("length", len(data) - start))
    if min(start, size) < 0 or start + size > len(data):
        raise FormatError(
            f"{path}: {shorten(name)} ends at byte {start + size} of {location}, which has "
            f"{len(data)}; it is truncated or belongs to another model"
        )
    return data[start : start + size]


def _packed(message: memoryview) -> list[int]:
    numbers: list[int] = []
    at = 0
    while at < len(message) and len(numbers) <= MAX_AXES:
        number, at = varint(message, at)
        numbers.append(number)
    return numbers
