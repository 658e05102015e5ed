"""Safetensors files, mapped on reading and streamed on writing, with checksums of their own.

The format (8 bytes of header length, a JSON header, the tensors) has no checksum. i3dzoo adds two
metadata entries that other readers pass over: `crc32c`, the CRC32C of every tensor, and
`header_crc32c`, that of the header itself with these eight digits as zeros. Where they are present
they are checked. Source of the format: the safetensors README.
"""

import json
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import google_crc32c
import numpy as np

from i3dzoo._files import atomic_write
from i3dzoo.arrays import Array, Tensors, bfloat16, flat_bytes
from i3dzoo.checksums import crc32c
from i3dzoo.errors import ChecksumError, FormatError, MetadataError
from i3dzoo.formats.container import MAX_TENSORS, Container, is_shape

__all__ = ["read", "write"]

_MAX_HEADER: Final = 10_000_000
_DTYPES: Final = {
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "u1",
    "I8": "i1",
    "BOOL": "?",
}
_ZEROS: Final = "00000000"
_HEADER_KEY: Final = '"header_crc32c":"'


def read(path: Path) -> Container:
    """Read a file; arrays are views of the mapped file.

    Raises:
        FormatError: The header is not what the format prescribes, or the file is truncated.
        ChecksumError: The header or a tensor does not match the checksum that the file carries.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or length > min(size - 8, _MAX_HEADER):
            raise FormatError(
                f"{path}: is truncated or no safetensors file: its header claims {length} bytes, "
                f"the file has {size}"
            )
        raw = file.read(length)
    header = _header(path, raw)
    metadata = _text(path, header.pop("__metadata__", {}))
    if len(header) > MAX_TENSORS:
        raise FormatError(f"{path}: holds {len(header)} tensors; expected at most {MAX_TENSORS}")
    checksums = _checksums(path, raw, metadata)
    data: Array = np.memmap(path, "u1", "r")[8 + length :]
    ends = [0]
    tensors: dict[str, Array] = {}
    for name, entry in sorted(header.items(), key=lambda item: _offsets(path, *item)):
        begin, end = _offsets(path, name, entry)
        if begin != ends[-1]:
            raise FormatError(f"{path}: {name} begins at byte {begin}; expected {ends[-1]}")
        ends.append(end)
        tensors[name] = _tensor(path, name, entry, data)
    if ends[-1] != data.size:
        raise FormatError(
            f"{path}: the header describes {ends[-1]} bytes of tensors and the file holds "
            f"{data.size}; it is truncated or was appended to"
        )
    _check(path, tensors, checksums)
    return Container("safetensors", path, tensors, metadata, checked=checksums is not None)


def _header(path: Path, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            raise ValueError("a name stands twice")
        return document

    try:
        text = raw.decode("utf-8")
        header = json.loads(text.rstrip(" "), object_pairs_hook=unique)
        if not isinstance(header, dict) or not text.startswith("{"):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: the safetensors header is corrupt: {error}") from error
    return header


def _text(path: Path, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(map(_is_text, metadata.values())):
        raise FormatError(f"{path}: the safetensors metadata holds something that is no text")
    return metadata


def _checksums(path: Path, raw: bytes, metadata: dict[str, str]) -> dict[str, str] | None:
    """Check the header's own checksum and return the tensors', or None where there are none."""
    stored, tensors = metadata.pop("header_crc32c", None), metadata.pop("crc32c", None)
    if stored is None and tensors is None:
        return None
    zeroed = raw.replace(f"{_HEADER_KEY}{stored}".encode(), f"{_HEADER_KEY}{_ZEROS}".encode())
    found = f"{google_crc32c.value(zeroed):08x}"
    if found != stored:
        raise ChecksumError(
            f"{path}: the header has CRC32C {found}, expected {stored}; "
            "the file is corrupt, make or fetch it again"
        )
    try:
        checksums = json.loads(tensors or "")
        if not isinstance(checksums, dict) or not all(map(_is_text, checksums.values())):
            raise ValueError("they are no object of texts")
    except (ValueError, RecursionError) as error:
        raise MetadataError(
            f"{path}: the checksums in the metadata are malformed: {error}; make or fetch it again"
        ) from error
    return checksums


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _offsets(path: Path, name: str, entry: Any) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(n) is int for n in offsets)
        or not 0 <= offsets[0] <= offsets[1]
    ):
        raise FormatError(f"{path}: {name} has no proper data_offsets: {reprlib.repr(offsets)}")
    return offsets[0], offsets[1]


def _tensor(path: Path, name: str, entry: dict[str, Any], data: Array) -> Array:
    begin, end = _offsets(path, name, entry)
    shape: Any = entry.get("shape")
    code = entry.get("dtype")
    dtype = _dtype(code)
    if dtype is None:
        raise FormatError(
            f"{path}: {name} has dtype {reprlib.repr(code)}, which i3dzoo does not read"
        )
    if not is_shape(shape):
        raise FormatError(f"{path}: {name} has no proper shape: {reprlib.repr(shape)}")
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise FormatError(
            f"{path}: {name} of shape {shape} and dtype {code} takes "
            f"{math.prod(shape) * dtype.itemsize} bytes; the header gives it {end - begin}"
        )
    if end > data.size:
        raise FormatError(
            f"{path}: is truncated: {name} ends at byte {end} of {data.size} bytes of tensors"
        )
    # alignment is not promised by the format, and numpy does not need it
    return np.ndarray(shape, dtype, buffer=data[begin:end])


def _dtype(code: Any) -> np.dtype[Any] | None:
    if code == "BF16":
        return bfloat16()
    return np.dtype(_DTYPES[code]) if isinstance(code, str) and code in _DTYPES else None


def _code(array: Array) -> str:
    if array.dtype.name == "bfloat16":
        return "BF16"
    for code, dtype in _DTYPES.items():
        if array.dtype == np.dtype(dtype):
            return code
    raise FormatError(f"safetensors cannot hold dtype {array.dtype}")


def _check(path: Path, tensors: Tensors, checksums: Mapping[str, str] | None) -> None:
    if checksums is None:
        return
    if checksums.keys() != tensors.keys():
        raise ChecksumError(f"{path}: the checksums are of other tensors than the file holds")
    for name, array in tensors.items():
        found = f"{crc32c(array):08x}"
        if found != checksums[name]:
            raise ChecksumError(
                f"{path}: {name} has CRC32C {found}, expected {checksums[name]}; "
                "the file is corrupt, make or fetch it again"
            )


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Write a file with checksums, one tensor at a time, whole or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    checksums = dict.fromkeys(tensors, _ZEROS)
    length = len(_make_header(tensors, metadata, checksums))
    with atomic_write(path) as file:
        # the header comes first and holds the checksums; its length does not depend on them
        file.seek(8 + length)
        for name, array in tensors.items():
            raw = flat_bytes(array)
            checksums[name] = f"{crc32c(raw):08x}"
            file.write(raw.data)
        file.seek(0)
        file.write(length.to_bytes(8, "little"))
        file.write(_make_header(tensors, metadata, checksums))


def _make_header(
    tensors: Tensors, metadata: Mapping[str, str], checksums: Mapping[str, str]
) -> bytes:
    header: dict[str, Any] = {
        "__metadata__": {
            "header_crc32c": _ZEROS,
            "crc32c": json.dumps(checksums, separators=(",", ":")),
            **metadata,
        }
    }
    offset = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": _code(array),
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    digest = f"{google_crc32c.value(text):08x}"
    return text.replace(f"{_HEADER_KEY}{_ZEROS}".encode(), f"{_HEADER_KEY}{digest}".encode(), 1)
