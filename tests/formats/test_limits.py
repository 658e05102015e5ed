"""Reading a file takes at most twice its size and 300 MB, and refusing it at most five seconds."""

import io
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import cramjam
import h5py
import numpy as np
import pytest
from helpers.hostile import block, onnx_file, table
from helpers.measured import Measured, measure

from i3dzoo.formats._protobuf import encode_bytes, encode_varint

FIELDS: Final = b"".join(encode_varint(number << 3) + b"\0" for number in range(16, 2_000_000))
"""A message of 8 MB: distinct fields that no reader knows."""


def _onnx_dims(path: Path) -> None:
    onnx_file(path, b"\x08\x7f" * 1_000_000 + b"\x10\x01\x42\x01w")


def _onnx_fields(path: Path) -> None:
    onnx_file(path, FIELDS * 2)


def _onnx_initializers(path: Path) -> None:
    path.write_bytes(b"\x08\x08" + encode_bytes(7, b"\x2a\0" * 5_000_000))


def _onnx_name(path: Path) -> None:
    onnx_file(path, b"\x08\x01\x10\x01" + encode_bytes(8, b"w" * 9_000_000))


def _onnx_metadata(path: Path) -> None:
    onnx_file(path, b"\x08\x01\x10\x01" + encode_bytes(9, bytes(4)))
    path.write_bytes(path.read_bytes() + encode_bytes(14, encode_bytes(1, b"\xff")))


def _graph_nodes(path: Path) -> None:
    path.write_bytes(b"\n\0" * 5_000_000)


def _index_of(pair: tuple[bytes, bytes]) -> bytes:
    header = b"\0\0\2\x08\1"
    key, value = pair
    lengths = bytes([0]) + encode_varint(len(key)) + encode_varint(len(value))
    return table(header + lengths + key + value + bytes(4) + (1).to_bytes(4, "little"))


def _index_fields(path: Path) -> None:
    path.write_bytes(_index_of((b"a", b"\x08\1" + FIELDS)))


def _index_axes(path: Path) -> None:
    path.write_bytes(_index_of((b"a", b"\x08\1" + encode_bytes(2, b"\x12\0" * 3_000_000))))


def _index_size(path: Path) -> None:
    path.write_bytes(bytes(17 << 20) + table(block())[-48:])


def _snappy_bomb(path: Path) -> None:
    path.write_bytes(table(encode_varint(1 << 31) + bytes(100), compression=1))


def _snappy_zeros(path: Path) -> None:
    path.write_bytes(table(bytes(cramjam.snappy.compress_raw(bytes(15 << 20))), compression=1))


def _zip_entries(path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/data.pkl", b"")
    content = buffer.getvalue()
    start = content.index(b"PK\1\2")
    directory = content[start:-22] * 2_000_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, len(directory), start, 0)
    path.write_bytes(content[:start] + directory + end)


def _deflated(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        archive.writestr("x/data/0", bytes(100 << 20))


def _pickle_emoji(path: Path) -> None:
    text = "\N{SNOWMAN}" + "a" * (30 << 20)
    item = b"X" + len(text.encode()).to_bytes(4, "little") + text.encode()
    path.write_bytes(b"\x80\x02]" + item * 4 + b".")


def _pickle_object(path: Path) -> None:
    path.write_bytes(b"\x80\x02X" + (100 << 20).to_bytes(4, "little") + bytes(100 << 20) + b".")


def _pickle_beside_tensors(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + b"}" * (201 << 20) + b".")


def _header(path: Path, text: bytes) -> None:
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def _header_lists(path: Path) -> None:
    _header(path, b'{"a":[' + b"{}," * 1_300_000 + b"{}]}")


def _header_depth(path: Path) -> None:
    _header(path, b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}")


def _header_name(path: Path) -> None:
    _header(path, b'{"' + b"n" * 2_000_000 + b'":{}}')


def _header_size(path: Path) -> None:
    _header(path, b'{"' + b"n" * 9_000_000 + b'":{}}')


def _hdf5_zeros(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name in "abc":
            zeros = np.zeros((100 << 20,), "u1")
            file.create_dataset(name, data=zeros, compression="gzip", compression_opts=1)


CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "dims.onnx": (_onnx_dims, "more than 32 axes"),
    "fields.onnx": (_onnx_fields, "more than 500000 protocol buffer fields"),
    "initializers.onnx": (_onnx_initializers, "more than 500000 protocol buffer fields"),
    "name.onnx": (_onnx_name, "w… of shape .* has 0 bytes; expected 4"),
    "metadata.onnx": (_onnx_metadata, "truncated or corrupt: .*utf-8"),
    "nodes.pb": (_graph_nodes, "more than 500000 protocol buffer fields"),
    "fields.index": (_index_fields, "truncated or corrupt"),
    "axes.index": (_index_axes, "a has more than 32 axes"),
    "size.index": (_index_size, "expected at most 16777216: the index of I3D"),
    "bomb.index": (_snappy_bomb, "unpacks to 2147483648 bytes; expected at most 16777216"),
    "zeros.index": (_snappy_zeros, "has more than 10000 tensors"),
    "bomb.ckpt": (_snappy_bomb, "unpacks to 2147483648 bytes; expected at most 67"),
    "zeros.ckpt": (_snappy_zeros, "has more than 10000 tensors"),
    "entries.pt": (_zip_entries, "a zip directory of 112000000 bytes; expected at most 4194304"),
    "step-00000001.pt": (_deflated, "unpacks to .* bytes from .*; expected uncompressed tensors"),
    "emoji.pkl": (_pickle_emoji, "the texts of the pickle take"),
    "object.pkl": (_pickle_object, "an object of 104857600 bytes; expected at most 33554432"),
    "data.pt": (_pickle_beside_tensors, "data.pkl has .* bytes besides the tensors"),
    "lists.safetensors": (_header_lists, "a has invalid data_offsets"),
    "depth.safetensors": (_header_depth, "nested more than 64 levels deep"),
    "name.safetensors": (_header_name, "a name of 2000000 characters .n+….; expected at most 1000"),
    "size.safetensors": (_header_size, "its header has 9000007 bytes"),
    "zeros.h5": (_hdf5_zeros, "of shape .* at most .* bytes in all are unpacked"),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, Measured]]:
    """The size of each file, and what reading it takes."""
    folder = tmp_path_factory.mktemp("limits")
    paths = [folder / name for name in CASES]
    for path in paths:
        CASES[path.name][0](path)
    sizes = [path.stat().st_size for path in paths]
    results = measure(paths)
    for path in paths:
        path.unlink()
    return dict(zip(CASES, zip(sizes, results, strict=True), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_hostile_files_take_little(measured: dict[str, tuple[int, Measured]], name: str) -> None:
    """A hostile file is refused in one short sentence, in little time and memory."""
    size, result = measured[name]
    assert re.search(CASES[name][1], result.message), result.message[:500]
    assert name in result.message
    assert len(result.message) < 600
    assert result.seconds < 5
    assert result.memory < 2 * size + 300e6, (size, result.memory)
