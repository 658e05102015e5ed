"""The wire format of protocol buffers: varints and fields, in both directions.

Source: the Protocol Buffers encoding guide. TensorFlow's indexes and ONNX files are made of it, and
reading it here spares two large imports and keeps what is allocated in proportion to the file.
"""

from collections.abc import Iterator

__all__ = ["TruncatedError", "encode_bytes", "encode_varint", "fields", "varint"]


class TruncatedError(ValueError):
    """A varint or a message runs past its end."""


def varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return the unsigned integer at a position, and the position after it.

    Raises:
        TruncatedError: It has more than ten bytes.
        IndexError: The data end within it.
    """
    value = shift = 0
    while True:
        if shift > 63:
            raise TruncatedError("a varint does not end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def fields(message: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a message as (number, integer or a view of the bytes).

    Raises:
        TruncatedError: A field runs past the end of the message.
        IndexError: Likewise.
    """
    view = memoryview(message)
    at = 0
    while at < len(view):
        tag, at = varint(view, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(view, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, at = varint(view, at)
        else:
            length = {1: 8, 5: 4}.get(kind, len(view) + 1)
        if at + length > len(view):
            raise TruncatedError("a field runs past its message")
        raw = view[at : at + length]
        yield tag >> 3, raw if kind == 2 else int.from_bytes(raw, "little")
        at += length


def encode_varint(number: int) -> bytes:
    """Return an unsigned integer as a varint."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode_bytes(number: int, content: bytes) -> bytes:
    """Return a field that holds bytes or a message."""
    return encode_varint(number << 3 | 2) + encode_varint(len(content)) + content
