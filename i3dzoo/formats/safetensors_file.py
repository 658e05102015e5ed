"""Read and write safetensors files, with added checksums.

The format (8 bytes of header length, a JSON header, the tensors) has no checksum. i3dzoo adds two
metadata entries, which other readers ignore: `crc32c`, the CRC32C of every tensor, and
`header_crc32c`, the CRC32C of the header in which these eight digits are zeros. Files that have
the entries are checked. Source of the format: the safetensors README.
"""

import json
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import google_crc32c
import numpy as np

from i3dzoo.arrays import Array, Tensors, bfloat16, flat_bytes
from i3dzoo.digests import crc32c
from i3dzoo.errors import ChecksumError, FormatError
from i3dzoo.files import atomic_write
from i3dzoo.formats.container import Container, check_crc, is_shape, mapped
from i3dzoo.formats.limits import MAX_HEADER, MAX_NAME, MAX_TENSORS
from i3dzoo.records import parse_json
from i3dzoo.text import shorten

_DTYPES: Final = {
    "BF16": "bfloat16",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "u1",
    "I8": "i1",
    "BOOL": "b1",
}
_ZEROS: Final = "00000000"
_HEADER_KEY: Final = '"header_crc32c":"'


def read(path: Path) -> Container:
    """Read a file. Arrays are views of the mapped file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or length > min(size - 8, MAX_HEADER):
            raise FormatError(
                f"{path}: is truncated or not a safetensors file: its header has {length} bytes, "
                f"the file {size}"
            )
        raw = file.read(length)
    header = _header(path, raw)
    metadata = header.pop("__metadata__", {})
    if not _holds_text(metadata):
        raise FormatError(f"{path}: the safetensors metadata has a value that is not a string")
    if len(header) > MAX_TENSORS:
        raise FormatError(f"{path}: has {len(header)} tensors; expected at most {MAX_TENSORS}")
    for name in header:
        if len(name) > MAX_NAME:
            raise FormatError(
                f"{path}: a tensor has a name of {len(name)} characters ({shorten(name, 40)}); "
                f"expected at most {MAX_NAME}"
            )
    checksums = _checksums(path, raw, metadata)
    data = mapped(path)[8 + length :]
    offsets = {name: _offsets(path, name, entry) for name, entry in header.items()}
    expected = 0
    tensors: dict[str, Array] = {}
    for name, (begin, end) in sorted(offsets.items(), key=lambda item: item[1]):
        if begin != expected:
            raise FormatError(f"{path}: {name} begins at byte {begin}; expected {expected}")
        expected = end
        tensors[name] = _tensor(path, name, header[name], data, begin, end)
    if expected != data.size:
        raise FormatError(
            f"{path}: the header describes {expected} bytes of tensors, but the file has "
            f"{data.size}; it is truncated or has extra content"
        )
    if checksums is not None:
        if checksums.keys() != tensors.keys():
            raise ChecksumError(f"{path}: the checksums have other names than the tensors")
        for name, array in tensors.items():
            check_crc(path, name, crc32c(array), checksums[name])
    return Container("safetensors", path, tensors, metadata, checked=checksums is not None)


def _header(path: Path, raw: bytes) -> dict[str, Any]:
    header: Any = parse_json(raw, where=f"{path}: the safetensors header", error=FormatError)
    if not isinstance(header, dict) or not raw.startswith(b"{"):
        raise FormatError(f"{path}: the safetensors header is not a JSON object")
    return header


def _holds_text(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _checksums(path: Path, raw: bytes, metadata: dict[str, str]) -> dict[str, str] | None:
    """Check the header's checksum; return those of the tensors, or None if the file has none."""
    stored, tensors = metadata.pop("header_crc32c", None), metadata.pop("crc32c", None)
    if stored is None and tensors is None:
        return None
    zeroed = raw.replace(f"{_HEADER_KEY}{stored}".encode(), f"{_HEADER_KEY}{_ZEROS}".encode())
    check_crc(path, "the header", google_crc32c.value(zeroed), str(stored))
    return parse_json(tensors or "", dict[str, str], f"{path}: the checksums in the metadata")


def _offsets(path: Path, name: str, entry: Any) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(n) is int for n in offsets)
        or not 0 <= offsets[0] <= offsets[1]
    ):
        raise FormatError(f"{path}: {name} has invalid data_offsets: {reprlib.repr(offsets)}")
    return offsets[0], offsets[1]


def _tensor(
    path: Path, name: str, entry: dict[str, Any], data: Array, begin: int, end: int
) -> Array:
    shape, code = entry.get("shape"), entry.get("dtype")
    if not isinstance(code, str) or code not in _DTYPES:
        raise FormatError(
            f"{path}: {name} has dtype {reprlib.repr(code)}; expected {', '.join(_DTYPES)}"
        )
    if not isinstance(shape, list) or not is_shape(shape):
        raise FormatError(f"{path}: {name} has an invalid shape: {reprlib.repr(shape)}")
    dtype = bfloat16() if code == "BF16" else np.dtype(_DTYPES[code])
    size = math.prod(shape) * dtype.itemsize
    if size != end - begin:
        raise FormatError(
            f"{path}: {name} of shape {shape} and dtype {code} has {end - begin} bytes; expected "
            f"{size}"
        )
    if end > data.size:
        raise FormatError(
            f"{path}: is truncated: {name} ends at byte {end} of {data.size} bytes of tensors"
        )
    # the format does not guarantee alignment, and numpy does not need it
    return np.ndarray(shape, dtype, buffer=data[begin:end])


def _code(array: Array) -> str:
    for code, dtype in _DTYPES.items():
        if dtype in (array.dtype.name, array.dtype.str.lstrip("|")):
            return code
    raise FormatError(f"safetensors cannot hold dtype {array.dtype}")


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Write a file with checksums, one tensor at a time, whole or not at all."""
    checksums = dict.fromkeys(tensors, _ZEROS)
    length = len(_make_header(tensors, metadata, checksums))
    with atomic_write(path) as file:
        # the header precedes the tensors and has their checksums, but its length is known
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
