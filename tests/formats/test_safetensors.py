"""Safetensors files: exchange with the safetensors library, and damaged files."""

import json
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from i3dzoo import formats
from i3dzoo.errors import ChecksumError, FormatError, MetadataError, OutputError
from i3dzoo.formats import safetensors_file

ARRAYS = {
    "a": np.arange(24, dtype="f4").reshape(2, 3, 4),
    "b": np.arange(7, dtype="i8"),
    "empty": np.zeros((0, 3), "f2"),
    "scalar": np.array(3.0, "f8"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that i3dzoo wrote."""
    path = tmp_path / "x.safetensors"
    safetensors_file.write(path, ARRAYS, {"note": "größer"})
    return path


def test_the_library_reads_ours(file: Path) -> None:
    """The safetensors library reads files of i3dzoo, including transposed arrays."""
    loaded = safetensors.numpy.load_file(file)
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(loaded[name], array)
    safetensors_file.write(file, {"t": ARRAYS["a"].transpose(2, 0, 1)}, {})
    np.testing.assert_array_equal(
        safetensors.numpy.load_file(file)["t"], ARRAYS["a"].transpose(2, 0, 1)
    )


def test_ours_reads_the_librarys(tmp_path: Path) -> None:
    """i3dzoo reads files of the library, including bfloat16, as files without checksums."""
    path = tmp_path / "y.safetensors"
    safetensors.torch.save_file({"h": torch.ones(3, dtype=torch.bfloat16)}, path)
    container = formats.read(path)
    assert container.tensors["h"].dtype.name == "bfloat16"
    assert not container.checked


def test_round_trip(file: Path) -> None:
    """Arrays and metadata are unchanged, and the checksums are checked."""
    container = formats.read(file)
    assert container.checked
    assert container.metadata == {"note": "größer"}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(container.tensors[name], array)
        assert container.tensors[name].dtype == array.dtype


def test_every_flipped_byte_is_caught(file: Path) -> None:
    """A flipped bit in the header, the metadata or the tensors is an error."""
    content = file.read_bytes()
    for at in range(len(content)):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(FormatError, match=r"x\.safetensors"):
            formats.read(file)


def test_appended(file: Path) -> None:
    """Bytes after the last tensor are an error."""
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(FormatError, match="161; it is truncated or has extra content"):
        formats.read(file)


def _raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4 << 40]}}, "truncated"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "has 4 bytes; expected 8"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "begins at byte 4"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "invalid shape"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, "invalid data_offsets"),
        ({"a": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}}, "invalid shape"),
        ({"a": {"dtype": "F32", "shape": [0, 1 << 70], "data_offsets": [0, 4]}}, "at most 64 bits"),
        ({"a": {"dtype": "U8", "shape": [10**4000], "data_offsets": [0, 4]}}, "at most 64 bits"),
        ({"a": {"dtype": [], "shape": [1], "data_offsets": [0, 4]}}, r"dtype \[\]"),
        ({"a": {"dtype": "F32", "shape": [0, 2**47, 2**47], "data_offsets": [0, 0]}}, "corrupt"),
        ({"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, "dtype 'X9'"),
        ({"a": 3}, "invalid data_offsets"),
        ({"__metadata__": {"k": 1}}, "not a string"),
        (b'{"a": 1, "a": 2}', "has the key 'a' twice"),
        (b"{" + b'"a":[' * 5000, "header: is not valid JSON"),
        (b'{"a": \xff}', "header: expected JSON in UTF-8"),
    ],
)
def test_hostile_headers(tmp_path: Path, header: Any, message: str) -> None:
    """Invalid headers are errors before memory is allocated."""
    with pytest.raises(FormatError, match=message):
        formats.read(_raw(tmp_path / "x.safetensors", header, b"\0" * 4))


@pytest.mark.parametrize(
    ("checksums", "message"),
    [
        ("5", "expected a mapping, found 5"),
        ('["abc"]', "expected a mapping, found a list of 1"),
        ('{"a": [1]}', "a: expected text, found a list of 1"),
        ("[" * 100_000, "is nested more than 64 levels deep"),
        ("", "is not valid JSON"),
    ],
)
def test_malformed_checksums(tmp_path: Path, checksums: str, message: str) -> None:
    """Checksums that are not a JSON object of strings are an error."""
    metadata = {"header_crc32c": "00000000", "crc32c": checksums}
    text = json.dumps({"__metadata__": metadata}, separators=(",", ":")).encode()
    crc = f'"header_crc32c":"{google_crc32c.value(text):08x}"'.encode()
    path = _raw(tmp_path / "x.safetensors", text.replace(b'"header_crc32c":"00000000"', crc))
    with pytest.raises(MetadataError, match=f"the checksums in the metadata: {message}"):
        formats.read(path)


def test_swapped_checksums(file: Path) -> None:
    """Checksums of other tensors are an error."""
    content = file.read_bytes().replace(b'\\"b\\":', b'\\"c\\":')
    file.write_bytes(content)
    with pytest.raises(ChecksumError, match="the header has CRC32C"):
        formats.read(file)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """If writing fails, the old file is unchanged and no temporary file is left."""
    path = tmp_path / "x.safetensors"
    safetensors_file.write(path, ARRAYS, {})
    before = path.read_bytes()
    with pytest.raises(FormatError, match="cannot hold dtype complex64"):
        safetensors_file.write(path, {"c": np.zeros(2, "c8")}, {})
    assert path.read_bytes() == before
    with pytest.raises(OutputError, match="does not exist; create it first"):
        safetensors_file.write(tmp_path / "no" / "x.safetensors", ARRAYS, {})
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
