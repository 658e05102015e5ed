"""Read TensorFlow checkpoints of format V2 (TensorBundle) without TensorFlow.

`PREFIX.index` is a LevelDB table from tensor name to a BundleEntryProto; `PREFIX.data-*-of-*` are
the raw tensors. Every block of the index and every tensor has a masked CRC32C; all are checked.
Blocks are plain or compressed with Snappy, as in TF-Hub's modules; TensorFlow knows no other.
TensorFlow 2 names a tensor by its path through Python objects, such as
`layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE`; the entry `_CHECKPOINTABLE_OBJECT_GRAPH`
has the name of each variable. Sources: tensorflow/core/util/tensor_bundle,
tensorflow/core/lib/io/format.cc, and in tensorflow/core/protobuf tensor_bundle.proto and
trackable_object_graph.proto.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import google_crc32c
import numpy as np

from i3dzoo.arrays import Array, bfloat16
from i3dzoo.digests import crc32c, mask
from i3dzoo.errors import FormatError, MissingFileError, UnsafeFileError
from i3dzoo.formats._protobuf import Decoder, TruncatedError, varint, varints
from i3dzoo.formats.container import Container, check_crc, is_shape, mapped
from i3dzoo.formats.limits import MAX_AXES, MAX_INDEX, MAX_NAME, MAX_TENSORS

MAGIC: Final = 0xDB4775248B80FB57
FOOTER: Final = 48
_TRAILER: Final = 5  # compression type and masked CRC of a block
_SNAPPY: Final = 1
_STRING: Final = 7
# DataType of tensorflow/core/framework/types.proto
_DTYPES: Final = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 6: "i1", 9: "<i8", 10: "u1", 19: "<f2"}
_BFLOAT16: Final = 14
_GRAPH: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SUFFIX: Final = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclass(frozen=True)
class BundleEntry:
    """Where a tensor is stored: offset and size in bytes, in the data file of number `shard`."""

    dtype: int  # a DataType of TensorFlow
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int  # masked CRC32C


def index_path(path: Path) -> Path | None:
    """Return the index of the checkpoint at a path, or None if it is not a TensorFlow checkpoint.

    The path is the index, a data file, the prefix that TensorFlow uses, or a folder with exactly
    one checkpoint, such as a SavedModel or TF-Hub module, or its `saved_model.pb`.

    Raises:
        FormatError: The folder holds several checkpoints.
    """
    if path.name == "saved_model.pb":
        path = path.parent
    if path.is_dir():
        indexes = sorted(path.glob("*.index")) or sorted(path.glob("variables/*.index"))
        if len(indexes) > 1:
            names = ", ".join(file.name for file in indexes)
            raise FormatError(f"{path}: holds several checkpoints ({names}); give one of them")
        return indexes[0] if indexes else None
    if path.suffix == ".index":
        return path
    shard = re.fullmatch(r"(.+)\.data-\d{5}-of-\d{5}", path.name)
    prefix = shard.group(1) if shard else path.name
    index = path.with_name(f"{prefix}.index")
    return index if shard or (not path.exists() and index.exists()) else None


def read(path: Path) -> Container:
    """Read a checkpoint by its index; arrays are views of the mapped data files."""
    shards, entries = read_index(path)
    data = [_map(path, number, shards) for number in range(shards)]
    tensors = {name: _tensor(path, name, entry, data) for name, entry in entries.items()}
    graph = tensors.pop(_GRAPH, None)
    if graph is not None:  # of TensorFlow 2
        names = _variable_names(graph.data, list(tensors))
        tensors = {names[key]: array for key, array in tensors.items()}
    return Container("tensorflow", path, tensors, checked=True)


def _variable_names(raw: memoryview, keys: list[str]) -> dict[str, str]:
    """Return the variable name for each key of a checkpoint, or the key if no unique name exists.

    `raw` is the graph in the data file: length, masked CRC32C of the length, message.
    """
    try:
        length, at = varint(raw, 0)
        at += 4
        if at + length != len(raw):
            raise TruncatedError("the object graph has a wrong length")
        decoder = Decoder()
        nodes = decoder.parts(raw[at:], 1)
        attributes = (part for node in nodes for part in decoder.parts(node, 2))
        full = {}
        for attribute in attributes:
            name, key = decoder.texts(attribute, 2, 3)
            full[key] = name
    except IndexError as error:
        raise TruncatedError("the object graph is truncated") from error
    names = {key: full.get(key) or key.removesuffix(_SUFFIX) for key in keys}
    taken = Counter(names.values())
    return {key: name if taken[name] == 1 else key for key, name in names.items()}


def read_index(path: Path) -> tuple[int, dict[str, BundleEntry]]:
    """Return the number of data files, and the entries by tensor name."""
    try:
        content = mapped(path).data
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{path}: is missing; a TensorFlow checkpoint consists of this file and its .data files"
        ) from error
    if len(content) > MAX_INDEX:
        raise FormatError(
            f"{path}: has {len(content)} bytes; expected at most {MAX_INDEX}: the index of I3D has "
            "20,000"
        )
    try:
        decoder = Decoder()
        pairs = dict(limited(path, Table(path, bytes(content)).pairs()))
        shards = _header(path, decoder, pairs.pop(b"", None))
        named = {key.decode("utf-8"): value for key, value in pairs.items()}
        return shards, {
            name: _entry(path, decoder, name, value, shards) for name, value in named.items()
        }
    except (IndexError, UnicodeDecodeError, TruncatedError) as error:
        raise FormatError(
            f"{path}: is truncated or corrupt: its table cannot be read; download it again"
        ) from error


def limited(path: Path, pairs: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield pairs of a table, and refuse more than MAX_TENSORS."""
    for number, pair in enumerate(pairs):
        if number > MAX_TENSORS:
            raise FormatError(f"{path}: has more than {MAX_TENSORS} tensors; I3D has 287")
        yield pair


