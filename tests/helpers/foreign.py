"""Write files of the formats that i3dzoo only reads: MXNet parameters and frozen graphs."""

import struct
from pathlib import Path

import numpy as np

from i3dzoo.arrays import Tensors
from i3dzoo.formats._protobuf import encode_bytes, encode_varint

_MXNET: dict[str, int] = {"float32": 0, "float64": 1, "float16": 2, "int64": 6}
_TENSORFLOW: dict[str, int] = {"float32": 1, "int64": 9, "float16": 19}


def write_params(path: Path, tensors: Tensors) -> Path:
    """Write MXNet parameters, as MXNet 1.9 does."""
    content = bytearray(struct.pack("<3Q", 0x112, 0, len(tensors)))
    for array in tensors.values():
        content += struct.pack("<IiI", 0xF993FAC9, 0, array.ndim)
        content += struct.pack(f"<{array.ndim}q", *array.shape)
        content += struct.pack("<3i", 1, 0, _MXNET[array.dtype.name])
        content += np.ascontiguousarray(array).tobytes()
    content += struct.pack("<Q", len(tensors))
    for name in tensors:
        content += struct.pack("<Q", len(name)) + name.encode()
    path.write_bytes(content)
    return path


def tensor_proto(kind: int, shape: tuple[int, ...], numbers: bytes) -> bytes:
    """Return a TensorProto of TensorFlow; `numbers` are its last fields."""
    axes = b"".join(encode_bytes(2, b"\x08" + encode_varint(length)) for length in shape)
    return b"\x08" + encode_varint(kind) + encode_bytes(2, axes) + numbers


def constant(name: str, tensor: bytes) -> bytes:
    """Return a node of a graph that holds a TensorProto."""
    value = encode_bytes(1, b"value") + encode_bytes(2, encode_bytes(8, tensor))
    node = encode_bytes(1, name.encode()) + encode_bytes(2, b"Const") + encode_bytes(5, value)
    return encode_bytes(1, node)


def write_graph(path: Path, tensors: Tensors) -> Path:
    """Write a frozen graph of constants."""
    path.write_bytes(
        b"".join(
            constant(
                name,
                tensor_proto(
                    _TENSORFLOW[array.dtype.name], array.shape, encode_bytes(4, array.tobytes())
                ),
            )
            for name, array in tensors.items()
        )
    )
    return path
