"""The content of a checkpoint file, and checks that all readers share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from i3dzoo.arrays import Array, Tensors
from i3dzoo.errors import ChecksumError, FormatError
from i3dzoo.files import is_special
from i3dzoo.formats.limits import MAX_AXES, MAX_LENGTH, MAX_NAME, MAX_TENSORS
from i3dzoo.text import shorten


def is_shape(value: Any) -> bool:
    """Whether a value is a valid array shape of plausible size."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= MAX_AXES
        and all(type(length) is int and 0 <= length < MAX_LENGTH for length in value)
    )


def mapped(path: Path) -> Array:
    """Return the bytes of a file, mapped and read-only; opening a pipe or a device could hang."""
    if is_special(path):
        raise FormatError(f"{path}: is not a regular file; save it to one first")
    if path.stat().st_size == 0:
        return np.empty(0, "u1")
    return np.memmap(path, "u1", "r")


def check_crc(
    path: Path, part: str, actual: int, expected: int | str, kind: str = "CRC32C"
) -> None:
    """Raise ChecksumError if a checksum differs from the one in the file."""
    stored = f"{expected:08x}" if isinstance(expected, int) else expected
    if f"{actual:08x}" != stored:
        raise ChecksumError(
            f"{path}: {part} has {kind} {actual:08x}, expected {stored[:20]}; the file is corrupt: "
            "download or convert it again"
        )


def by_name(path: Path, named: Iterable[tuple[str, Array]], empty: str) -> dict[str, Array]:
    """Return arrays by name; refuse too many, none, and names that repeat or are too long."""
    tensors: dict[str, Array] = {}
    for name, array in named:
        if len(tensors) >= MAX_TENSORS:
            raise FormatError(f"{path}: has more than {MAX_TENSORS} tensors; I3D has 287")
        if len(name) > MAX_NAME:
            raise FormatError(
                f"{path}: a tensor has a name of more than {MAX_NAME} characters "
                f"({shorten(name, 40)})"
            )
        if name in tensors:
            raise FormatError(f"{path}: the name {shorten(name)} is not unique")
        tensors[name] = array
    if not tensors:
        raise FormatError(f"{path}: {empty}")
    return tensors


@dataclass(frozen=True)
class Container:
    """The content of one file.

    Attributes:
        format: Name of the format.
        path: The file, or the index of a TensorFlow checkpoint.
        tensors: Arrays by name, often views of the mapped file, which must not change.
        metadata: Text stored in the file besides the tensors.
        checked: Whether every tensor matches a checksum in the file.
        parts: If the file has several state dicts, all of them by key.
        main: The key of the state dict that `tensors` is, such as `state_dict`; None if no key of
            several state dicts is a usual one, and `tensors` is empty.
    """

    format: str
    path: Path
    tensors: Tensors
    metadata: Mapping[str, str] = field(default_factory=dict)
    checked: bool = False
    parts: Mapping[str, Tensors] = field(default_factory=dict)
    main: str | None = None

    @property
    def state_dicts(self) -> Mapping[str, Tensors]:
        """All state dicts by key; the only one has an empty key."""
        return self.parts or {"": self.tensors}
