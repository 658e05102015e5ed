"""HDF5 files of the kind that h5py writes by default, written without the HDF5 library.

Version 0 of the superblock, groups with symbol tables, contiguous datasets, text attributes: what
every reader since 1998 understands. The places of everything are known beforehand, so tensors are
written one at a time. Source: HDF5 File Format Specification, version 3.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from i3dzoo._files import atomic_write
from i3dzoo.arrays import Array, flat_bytes
from i3dzoo.errors import OutputError

__all__ = ["Node", "write"]

_UNDEFINED: Final = b"\xff" * 8
_SUPERBLOCK: Final = 96
_CHILDREN: Final = 32  # of a tree node: twice the rank that the superblock says
_ENTRY: Final = 40
# sign bit, then bits, place and width of the exponent, width of the mantissa, bias
_FLOATS: Final = {
    "<f2": (15, 16, 10, 5, 10, 15),
    "<f4": (31, 32, 23, 8, 23, 127),
    "<f8": (63, 64, 52, 11, 52, 1023),
}


@dataclass(frozen=True)
class Node:
    """A group to write: its text attributes, one text or several, and what is in it."""

    attributes: dict[str, str | list[str]] = field(default_factory=dict)
    children: "dict[str, Node | Array]" = field(default_factory=dict)


def _int(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little")


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 8)


def _message(kind: int, content: bytes) -> bytes:
    body = _padded(content)
    return _int(kind, 2) + _int(len(body), 2) + bytes(4) + body


def _space(shape: tuple[int, ...]) -> bytes:
    return bytes([1, len(shape)]) + bytes(6) + b"".join(map(_int, shape))


def _type(path: Path, name: str, array: Array) -> bytes:
    code = array.dtype.str
    if code in _FLOATS:
        sign, bits, place, exponent, mantissa, bias = _FLOATS[code]
        head = bytes([0x11, 0x20, sign, 0]) + _int(array.itemsize, 4)
        places = _int(0, 2) + _int(bits, 2) + bytes([place, exponent, 0, mantissa])
        return head + places + _int(bias, 4)
    if code == "<i8":
        return bytes([0x10, 8, 0, 0]) + _int(8, 4) + _int(0, 2) + _int(64, 2)
    raise OutputError(
        f"{path}: {name} has dtype {array.dtype}, which HDF5 does not have; write another layout "
        "or a float32 checkpoint"
    )


def _attribute(path: Path, name: str, value: str | list[str]) -> bytes:
    texts = [each.encode() for each in ([value] if isinstance(value, str) else value)]
    size = max([len(text) for text in texts], default=0) or 1
    key = name.encode() + b"\0"
    kind = bytes([0x13, 0x11, 0, 0]) + _int(size, 4)  # UTF-8, padded with zeros
    space = _space(() if isinstance(value, str) else (len(texts),))
    content = b"".join(text.ljust(size, b"\0") for text in texts)
    sizes = b"".join(_int(len(part), 2) for part in (key, kind, space))
    body = b"\1\0" + sizes + _padded(key) + _padded(kind) + _padded(space) + content
    if len(body) > 0xFFF8:
        raise OutputError(f"{path}: the attribute {name} takes more than HDF5's 64 KiB")
    return _message(12, body)


class _Layout:
    """Where everything goes: pieces of structure with their places, then the tensors."""

    def __init__(self, path: Path, root: Node) -> None:
        self.path = path
        self.end = _SUPERBLOCK
        self.pieces: list[tuple[int, bytes]] = []
        self.tensors: list[tuple[int, Array]] = []
        # leaves of a group's tree hold twice this many entries, so that one tree node is enough
        self.rank = max(4, -(-_largest(root) // (2 * _CHILDREN)))
        address = self.group(root, "")
        self.pieces.append((0, self.superblock(address)))

    def place(self, size: int) -> int:
        start = self.end
        self.end += -(-size // 8) * 8
        return start

    def put(self, content: bytes) -> int:
        start = self.place(len(content))
        self.pieces.append((start, content))
        return start

    def superblock(self, root: int) -> bytes:
        head = b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0])
        ranks = _int(self.rank, 2) + _int(_CHILDREN // 2, 2) + bytes(4)
        places = _int(0) + _UNDEFINED + _int(self.end) + _UNDEFINED
        return head + ranks + places + _int(0) + _int(root) + bytes(24)

    def header(self, messages: list[bytes]) -> int:
        body = b"".join(messages)
        head = bytes([1, 0]) + _int(len(messages), 2) + _int(1, 4) + _int(len(body), 4) + bytes(4)
        return self.put(head + body)

    def dataset(self, name: str, array: Array) -> int:
        start = self.place(array.nbytes)
        self.tensors.append((start, array))
        return self.header(
            [
                _message(1, _space(array.shape)),
                _message(3, _type(self.path, name, array)),
                _message(5, bytes([2, 2, 2, 1]) + bytes(4)),  # no value to fill with
                _message(8, bytes([3, 1]) + _int(start) + _int(array.nbytes)),
            ]
        )

    def group(self, node: Node, name: str) -> int:
        """Place a group and all that is in it; return the address of its header."""
        addresses = {
            key: self.group(child, f"{name}/{key}")
            if isinstance(child, Node)
            else self.dataset(f"{name}/{key}", child)
            for key, child in node.children.items()
        }
        heap = bytearray(8)  # the empty name
        places = {}
        for key in sorted(addresses, key=str.encode):
            places[key] = len(heap)
            heap += _padded(key.encode() + b"\0")
        text = self.put(bytes(heap))
        heap_at = self.put(b"HEAP" + bytes(4) + _int(len(heap)) + _int(1) + _int(text))
        tree = self.tree(places, addresses)
        attributes = [_attribute(self.path, key, value) for key, value in node.attributes.items()]
        return self.header([_message(17, _int(tree) + _int(heap_at)), *attributes])

    def tree(self, places: Mapping[str, int], addresses: Mapping[str, int]) -> int:
        keys = list(places)
        step = 2 * self.rank
        body = _int(0)
        leaves = [keys[start : start + step] for start in range(0, len(keys), step)]
        for leaf in leaves:
            entries = b"".join(_int(places[key]) + _int(addresses[key]) + bytes(24) for key in leaf)
            head = b"SNOD" + bytes([1, 0]) + _int(len(leaf), 2)
            body += _int(self.put(head + entries.ljust(step * _ENTRY, b"\0")))
            body += _int(places[leaf[-1]])
        head = b"TREE" + bytes(2) + _int(len(leaves), 2) + _UNDEFINED * 2
        return self.put(head + body.ljust(8 * (2 * _CHILDREN + 1), b"\0"))


def _largest(node: Node) -> int:
    below = [_largest(child) for child in node.children.values() if isinstance(child, Node)]
    return max([len(node.children), *below])


def write(path: Path, root: Node) -> None:
    """Write a file, one tensor at a time, whole or not at all.

    Raises:
        OutputError: It cannot be written, or a dtype is none that HDF5 has.
    """
    layout = _Layout(path, root)
    with atomic_write(path) as file:
        for start, piece in layout.pieces:
            file.seek(start)
            file.write(piece)
        for start, array in layout.tensors:
            file.seek(start)
            file.write(flat_bytes(array).data)
        file.truncate(layout.end)
