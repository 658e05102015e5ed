"""Read .npy and .npz files of many videos or of features, a row at a time."""

import contextlib
import math
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from i3dzoo.errors import FormatError
from i3dzoo.files import open_input
from i3dzoo.files.npy import READ_ERRORS, read_npy_header
from i3dzoo.limits import MAX_FRAMES, MAX_PIXELS
from i3dzoo.text import shorten

MAX_ROW_BYTES: Final = 1 << 32
"""Largest video of an array: 4 GiB, 1,700 frames of 1280x640 as uint8."""


class ArrayFile:
    """An array [N, ...] of a .npy or .npz file, of which one row is held at a time.

    A .npz file is decompressed from its start to the wanted row, and goes on from there.

    Attributes:
        path: The file.
        shape: The shape in its header.
        dtype: uint8 or a float type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _next: int

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = contextlib.ExitStack()
        weakref.finalize(self, self._stack.close)
        self._open()

    def __len__(self) -> int:
        return self.shape[0]

    def row(self, number: int) -> npt.NDArray[Any]:
        """Return one row, in the type of the file.

        Raises:
            FormatError: The file is truncated or damaged.
        """
        row: npt.NDArray[Any] = self._read(number, 1)[0]
        return row

    def blocks(self, size: int = 512) -> Iterator[npt.NDArray[Any]]:
        """Yield all rows, `size` at once."""
        for start in range(0, len(self), size):
            yield self._read(start, min(size, len(self) - start))

    def _read(self, start: int, count: int) -> npt.NDArray[Any]:
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        try:
            if start < self._next:
                self._stack.close()
                self._open()
            self._file.seek((start - self._next) * row, 1)
            data = self._file.read(count * row)
        except READ_ERRORS as error:
            raise FormatError(f"{self.path}: row {start} cannot be read: {error}") from error
        if len(data) < count * row:
            complete = start + len(data) // row
            raise FormatError(
                f"{self.path}: is truncated: it has {complete} of {len(self)} rows; fetch or write "
                "it again"
            )
        self._next = start + count
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def _open(self) -> None:
        file = self._stack.enter_context(open_input(self.path, FormatError))
        self._file: Any = file
        self._next = 0
        try:
            if self.path.suffix.lower() == ".npz":
                archive = self._stack.enter_context(zipfile.ZipFile(file))
                member = _only_member(self.path, archive)
                self._file = self._stack.enter_context(archive.open(member))
            self.shape, self.dtype = _header(self.path, self._file)
        except READ_ERRORS as error:
            self._stack.close()
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{self.path}: is not a readable array: {error}") from error


def _only_member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
    if len(members) != 1:
        names = ", ".join(shorten(m.filename.removesuffix(".npy")) for m in members[:5]) or "none"
        raise FormatError(
            f"{path}: holds {len(members)} arrays ({names}); expected one: save the videos or the "
            "features alone"
        )
    return members[0]


def _header(path: Path, file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    shape, fortran, dtype = read_npy_header(file)
    if dtype.hasobject:
        raise FormatError(
            f"{path}: holds pickled Python objects, which can run code and are never loaded"
        )
    held = f"holds {dtype} {list(shape)}"
    if dtype != np.uint8 and dtype.kind != "f":
        raise FormatError(f"{path}: {held}; expected uint8 or floats: save array.astype('uint8')")
    if fortran and len(shape) > 1:
        raise FormatError(f"{path}: is in Fortran order; save np.ascontiguousarray(array)")
    if not all(shape) or len(shape) not in (2, 5) or shape[0] > MAX_FRAMES:
        raise FormatError(
            f"{path}: {held}; expected videos [N, T, H, W, 3] or [N, 3, T, H, W], or features "
            f"[N, D], and at most {MAX_FRAMES:,} of them"
        )
    size = math.prod(shape[1:]) * dtype.itemsize
    if size > MAX_ROW_BYTES or math.prod(sorted(shape[1:])[-2:]) > MAX_PIXELS:
        raise FormatError(
            f"{path}: {held}, {size:,} bytes a row; expected at most {MAX_ROW_BYTES:,}: save "
            "shorter or smaller videos"
        )
    return shape, dtype
