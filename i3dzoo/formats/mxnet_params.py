"""Read MXNet's `.params` files, as Gluon's `save_parameters` and `mx.nd.save` write them.

A file is a list of arrays, then the list of their names; numbers are little-endian. Source:
src/ndarray/ndarray.cc of MXNet, functions NDArray::Save, NDArray::Load and NDArray::LegacyLoad.
"""

import math
from pathlib import Path
from typing import Final

import numpy as np

from i3dzoo.arrays import Array, bfloat16
from i3dzoo.errors import FormatError
from i3dzoo.formats.container import Container, by_name, is_shape, mapped
from i3dzoo.formats.limits import MAX_AXES, MAX_NAME, MAX_TENSORS

MAGIC: Final = b"\x12\x01\0\0\0\0\0\0"
_VERSIONS: Final = {0xF993FAC8: 1, 0xF993FAC9: 2, 0xF993FACA: 3}  # the version of an array
_DENSE: Final = 0
_DTYPES: Final = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")
_BFLOAT16: Final = 12


def read(path: Path) -> Container:
    """Read a file. Arrays are views of the mapped file."""
    reader = _Reader(path)
    if reader.bytes(8) != MAGIC:
        raise FormatError(f"{path}: is not a file of MXNet arrays: its magic number is wrong")
    reader.integer(8)  # reserved
    count = reader.count(MAX_TENSORS, "arrays")
    arrays = [reader.array() for _ in range(count)]
    names = [
        str(reader.bytes(reader.count(MAX_NAME, "characters in a name")), "utf-8")
        for _ in range(reader.count(MAX_TENSORS, "names"))
    ]
    if len(names) != count:
        raise FormatError(
            f"{path}: has {count} arrays and {len(names)} names; save the parameters by name, with "
            "save_parameters of Gluon"
        )
    reader.finish()
    named = zip(names, arrays, strict=True)
    return Container("mxnet", path, by_name(path, named, "has no arrays"))


class _Reader:
    """Reads a mapped file from its beginning to its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = mapped(path)
        self.at = 0

    def bytes(self, size: int) -> bytes:
        return self._take(size).tobytes()

    def integer(self, size: int) -> int:
        return int.from_bytes(self.bytes(size), "little")

    def count(self, most: int, what: str) -> int:
        count = self.integer(8)
        if count > most:
            raise FormatError(f"{self.path}: has {count} {what}; expected at most {most}")
        return count

    def array(self) -> Array:
        """Read one array: version, storage type, shape, device, type, numbers."""
        first = self.integer(4)
        version = _VERSIONS.get(first, 0)
        if version >= 2 and (storage := self.integer(4)) != _DENSE:
            raise FormatError(
                f"{self.path}: holds a sparse array (storage type {storage}); expected dense ones"
            )
        axes = self.integer(4) if version else first
        least = 0 if version == 3 else 1  # before, no axes meant no array
        if not least <= axes <= MAX_AXES:
            raise FormatError(
                f"{self.path}: an array has {axes} axes; expected {least} to {MAX_AXES}: the file "
                "is corrupt, or of a newer version of MXNet"
            )
        shape = [self.integer(8 if version else 4) for _ in range(axes)]
        self.integer(8)  # the device
        kind = self.integer(4)
        if kind >= len(_DTYPES) and kind != _BFLOAT16:
            raise FormatError(f"{self.path}: an array has type {kind}; expected a type of numbers")
        dtype = bfloat16() if kind == _BFLOAT16 else np.dtype(_DTYPES[kind])
        if not is_shape(shape):
            raise FormatError(f"{self.path}: an array has an impossible shape")
        raw = self._take(math.prod(shape) * dtype.itemsize)
        return np.ndarray(tuple(shape), dtype, buffer=raw)

    def finish(self) -> None:
        """Check that nothing follows."""
        if self.at != self.data.size:
            raise FormatError(
                f"{self.path}: has {self.data.size - self.at} bytes after its last name; it is "
                "corrupt: download it again"
            )

    def _take(self, size: int) -> Array:
        raw = self.data[self.at : self.at + size]
        if raw.size != size:
            raise FormatError(
                f"{self.path}: is truncated: {size} bytes at byte {self.at} end after the end of "
                "the file; download it again"
            )
        self.at += size
        return raw
