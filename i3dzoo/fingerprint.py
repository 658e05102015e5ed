"""Which published checkpoint is this? Tensors are matched by the CRC32C that DeepMind stored.

The CRC of a tensor is taken over its bytes in DeepMind's axis order, so it is the same whatever
layout the tensor came from, and the same as in DeepMind's own `.index` files.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from i3dzoo.architecture import HEAD
from i3dzoo.arrays import Tensors
from i3dzoo.checksums import crc32c, mask

__all__ = ["Match", "best_match", "match", "tensor_crcs"]


@dataclass(frozen=True)
class Match:
    """How many tensors of a file are those of a published checkpoint.

    Attributes:
        name: The published checkpoint.
        matched: Tensors that are the same to the bit.
        total: Tensors of the published checkpoint.
        differing: Canonical names of the others.
    """

    name: str
    matched: int
    total: int
    differing: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether the file is that checkpoint."""
        return self.matched == self.total

    @property
    def trunk(self) -> bool:
        """Whether only the head differs."""
        return all(name.startswith(HEAD) for name in self.differing)

    def __str__(self) -> str:
        if not self.matched:
            return "no tensor of a published checkpoint, same structure: fine-tuned or retrained"
        count = f"{self.matched} of {self.total} tensors"
        if self.exact:
            return f"{self.name}, {count}"
        if self.trunk:
            return f"{self.name} trunk, {count}: the head differs"
        return f"nearest to {self.name}, {count}: {self.differing[0]} and others differ"


def tensor_crcs(tensors: Tensors) -> dict[str, int]:
    """Return the masked CRC32C of each canonical tensor that DeepMind's checkpoints hold.

    BatchNorm scales are left out: they have none. Tensors that are not float32 match nothing.
    """
    return {
        name: mask(crc32c(array.transpose(2, 3, 4, 1, 0) if array.ndim == 5 else array))
        for name, array in tensors.items()
        if not name.endswith(".bn.weight") and array.dtype == "f4"
    }


def match(name: str, published: Mapping[str, int], found: Mapping[str, int]) -> Match:
    """Compare the CRCs of a file with those of the published checkpoint `name`."""
    differing = tuple(tensor for tensor, crc in published.items() if found.get(tensor) != crc)
    return Match(name, len(published) - len(differing), len(published), differing)


def best_match(tensors: Tensors) -> Match:
    """Return the published checkpoint that shares most tensors with these; it may share none."""
    from i3dzoo import zoo

    crcs = tensor_crcs(tensors)
    matches = [match(name, zoo.manifest(name).crc32c, crcs) for name in zoo.names()]
    return max((m for m in matches if m.total), key=lambda m: m.matched / m.total)
