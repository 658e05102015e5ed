"""Name the architecture of a file that is not an I3D network, by the names of its tensors.

`converters/other/architectures.toml` lists the names.
"""

import functools
from typing import Annotated, Final

from msgspec import Meta

from i3dzoo.arrays import Tensors
from i3dzoo.errors import ConverterError
from i3dzoo.records import Record, parse_toml
from i3dzoo.resources import data

_FILE: Final = "architectures.toml"


class Architecture(Record, frozen=True):
    """An architecture, and the sizes of the kernels of some of its tensors.

    Attributes:
        name: What people call it.
        source: The project that has these names.
        keys: Some of its tensors, and the sizes of their kernels.
        inflates: Whether `i3dzoo inflate` makes an I3D network of it.
    """

    name: str
    source: str
    keys: Annotated[dict[str, tuple[int, ...]], Meta(min_length=1)]
    inflates: bool = False

    def is_in(self, tensors: Tensors) -> bool:
        """Whether the tensors have all keys, after one prefix."""
        first = next(iter(self.keys))
        prefixes = [name.removesuffix(first) for name in tensors if name.endswith(first)]
        return any(
            (not prefix or prefix.endswith("."))
            and all(_fits(tensors, prefix + key, kernel) for key, kernel in self.keys.items())
            for prefix in prefixes
        )


class _Document(Record, frozen=True):
    architecture: tuple[Architecture, ...]


def find_architecture(tensors: Tensors) -> Architecture | None:
    """Return the architecture that tensors are of, if it is a known one other than I3D."""
    return next((entry for entry in architectures() if entry.is_in(tensors)), None)


@functools.cache
def architectures() -> tuple[Architecture, ...]:
    """Return the known architectures, special ones first."""
    content = (data("converters") / "other" / _FILE).read_bytes()
    where = f"converters/other/{_FILE}"
    return parse_toml(content, _Document, where, error=ConverterError).architecture


def _fits(tensors: Tensors, name: str, kernel: tuple[int, ...]) -> bool:
    """Whether there is a weight with this kernel; 0 is any size."""
    shape = tensors[name].shape if name in tensors else ()
    return len(shape) == 2 + len(kernel) and all(
        size in (0, own) for size, own in zip(kernel, shape[2:], strict=True)
    )
