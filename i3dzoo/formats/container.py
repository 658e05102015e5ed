"""What every format reads into: named arrays, and text about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from i3dzoo.arrays import Tensors

__all__ = ["MAX_TENSORS", "Container"]

MAX_TENSORS = 10_000
"""More names than this in one file is an attack or an accident: I3D has 287 tensors."""


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
