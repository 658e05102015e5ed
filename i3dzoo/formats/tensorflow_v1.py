"""Read TensorFlow checkpoints of format V1, as TF-slim's published ones, without TensorFlow.

It is one file: a LevelDB table, like the index of format V2, whose values are SavedTensorSlices.
The value of the empty key has the name and shape of every tensor, the others have the numbers.
Every block has a masked CRC32C; all are checked. Sources, in tensorflow/core:
util/tensor_slice_writer.cc, util/saved_tensor_slice.proto, framework/tensor.proto.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from i3dzoo.arrays import Array
from i3dzoo.errors import FormatError
from i3dzoo.formats._protobuf import Decoder, TruncatedError, varint
from i3dzoo.formats.container import Container, by_name, is_shape, mapped
from i3dzoo.formats.limits import MAX_AXES, MAX_TABLE, MAX_TABLE_UNPACKED
from i3dzoo.formats.tensorflow_bundle import FOOTER, MAGIC, Table, limited

_META: Final = 1  # fields of SavedTensorSlices
_DATA: Final = 2
_FLOATS: Final = {5: "<f4", 6: "<f8"}  # fields of TensorProto: float_val and double_val
_INTEGERS: Final = {7: "i4", 10: "i8"}  # int_val and int64_val
_MAX_INTEGERS: Final = 10_000  # a checkpoint of a network has one, the number of steps


def is_checkpoint(path: Path) -> bool:
    """Whether a file ends as a table does; one with the name of an index is of format V2."""
    if not path.is_file() or path.stat().st_size < FOOTER:
        return False
    with path.open("rb") as file:
        file.seek(-8, 2)
        return int.from_bytes(file.read(8), "little") == MAGIC


def read(path: Path) -> Container:
    """Read a checkpoint; arrays are copies of what its blocks unpack to."""
    content = mapped(path)
    if content.size > MAX_TABLE:
        raise FormatError(
            f"{path}: has {content.size} bytes; expected at most {MAX_TABLE}: a checkpoint of "
            "TF-slim's Inception-v1 has 26 MB"
        )
    decoder = Decoder()
    shapes: dict[str, tuple[int, ...]] = {}
    arrays: list[tuple[str, Array]] = []
    try:
        table = Table(path, content.data, room=content.size + MAX_TABLE_UNPACKED)
        for key, value in limited(path, table.pairs()):
            if key:
                arrays += _slices(path, decoder, value, shapes)
            else:
                shapes = _shapes(path, decoder, value)
    except (IndexError, UnicodeDecodeError, TruncatedError) as error:
        raise FormatError(
            f"{path}: is truncated or corrupt: its table cannot be read; download it again"
        ) from error
    tensors = by_name(path, arrays, "has no tensors; it is not a TensorFlow checkpoint")
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise FormatError(f"{path}: has no numbers of {missing[0][:80]}; download it again")
    return Container("tensorflow", path, tensors, checked=True)


def _shapes(path: Path, decoder: Decoder, message: bytes) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor, from SavedTensorSliceMeta."""
    shapes = {}
    for meta in decoder.parts(message, _META):
        for tensor in decoder.parts(meta, 1):
            (name,) = decoder.texts(tensor, 1)
            shape: list[int] = []
            for part in decoder.parts(tensor, 2):
                for dimension in decoder.parts(part, 2):
                    shape += decoder.integers(dimension, 1)
                    if len(shape) > MAX_AXES:
                        raise FormatError(f"{path}: {name[:80]} has more than {MAX_AXES} axes")
            if not is_shape(shape):
                raise FormatError(f"{path}: {name[:80]} has an impossible shape")
            shapes[name] = tuple(shape)
    return shapes


def _slices(
    path: Path, decoder: Decoder, message: bytes, shapes: Mapping[str, tuple[int, ...]]
) -> list[tuple[str, Array]]:
    """Return the tensor of a SavedSlice, by its name."""
    arrays = []
    for part in decoder.parts(message, _DATA):
        (name,) = decoder.texts(part, 1)
        if name not in shapes:
            raise FormatError(f"{path}: {name[:80]} has no shape; the file is corrupt")
        values = [
            array
            for tensor in decoder.parts(part, 3)
            for array in _values(path, decoder, name, tensor)
        ]
        numbers = values[0] if len(values) == 1 else np.empty(0, "f4")
        if numbers.size != math.prod(shapes[name]):
            raise FormatError(
                f"{path}: {name[:80]} of shape {shapes[name]} has {numbers.size} numbers; the "
                "variable is partitioned, or the file is corrupt"
            )
        arrays.append((name, numbers.reshape(shapes[name])))
    return arrays


def _values(path: Path, decoder: Decoder, name: str, message: memoryview) -> list[Array]:
    """Return the numbers of a TensorProto: one array for each field that has some."""
    arrays: list[Array] = []
    for number, value in decoder.fields(message):
        if isinstance(value, int):
            continue
        if number in _FLOATS:
            arrays.append(np.frombuffer(value, _FLOATS[number]))
        elif number in _INTEGERS:
            arrays.append(np.array(_integers(path, name, value), "i8").astype(_INTEGERS[number]))
    return arrays


def _integers(path: Path, name: str, packed: memoryview) -> list[int]:
    numbers: list[int] = []
    at = 0
    while at < len(packed):
        if len(numbers) >= _MAX_INTEGERS:
            raise FormatError(f"{path}: {name[:80]} has more than {_MAX_INTEGERS} whole numbers")
        number, at = varint(packed, at)
        numbers.append((number + (1 << 63)) % (1 << 64) - (1 << 63))
    return numbers
