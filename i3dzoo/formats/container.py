"""What every format reads into: named arrays, and text about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from i3dzoo.arrays import Tensors

__all__ = ["MAX_NAME", "MAX_TENSORS", "Container", "is_shape"]

MAX_TENSORS = 10_000
"""More names than this in one file is an attack or an accident: I3D has 287 tensors."""

MAX_NAME = 1000
"""Characters of a name; tensors that share the beginning of a longer one could fill the memory."""

_MAX_AXES: Final = 32
_MAX_LENGTH: Final = 1 << 48


def is_shape(value: Any) -> bool:
    """Whether this is a sequence of lengths that an array's axes can have."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= _MAX_AXES
        and all(type(length) is int and 0 <= length < _MAX_LENGTH for length in value)
    )


@dataclass(frozen=True)
class Container:
    """The content of one file.

    Attributes:
        format: Name of the format.
        path: The file; of a TensorFlow bundle, its index.
        tensors: Arrays by name; often views of the mapped file, which must not change meanwhile.
        metadata: Text that the file carries beside the tensors.
        checked: Whether every tensor was checked against a checksum in the file.
    """

    format: str
    path: Path
    tensors: Tensors
    metadata: Mapping[str, str] = field(default_factory=dict)
    checked: bool = False
