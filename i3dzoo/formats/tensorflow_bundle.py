"""TensorFlow checkpoints of format V2 (TensorBundle), read without TensorFlow.

`PREFIX.index` is a LevelDB table from tensor name to a BundleEntryProto; `PREFIX.data-*-of-*` are
the raw tensors. Every block of the index and every tensor carries a masked CRC32C; all are checked.
Sources: tensorflow/core/util/tensor_bundle, tensorflow/core/lib/io/format.cc,
tensorflow/core/protobuf/tensor_bundle.proto.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import google_crc32c
import numpy as np

from i3dzoo.arrays import Array, bfloat16
from i3dzoo.checksums import crc32c, mask
from i3dzoo.errors import ChecksumError, FormatError, MissingFileError
from i3dzoo.formats import object_graph
from i3dzoo.formats._protobuf import TruncatedError, fields, varint
from i3dzoo.formats.container import MAX_NAME, MAX_TENSORS, Container, is_shape

__all__ = ["BundleEntry", "index_path", "read", "read_index"]

MAGIC: Final = 0xDB4775248B80FB57
FOOTER: Final = 48
_TRAILER: Final = 5  # a block's compression type and masked CRC
_STRING: Final = 7
# DataType of tensorflow/core/framework/types.proto
_DTYPES: Final = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 6: "i1", 9: "<i8", 10: "u1", 19: "<f2"}
_BFLOAT16: Final = 14


@dataclass(frozen=True)
class BundleEntry:
    """Where one tensor lies.

    Attributes:
        dtype: A TensorFlow DataType number.
        shape: The tensor's.
        shard: Number of the data file.
        offset: First byte in it.
        size: Bytes.
        crc: Masked CRC32C of the bytes.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def index_path(path: Path) -> Path | None:
    """Return the index of the bundle that a path means, or None if it means none.

    A bundle may be named by its index, by one of its data files, by the prefix that TensorFlow
    uses, or by a folder that holds just one (as a SavedModel's or TF-Hub module's does).
    """
    if path.is_dir():
        found = sorted(path.glob("*.index")) or sorted(path.glob("variables/*.index"))
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise FormatError(f"{path}: holds several checkpoints ({names}); name one of them")
        return found[0] if found else None
    if path.suffix == ".index":
        return path
    shard = re.fullmatch(r"(.+)\.data-\d{5}-of-\d{5}", path.name)
    prefix = shard.group(1) if shard else path.name
    index = path.with_name(f"{prefix}.index")
    return index if shard or (not path.exists() and index.exists()) else None


def read(path: Path) -> Container:
    """Read a bundle, every block and tensor checked; arrays are views of the mapped data files.

    Args:
        path: The index, a data file, the prefix, or a folder that holds one bundle.

    Raises:
        FormatError: The index or a data file is truncated or not of this format.
        ChecksumError: A block or a tensor does not match its CRC32C.
        MissingFileError: The index or a data file is missing.
    """
    index = index_path(path)
    if index is None:
        raise FormatError(f"{path}: is no TensorFlow checkpoint; name its .index file")
    shards, entries = read_index(index)
    data = [_map(index, number, shards) for number in range(shards)]
    tensors = {name: _tensor(index, name, entry, data) for name, entry in entries.items()}
    return Container("tensorflow", index, _renamed(index, tensors), checked=True)


def _renamed(index: Path, tensors: dict[str, Array]) -> dict[str, Array]:
    """Give the tensors of a TensorFlow 2 checkpoint the names of their variables."""
    graph = tensors.pop(object_graph.KEY, None)
    if graph is None:
        return tensors
    try:
        names = object_graph.variable_names(graph.data, list(tensors))
    except ValueError as error:
        raise FormatError(f"{index}: its object graph is corrupt: {error}") from error
    return {names[key]: array for key, array in tensors.items()}


