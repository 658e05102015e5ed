"""Make damaged and malicious checkpoint files."""

from pathlib import Path
from typing import Any

import google_crc32c

from i3dzoo.digests import mask
from i3dzoo.formats._protobuf import encode_bytes, encode_varint
from i3dzoo.formats.tensorflow_bundle import MAGIC


class Call:
    """An object whose pickle calls a function when it is loaded carelessly."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def flip(path: Path, at: int) -> None:
    """Flip a bit of the byte at a position."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def onnx_tensor(count: int, **external_data: str) -> bytes:
    """Return an ONNX TensorProto w of float32 numbers, which are in another file or missing."""
    tensor = b"\x08" + encode_varint(count) + b"\x10\x01" + encode_bytes(8, b"w")
    for key, value in external_data.items():
        entry = encode_bytes(1, key.encode()) + encode_bytes(2, value.encode())
        tensor += b"\x70\x01" + encode_bytes(13, entry)
    return tensor


def onnx_file(path: Path, tensor: bytes) -> Path:
    """Write an ONNX file of one tensor."""
    path.write_bytes(b"\x08\x08" + encode_bytes(7, encode_bytes(5, tensor)))
    return path


def block(*pairs: tuple[bytes, bytes]) -> bytes:
    """Return a LevelDB block of keys and values that are shorter than 128 bytes."""
    body = b"".join(bytes([0, len(key), len(value)]) + key + value for key, value in pairs)
    return body + bytes(4) + (1).to_bytes(4, "little")


def table(content: bytes, compression: int = 0) -> bytes:
    """Return a LevelDB table, such as a TensorFlow index, of one data block with valid CRCs."""

    def stored(body: bytes, kind: int = 0) -> bytes:
        body += bytes([kind])
        return body + mask(google_crc32c.value(body)).to_bytes(4, "little")

    def handle(at: int, body: bytes) -> bytes:
        return encode_varint(at) + encode_varint(len(body) - 5)

    data, meta = stored(content, compression), stored(block())
    index = stored(block((b"z", handle(0, data))))
    footer = handle(len(data), meta) + handle(len(data) + len(meta), index)
    return data + meta + index + footer.ljust(40, b"\0") + MAGIC.to_bytes(8, "little")
