"""Encode and decode the protocol buffer wire format: varints and fields.

TensorFlow indexes and ONNX files use it. Decoding it here avoids two large imports, and allocates
memory only in proportion to the file. Source: the Protocol Buffers encoding guide.
"""

from collections.abc import Iterator

from i3dzoo.formats.limits import MAX_FIELDS


class TruncatedError(ValueError):
    """A varint or a message is longer than its data, or there are too many fields."""


def varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return the unsigned integer at a position, and the position after it.

    Like all decoders here, it raises TruncatedError or IndexError if the data end too early.
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


def varints(data: bytes | memoryview, count: int, at: int = 0) -> tuple[list[int], int]:
    """Return consecutive unsigned integers, and the position after them."""
    numbers = []
    for _ in range(count):
        number, at = varint(data, at)
        numbers.append(number)
    return numbers, at


class Decoder:
    """Decodes the messages of one file, at most MAX_FIELDS fields in all."""

    def __init__(self) -> None:
        self._left = MAX_FIELDS

    def fields(self, message: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """Yield the fields of a message as (number, integer or a view of the bytes)."""
        view = memoryview(message)
        at = 0
        while at < len(view):
            self._left -= 1
            if self._left < 0:
                raise TruncatedError(f"it has more than {MAX_FIELDS} protocol buffer fields")
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
                raise TruncatedError("a field is longer than its message")
            raw = view[at : at + length]
            yield tag >> 3, raw if kind == 2 else int.from_bytes(raw, "little")
            at += length

    def parts(self, message: bytes | memoryview, number: int) -> Iterator[memoryview]:
        """Yield the fields of one number that hold bytes or a message."""
        for field, value in self.fields(message):
            if field == number and not isinstance(value, int):
                yield value

    def integers(self, message: bytes | memoryview, *numbers: int) -> tuple[int, ...]:
        """Return the last integer of each of these field numbers, 0 where there is none."""
        found = dict.fromkeys(numbers, 0)
        for number, value in self.fields(message):
            if number in found and isinstance(value, int):
                found[number] = value
        return tuple(found.values())

    def texts(self, message: bytes | memoryview, *numbers: int) -> tuple[str, ...]:
        """Return the last text of each of these field numbers, empty where there is none."""
        found: dict[int, memoryview] = {}
        for number, value in self.fields(message):
            if number in numbers and not isinstance(value, int):
                found[number] = value
        return tuple(str(found.get(number, b""), "utf-8") for number in numbers)


def encode_varint(number: int) -> bytes:
    """Encode an unsigned integer as a varint."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode_bytes(number: int, content: bytes) -> bytes:
    """Encode a field that holds bytes or a message."""
    return encode_varint(number << 3 | 2) + encode_varint(len(content)) + content