class Table:
    """A LevelDB table. Its blocks are decompressed to at most `room` bytes in all."""

    def __init__(self, path: Path, content: bytes | memoryview, room: int = MAX_INDEX) -> None:
        self.path = path
        self.content = content
        self.limit = self.room = room

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values in the order of the table."""
        footer = self.content[-FOOTER:]
        if len(footer) < FOOTER or int.from_bytes(footer[-8:], "little") != MAGIC:
            raise FormatError(
                f"{self.path}: is truncated or not a TensorFlow index: it does not end in the "
                "table magic"
            )
        (meta_offset, meta_size, offset, size), at = varints(footer, 4)
        # zeros follow the handles, and the metadata block is empty; anything else is damage
        if any(footer[at:-8]) or any(self._pairs(meta_offset, meta_size)):
            raise FormatError(
                f"{self.path}: is corrupt: its footer differs from what TensorFlow writes"
            )
        for _, handle in limited(self.path, self._pairs(offset, size)):
            (offset, size), _ = varints(handle, 2)
            yield from self._pairs(offset, size)

    def _pairs(self, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys and values of a block, whose keys share prefixes."""
        body = self._block(offset, size)
        restarts = int.from_bytes(body[-4:], "little")
        limit = len(body) - 4 * (restarts + 1)
        key, at = b"", 0
        while at < limit:
            (shared, unshared, length), at = varints(body, 3, at)
            if shared > len(key) or at + unshared + length > limit:
                raise TruncatedError
            if shared + unshared > MAX_NAME:
                raise FormatError(
                    f"{self.path}: a tensor has a name of more than {MAX_NAME} characters"
                )
            key = key[:shared] + body[at : at + unshared]
            at += unshared
            yield key, body[at : at + length]
            at += length

    def _block(self, offset: int, size: int) -> bytes:
        end, content = offset + size, self.content
        if end + _TRAILER > len(content) - FOOTER:
            raise FormatError(
                f"{self.path}: is truncated: a block ends at {end} of {len(content)} bytes"
            )
        stored = int.from_bytes(content[end + 1 : end + _TRAILER], "little")
        block = bytes(content[offset : end + 1])
        actual = mask(google_crc32c.value(block))
        check_crc(self.path, f"the block at byte {offset}", actual, stored)
        body, kind = block[:-1], block[-1]
        length = varint(body, 0)[0] if kind == _SNAPPY else size
        self.room -= length
        if self.room < 0:
            raise UnsafeFileError(
                f"{self.path}: the block at byte {offset} unpacks to {length} bytes; expected at "
                f"most {self.limit} bytes in all"
            )
        if kind == _SNAPPY:
            return self._unpack(body)
        if kind != 0:
            raise FormatError(
                f"{self.path}: the block at byte {offset} has compression type {kind}; expected 0 "
                "(none) or 1 (Snappy)"
            )
        return body

    def _unpack(self, body: bytes) -> bytes:
        import cramjam  # only TF-Hub's modules need it

        try:
            return bytes(cramjam.snappy.decompress_raw(body))
        except cramjam.DecompressionError as error:
            raise FormatError(
                f"{self.path}: a block is truncated or corrupt: {error}; download it again"
            ) from error