def read_index(path: Path) -> tuple[int, dict[str, BundleEntry]]:
    """Read an index: the number of data files, and every tensor's entry by name."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{path}: is missing; a TensorFlow checkpoint is this file and its .data files"
        ) from error
    try:
        pairs = dict(_limited(path, _table(path, content)))
        shards = _header(path, pairs.pop(b"", None))
        entries = {
            key.decode("utf-8"): _entry(path, key.decode("utf-8"), value, shards)
            for key, value in pairs.items()
        }
    except (IndexError, UnicodeDecodeError, TruncatedError) as error:
        raise FormatError(
            f"{path}: is truncated or corrupt: its table cannot be read; fetch it again"
        ) from error
    return shards, entries


def _table(path: Path, content: bytes) -> Iterator[tuple[bytes, bytes]]:
    footer = content[-FOOTER:]
    if len(footer) < FOOTER or int.from_bytes(footer[-8:], "little") != MAGIC:
        raise FormatError(
            f"{path}: is truncated or no TensorFlow index: its last 8 bytes are not the table magic"
        )
    meta_offset, at = varint(footer, 0)
    meta_size, at = varint(footer, at)
    offset, at = varint(footer, at)
    size, at = varint(footer, at)
    # nothing follows the handles, and the block of meta data is empty; damage there is damage too
    if any(footer[at:-8]) or any(_block(path, content, meta_offset, meta_size)):
        raise FormatError(f"{path}: is corrupt: its footer is not as TensorFlow writes it")
    for _, handle in _limited(path, _block(path, content, offset, size)):
        offset, at = varint(handle, 0)
        size, at = varint(handle, at)
        yield from _block(path, content, offset, size)


def _limited(path: Path, pairs: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for number, pair in enumerate(pairs):
        if number > MAX_TENSORS:
            raise FormatError(f"{path}: lists more than {MAX_TENSORS} tensors, as no I3D does")
        yield pair


def _block(path: Path, content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    end = offset + size
    if end + _TRAILER > len(content) - FOOTER:
        raise FormatError(f"{path}: is truncated: a block ends at {end} of {len(content)} bytes")
    body = content[offset : end + 1]
    stored = int.from_bytes(content[end + 1 : end + _TRAILER], "little")
    found = mask(google_crc32c.value(body))
    if stored != found:
        raise ChecksumError(
            f"{path}: the block at byte {offset} has CRC32C {found:08x}, expected {stored:08x}; "
            "the file is corrupt, fetch it again"
        )
    if body[-1] != 0:
        raise FormatError(
            f"{path}: the block at byte {offset} is compressed (type {body[-1]}); i3dzoo reads "
            "uncompressed indexes, as TensorFlow writes them: save the checkpoint again"
        )
    restarts = int.from_bytes(body[-5:-1], "little")
    limit = size - 4 * (restarts + 1)
    key, at = b"", 0
    while at < limit:
        shared, at = varint(body, at)
        unshared, at = varint(body, at)
        length, at = varint(body, at)
        if shared > len(key) or at + unshared + length > limit:
            raise TruncatedError
        if shared + unshared > MAX_NAME:
            raise FormatError(f"{path}: names a tensor by more than {MAX_NAME} characters")
        key = key[:shared] + body[at : at + unshared]
        at += unshared
        yield key, body[at : at + length]
        at += length


def _header(path: Path, message: bytes | None) -> int:
    if message is None:
        raise FormatError(f"{path}: has no bundle header; it is no TensorFlow checkpoint index")
    header = dict(fields(message))
    if header.get(2, 0) != 0:
        raise FormatError(f"{path}: holds big-endian tensors; i3dzoo reads little-endian ones")
    shards = header.get(1, 1)
    if not isinstance(shards, int) or not 1 <= shards <= MAX_TENSORS:
        raise FormatError(f"{path}: claims {shards!r} data files")
    return shards


def _entry(path: Path, name: str, message: bytes, shards: int) -> BundleEntry:
    numbers: dict[int, int] = {}
    shape: list[int] = []
    for number, value in fields(message):
        if number == 7:
            raise FormatError(
                f"{path}: {name} is a partitioned variable; save the checkpoint without partitions"
            )
        if isinstance(value, int):
            numbers[number] = value
        elif number == 2:
            dims = [dim for field, dim in fields(value) if field == 2 and not isinstance(dim, int)]
            for dim in dims:
                size = dict(fields(dim)).get(1, 0)
                shape.append(size if isinstance(size, int) else -1)
    if not is_shape(shape):
        raise FormatError(f"{path}: {name} has an impossible shape")
    entry = BundleEntry(
        dtype=numbers.get(1, 0),
        shape=tuple(shape),
        shard=numbers.get(3, 0),
        offset=numbers.get(4, 0),
        size=numbers.get(5, 0),
        crc=numbers.get(6, 0),
    )
    if entry.shard >= shards:
        raise FormatError(f"{path}: {name} lies in data file {entry.shard} of {shards}")
    return entry


def _map(index: Path, number: int, shards: int) -> Array:
    path = index.with_name(f"{index.stem}.data-{number:05d}-of-{shards:05d}")
    try:
        if path.stat().st_size == 0:
            return np.empty(0, "u1")
        return np.memmap(path, "u1", "r")
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{path}: is missing; {index.name} says the checkpoint has {shards} data file(s)"
        ) from error


def numpy_dtype(number: int) -> np.dtype[Any] | None:
    """Return the dtype of a TensorFlow DataType number, or None for those i3dzoo does not read."""
    if number == _BFLOAT16:
        return bfloat16()
    return np.dtype(_DTYPES[number]) if number in _DTYPES else None


def _tensor(index: Path, name: str, entry: BundleEntry, data: list[Array]) -> Array:
    shard = data[entry.shard]
    if entry.offset + entry.size > shard.size:
        raise FormatError(
            f"{index}: {name} ends at byte {entry.offset + entry.size} of its data file, which has "
            f"{shard.size}; the data file is truncated, fetch it again"
        )
    raw = shard[entry.offset : entry.offset + entry.size]
    if entry.dtype == _STRING:
        return raw  # TensorFlow's object graph; its CRC covers lengths that are not stored
    dtype = numpy_dtype(entry.dtype)
    if dtype is None:
        raise FormatError(f"{index}: {name} has TensorFlow data type {entry.dtype}, not a number")
    expected = math.prod(entry.shape) * dtype.itemsize
    if entry.size != expected:
        raise FormatError(
            f"{index}: {name} of shape {entry.shape} takes {entry.size} bytes; expected {expected}"
        )
    found = mask(crc32c(raw))
    if found != entry.crc:
        raise ChecksumError(
            f"{index}: {name} has CRC32C {found:08x}, expected {entry.crc:08x}; "
            "the data file is corrupt, fetch it again"
        )
    return np.ndarray(entry.shape, dtype, buffer=raw)
