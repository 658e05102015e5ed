"""Write TensorFlow checkpoints of format V2 (TensorBundle) without TensorFlow.

As in files that TensorFlow writes, one data file holds the tensors in the order of their names. The
index is one block of a LevelDB table. Sources: tensorflow/core/util/tensor_bundle,
tensorflow/core/lib/io/block_builder.cc and table_builder.cc.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import google_crc32c

from i3dzoo.arrays import Array, Tensors, flat_bytes
from i3dzoo.digests import crc32c, mask
from i3dzoo.errors import OutputError
from i3dzoo.files import atomic_write
from i3dzoo.formats._protobuf import encode_bytes, encode_varint
from i3dzoo.formats.tensorflow_bundle import FOOTER, MAGIC, numpy_dtype

_HEADER: Final = b"\x08\x01\x1a\x02\x08\x01"  # one data file, little-endian, version 1
_RESTART: Final = 16  # every 16th key is written whole
_FIXED32_CRC: Final = b"\x35"  # the tag of field 6


def outputs(path: Path) -> tuple[Path, ...]:
    """Return the files of a checkpoint that is written to an index or prefix, the index first."""
    prefix = path.name.removesuffix(".index")
    names = (f"{prefix}.index", f"{prefix}.data-00000-of-00001")
    return tuple(path.with_name(name) for name in names)


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write a checkpoint, one tensor at a time: first the data file, then the index.

    In the meantime there is no index, or an old one whose checksums do not match.
    """
    index, data = outputs(path)
    pairs = [(b"", _HEADER)]
    with atomic_write(index) as index_file:
        with atomic_write(data) as data_file:
            offset = 0
            for name in sorted(tensors, key=str.encode):
                raw = flat_bytes(tensors[name])
                entry = _entry(path, name, tensors[name], offset)
                crc = mask(crc32c(raw)).to_bytes(4, "little")
                pairs.append((name.encode(), entry + _FIXED32_CRC + crc))
                data_file.write(raw.data)
                offset += raw.size
        index_file.write(_table(pairs))


def _entry(path: Path, name: str, array: Array, offset: int) -> bytes:
    """Return a BundleEntryProto without its CRC; zeros are omitted, as in protocol buffers."""
    number = next((n for n in range(1, 20) if numpy_dtype(n) == array.dtype), 0)
    if not number:
        raise OutputError(f"{path}: {name} has dtype {array.dtype}, which TensorFlow does not have")
    shape = b""
    for size in array.shape:
        shape += encode_bytes(2, b"\x08" + encode_varint(size) if size else b"")
    message = b"\x08" + encode_varint(number) + encode_bytes(2, shape)
    if offset:
        message += b"\x20" + encode_varint(offset)
    if array.nbytes:
        message += b"\x28" + encode_varint(array.nbytes)
    return message


def _table(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    pairs = list(pairs)
    entries = _stored(_block(pairs))
    meta = _stored(_block([]))
    last = pairs[-1][0]
    handle = _handle(0, entries)
    # the shortest key after the last one: its first byte plus one
    successor = bytes([last[0] + 1]) if last and last[0] < 0xFF else last
    index = _stored(_block([(successor, handle)]))
    footer = _handle(len(entries), meta) + _handle(len(entries) + len(meta), index)
    content = entries + meta + index + footer.ljust(FOOTER - 8, b"\0")
    return content + MAGIC.to_bytes(8, "little")


def _handle(offset: int, stored: bytes) -> bytes:
    return encode_varint(offset) + encode_varint(len(stored) - 5)


def _block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    body = bytearray()
    restarts, previous = [0], b""
    for number, (key, value) in enumerate(pairs):
        shared = 0
        if number and number % _RESTART == 0:
            restarts.append(len(body))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        for count in (shared, len(key) - shared, len(value)):
            body += encode_varint(count)
        body += key[shared:] + value
        previous = key
    for number in (*restarts, len(restarts)):
        body += number.to_bytes(4, "little")
    return bytes(body)


def _stored(block: bytes) -> bytes:
    """Return a block with its trailer: compression type 0 and the masked CRC."""
    body = block + b"\0"
    return body + mask(google_crc32c.value(body)).to_bytes(4, "little")