def _header(path: Path, decoder: Decoder, message: bytes | None) -> int:
    if message is None:
        raise FormatError(
            f"{path}: has no bundle header; it is not the index of a TensorFlow checkpoint"
        )
    shards, big_endian = decoder.integers(message, 1, 2)
    if big_endian:
        raise FormatError(f"{path}: holds big-endian tensors; i3dzoo reads little-endian ones")
    if not 1 <= shards <= MAX_TENSORS:
        raise FormatError(f"{path}: claims {shards} data files; expected 1 to {MAX_TENSORS}")
    return shards


def _entry(path: Path, decoder: Decoder, name: str, message: bytes, shards: int) -> BundleEntry:
    numbers = dict.fromkeys((1, 3, 4, 5, 6), 0)
    shape: list[int] = []
    for number, value in decoder.fields(message):
        if number == 7:
            raise FormatError(
                f"{path}: {name} is a partitioned variable; save the checkpoint without partitions"
            )
        if number in numbers and isinstance(value, int):
            numbers[number] = value
        elif number == 2 and not isinstance(value, int):
            for dimension in decoder.parts(value, 2):
                shape += decoder.integers(dimension, 1)
                if len(shape) > MAX_AXES:
                    raise FormatError(f"{path}: {name} has more than {MAX_AXES} axes")
    if not is_shape(shape):
        raise FormatError(f"{path}: {name} has an impossible shape")
    dtype, shard, offset, size, crc = numbers.values()
    entry = BundleEntry(dtype, tuple(shape), shard, offset, size, crc)
    if entry.shard >= shards:
        raise FormatError(f"{path}: {name} is in data file {entry.shard} of {shards}")
    return entry


def _map(index: Path, number: int, shards: int) -> Array:
    path = index.with_name(f"{index.stem}.data-{number:05d}-of-{shards:05d}")
    try:
        return mapped(path)
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{path}: is missing; by {index.name} the checkpoint has {shards} data file(s)"
        ) from error


def numpy_dtype(number: int) -> np.dtype[Any] | None:
    """Return the dtype of a TensorFlow DataType number, or None if it is not supported."""
    if number == _BFLOAT16:
        return bfloat16()
    return np.dtype(_DTYPES[number]) if number in _DTYPES else None


def _tensor(index: Path, name: str, entry: BundleEntry, data: list[Array]) -> Array:
    shard = data[entry.shard]
    if entry.offset + entry.size > shard.size:
        raise FormatError(
            f"{index}: {name} ends at byte {entry.offset + entry.size} of its data file, which has "
            f"{shard.size}; the data file is truncated: download it again"
        )
    raw = shard[entry.offset : entry.offset + entry.size]
    if entry.dtype == _STRING:
        return raw  # the object graph; its CRC covers lengths that are not stored
    dtype = numpy_dtype(entry.dtype)
    if dtype is None:
        raise FormatError(
            f"{index}: {name} has TensorFlow data type {entry.dtype}; expected a type of numbers"
        )
    expected = math.prod(entry.shape) * dtype.itemsize
    if entry.size != expected:
        raise FormatError(
            f"{index}: {name} of shape {entry.shape} has {entry.size} bytes; expected {expected}"
        )
    check_crc(index, name, mask(crc32c(raw)), entry.crc)
    return np.ndarray(entry.shape, dtype, buffer=raw)
