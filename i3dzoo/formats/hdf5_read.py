"""HDF5 files of the kind that Keras and h5py write, read without the HDF5 library.

The library hangs or crashes on one damaged file in a few hundred (measured with h5py 3.14 on
mutated Keras files), which no exception handler catches; so what Keras needs of the format is read
here: groups with symbol tables, uncompressed contiguous datasets, and text attributes. Everything
else is refused by name. Source: HDF5 File Format Specification, version 3.0.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from i3dzoo.arrays import Array
from i3dzoo.errors import FormatError, UnsafeFileError
from i3dzoo.formats.container import MAX_NAME, MAX_TENSORS

__all__ = ["SIGNATURE", "Group", "read"]

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_UNDEFINED: Final = (1 << 64) - 1
_MAX_DEPTH: Final = 20
_MAX_OBJECTS: Final = 4 * MAX_TENSORS
_SOFT_LINK: Final = 2
_EXTERNAL_LINK: Final = 64
# types of header messages
_SPACE, _LINK_INFO, _TYPE, _LINK, _EXTERNAL, _LAYOUT = 1, 2, 3, 6, 7, 8
_FILTERS, _ATTRIBUTE, _CONTINUATION, _SYMBOLS, _ATTRIBUTE_INFO = 11, 12, 16, 17, 21
_REWRITE: Final = (
    "write it again with h5py's default settings, uncompressed, or with h5repack -f NONE -l CONTI"
)
# class of type and size in bytes: dtype; in floats the width of the exponent tells the kind
_FLOATS: Final = {(2, 5): "<f2", (4, 8): "<f4", (8, 11): "<f8"}


@dataclass(frozen=True)
class Group:
    """A group: text attributes, and what is in it by name."""

    attributes: dict[str, list[str]] = field(default_factory=dict)
    children: "dict[str, Group | Array]" = field(default_factory=dict)


class _Reader:
    """The mapped file; every position is checked before it is read."""

    def __init__(self, path: Path, data: Array | None) -> None:
        self.path = path
        self.data: Array = np.memmap(path, "u1", "r") if data is None else data
        self.raw = self.data.data
        self.objects = 0
        self.characters = 0
        self.open: list[int] = []
        self.heaps: dict[int, dict[int, tuple[int, int]]] = {}

    def slice(self, at: int, count: int) -> bytes:
        if at + count > self.data.size:
            raise FormatError(
                f"{self.path}: is truncated or corrupt: {count} bytes at {at} lie past its end"
            )
        return bytes(self.raw[at : at + count])

    def number(self, at: int, count: int) -> int:
        return int.from_bytes(self.slice(at, count), "little")

    def tagged(self, at: int, tag: bytes) -> None:
        if self.slice(at, 4) != tag:
            raise FormatError(
                f"{self.path}: is corrupt: no {tag.decode()} at byte {at}; fetch it again"
            )

    def refuse(self, what: str) -> UnsafeFileError:
        return UnsafeFileError(f"{self.path}: {what}, which i3dzoo does not follow; {_REWRITE}")

    def unsupported(self, what: str) -> FormatError:
        return FormatError(f"{self.path}: {what}; {_REWRITE}")

    def text(self, at: int, size: int) -> str:
        """Read a text that a zero may end; all together are no longer than the file."""
        self.characters += size
        if self.characters > self.data.size:
            raise UnsafeFileError(
                f"{self.path}: its attributes hold more text than its {self.data.size} bytes"
            )
        return self.slice(at, size).partition(b"\0")[0].decode("utf-8")

    def count(self, objects: int = 1) -> None:
        self.objects += objects
        if self.objects > _MAX_OBJECTS:
            raise FormatError(
                f"{self.path}: holds more than {_MAX_OBJECTS} objects, as no I3D does"
            )

    def messages(self, address: int) -> list[tuple[int, int, int]]:
        """Return (type, position, size) of the messages of an object's header."""
        if self.number(address, 1) != 1:
            raise self.unsupported(f"has an object header of a newer kind at byte {address}")
        found: list[tuple[int, int, int]] = []
        blocks = [(address + 16, self.number(address + 8, 4))]
        for start, length in blocks:
            at = start
            while at + 8 <= start + length:
                self.count()
                kind, size = self.number(at, 2), self.number(at + 2, 2)
                self.slice(at + 8, size)
                if kind == _CONTINUATION:
                    blocks.append((self.number(at + 8, 8), self.number(at + 16, 8)))
                elif self.number(at + 4, 1) & 2:
                    raise self.unsupported("shares a data type between objects")
                else:
                    found.append((kind, at + 8, size))
                at += 8 + size
        return found

    def object(self, address: int, name: str) -> "Group | Array":
        """Read the group or dataset whose header is at an address."""
        if address in self.open or len(self.open) > _MAX_DEPTH:
            raise FormatError(f"{self.path}: {name} nests without end; the file is corrupt")
        self.open.append(address)
        messages = self.messages(address)
        at = {kind: position for kind, position, _ in messages}
        attributes = dict(
            self.attribute(position, position + size)
            for kind, position, size in messages
            if kind == _ATTRIBUTE
        )
        if _LINK_INFO in at or _LINK in at:
            self.check_links(messages, name)
        elif _ATTRIBUTE_INFO in at:
            raise self.unsupported(f"{name} keeps its attributes in a newer way")
        result: Group | Array
        if _SYMBOLS in at:
            tree, heap = self.number(at[_SYMBOLS], 8), self.number(at[_SYMBOLS] + 8, 8)
            result = Group(attributes, self.children(tree, heap, name))
        elif _LAYOUT in at:
            result = self.dataset(at, name)
        else:
            raise self.unsupported(f"{name} is neither a group nor a dataset")
        self.open.pop()
        return result

    def check_links(self, messages: list[tuple[int, int, int]], name: str) -> None:
        """Refuse groups of the newer kind, which h5py makes only for links and on request."""
        for kind, at, _ in messages:
            if kind == _LINK and self.number(at + 1, 1) & 8:
                target = self.number(at + 2, 1)
                if target == _EXTERNAL_LINK:
                    raise self.refuse(f"{name} links to another file")
                raise self.refuse(f"{name} holds a symbolic link")
        raise self.unsupported(f"{name} is a group of a newer kind")

    def children(self, tree: int, heap: int, name: str) -> "dict[str, Group | Array]":
        self.tagged(heap, b"HEAP")
        names, size = self.number(heap + 24, 8), self.number(heap + 8, 8)
        found: dict[str, Group | Array] = {}
        nodes = [tree]
        for node in nodes:
            self.tagged(node, b"TREE")
            level, used = self.number(node + 5, 1), self.number(node + 6, 2)
            self.count(used)
            below = [self.number(node + 32 + 16 * number, 8) for number in range(used)]
            if level:
                nodes.extend(below)
                continue
            for leaf in below:
                self.tagged(leaf, b"SNOD")
                for number in range(self.number(leaf + 6, 2)):
                    entry = leaf + 8 + 40 * number
                    start = self.number(entry, 8)
                    text = self.slice(names + start, max(0, min(size - start, MAX_NAME + 1)))
                    key = text.partition(b"\0")[0].decode("utf-8")
                    if self.number(entry + 16, 4) == _SOFT_LINK:
                        raise self.refuse(f"{name}/{key} is a symbolic link")
                    if key in found or not 0 < len(key) <= MAX_NAME:
                        raise FormatError(
                            f"{self.path}: {name} holds {key[:MAX_NAME]!r} twice, or it is too long"
                        )
                    found[key] = self.object(self.number(entry + 8, 8), f"{name}/{key}")
        return found

    def shape(self, at: int) -> tuple[int, ...]:
        version, rank = self.number(at, 1), self.number(at + 1, 1)
        if version not in (1, 2) or rank > 32:
            raise self.unsupported(f"has a data space of version {version} and rank {rank}")
        start = at + (8 if version == 1 else 4)
        return tuple(self.number(start + 8 * axis, 8) for axis in range(rank))

    def dtype(self, at: int, name: str) -> np.dtype[Any]:
        kind, bits, size = self.number(at, 1) & 15, self.number(at + 1, 3), self.number(at + 4, 4)
        little = not bits & 1
        if kind == 1 and little and not bits & 64:
            code = _FLOATS.get((size, self.number(at + 13, 1)))
            if code:
                return np.dtype(code)
        if kind == 0 and little and size in (1, 2, 4, 8):
            return np.dtype(f"<{'i' if bits & 8 else 'u'}{size}")
        raise self.unsupported(f"{name} has an HDF5 type (class {kind}, {size} bytes) of no tensor")

    def dataset(self, at: dict[int, int], name: str) -> Array:
        if _EXTERNAL in at:
            raise self.refuse(f"{name} has its data in another file")
        if _FILTERS in at:
            raise self.unsupported(f"{name} is compressed")
        if _SPACE not in at or _TYPE not in at:
            raise FormatError(f"{self.path}: {name} has no shape or type; the file is corrupt")
        shape, dtype = self.shape(at[_SPACE]), self.dtype(at[_TYPE], name)
        layout = at[_LAYOUT]
        version, kind = self.number(layout, 1), self.number(layout + 1, 1)
        if version not in (3, 4) or kind not in (0, 1):
            raise self.unsupported(f"{name} is not stored in one piece")
        if kind == 0:
            start, size = layout + 4, self.number(layout + 2, 2)
        else:
            start, size = self.number(layout + 2, 8), self.number(layout + 10, 8)
        if start == _UNDEFINED or not size or size != math.prod(shape) * dtype.itemsize:
            raise FormatError(
                f"{self.path}: {name} of shape {shape} has {size} bytes of data; "
                f"expected {math.prod(shape) * dtype.itemsize}"
            )
        if start + size > self.data.size:
            raise FormatError(
                f"{self.path}: is truncated: {name} ends at byte {start + size} of {self.data.size}"
            )
        return np.ndarray(shape, dtype, buffer=self.data[start : start + size])

    def attribute(self, at: int, end: int) -> tuple[str, list[str]]:
        """Return the name of an attribute and its texts; none where it is no text."""
        version = self.number(at, 1)
        sizes = [self.number(at + 2 + 2 * part, 2) for part in range(3)]
        if version not in (1, 2, 3) or (version > 1 and self.number(at + 1, 1)):
            raise self.unsupported(f"has an attribute of version {version}")
        start = at + (9 if version == 3 else 8)
        padded = [(size + 7) // 8 * 8 if version == 1 else size for size in sizes]
        name = self.text(start, sizes[0])
        kind = start + padded[0]
        space = kind + padded[1]
        data = space + padded[2]
        count = math.prod(self.shape(space)) if self.number(space + 1, 1) else 1
        size = self.number(kind + 4, 4)
        if count > end - data or data + count * size > end:
            raise FormatError(f"{self.path}: the attribute {name} runs past its message")
        return name, self.texts(kind, data, count, size)

    def texts(self, kind: int, data: int, count: int, size: int) -> list[str]:
        form = self.number(kind, 1) & 15
        if form == 3:  # text of fixed length
            return [self.text(data + size * number, size) for number in range(count)]
        if (
            form == 9 and self.number(kind + 1, 1) & 15 == 1 and size == 16
        ):  # text of variable length
            return [self.heap_text(data + 16 * number) for number in range(count)]
        return []

    def heap_text(self, at: int) -> str:
        length, heap, index = self.number(at, 4), self.number(at + 4, 8), self.number(at + 12, 4)
        if not length:
            return ""
        if heap not in self.heaps:
            self.heaps[heap] = self.heap(heap)
        if index not in self.heaps[heap]:
            raise FormatError(f"{self.path}: a text is missing from its heap; the file is corrupt")
        start, size = self.heaps[heap][index]
        return self.text(start, min(length, size))

    def heap(self, address: int) -> dict[int, tuple[int, int]]:
        """Return where each object of a heap of texts lies, and its size."""
        self.tagged(address, b"GCOL")
        at, end = address + 16, address + self.number(address + 8, 8)
        found = {}
        while at + 16 <= end:
            self.count()
            index, size = self.number(at, 2), self.number(at + 8, 8)
            if not index:
                break
            found[index] = (at + 16, size)
            at += 16 + (size + 7) // 8 * 8
        return found


def read(path: Path, data: Array | None = None) -> Group:
    """Read the root group of a file; datasets are views of the mapped file.

    Args:
        path: The file.
        data: Its bytes where they are a part of the file at `path`.

    Raises:
        UnsafeFileError: It links to other files.
        FormatError: It is truncated or corrupt, or of a kind that Keras does not write.
    """
    reader = _Reader(path, data)
    try:
        if reader.slice(0, 8) != SIGNATURE:
            raise FormatError(f"{path}: is no HDF5 file")
        if reader.number(8, 1) > 1:
            raise reader.unsupported("is an HDF5 file of a newer version")
        if reader.number(13, 1) != 8 or reader.number(14, 1) != 8:
            raise reader.unsupported("has offsets that are not of eight bytes")
        base = 24 + (4 if reader.number(8, 1) else 0)
        if reader.number(base, 8):
            raise reader.unsupported("begins with something that is no HDF5")
        root = reader.object(reader.number(base + 40, 8), "")
    except (UnicodeDecodeError, OverflowError, MemoryError, RecursionError) as error:
        raise FormatError(f"{path}: is corrupt: {error}; fetch it again") from error
    if not isinstance(root, Group):
        raise FormatError(f"{path}: its root is no group; the file is corrupt")
    return root
