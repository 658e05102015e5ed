"""Compare the tensors of a file with those of a published checkpoint, by their checksums."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from i3dzoo.arrays import Array, Tensors
from i3dzoo.digests import crc32c, mask
from i3dzoo.network.architecture import HEAD

_SCALE: Final = ".bn.weight"
_PARTS: Final = {
    "convolutions": 57,
    "batchnorm_biases": 57,
    "batchnorm_statistics": 114,
    "head": 2,
}
"""Parts of the network, and how many of the published tensors each has."""


@dataclass(frozen=True)
class Match:
    """How many tensors a file shares with a published checkpoint.

    Attributes:
        name: The published checkpoint; empty if there was none to compare with.
        matched: Number of tensors that are equal to the bit.
        total: Number of tensors of the published checkpoint.
        differing: Canonical names of the other tensors, in the order of the network; after them
            the BatchNorm scales that are not 1, as all published ones are.
        classes: Number of classes of the file's head, 0 without a head; None if it is unknown.
        dtype: Number format of the file, to which the published checkpoint was rounded.
    """

    name: str
    matched: int
    total: int
    differing: tuple[str, ...]
    classes: int | None = None
    dtype: str = "float32"

    @property
    def exact(self) -> bool:
        """Whether all tensors are equal, after rounding to the file's number format."""
        return self.total > 0 and not self.differing

    @property
    def scales(self) -> tuple[str, ...]:
        """Canonical names of the BatchNorm scales that are not 1."""
        return tuple(name for name in self.differing if name.endswith(_SCALE))

    @property
    def trunk(self) -> bool:
        """Whether all tensors below the head are equal."""
        return self.matched > 0 and all(name.startswith(HEAD) for name in self.differing)

    @property
    def convolutions(self) -> bool:
        """Whether all convolutions are equal; BatchNorm and the head may differ."""
        equal, total = self.parts()["convolutions"]
        return self.matched > 0 and equal == total

    def parts(self) -> dict[str, tuple[int, int]]:
        """Return the number of equal tensors and of all tensors, for each part of the network."""
        differing = dict.fromkeys(_PARTS, 0)
        for name in self.differing:
            if not name.endswith(_SCALE):
                differing[_part(name)] += 1
        return {part: (total - differing[part], total) for part, total in _PARTS.items()}

    def __str__(self) -> str:
        if not self.matched:
            return self._describe_no_match()
        name = self.name if self.dtype == "float32" else f"{self.name} as {self.dtype}"
        count = f"{self.matched} of {self.total} tensors"
        if self.exact:
            return f"{name}, {count}"
        if self.trunk:
            return f"{name} trunk, {count}: {self._describe_head()}"
        parts = {part: f"{equal} of {total}" for part, (equal, total) in self.parts().items()}
        if self.convolutions:
            head = "" if parts["head"] == "2 of 2" else f"; {self._describe_head()}"
            scales = f", and {len(self.scales)} scales are not 1" if self.scales else ""
            return (
                f"convolutions of {name} (57 of 57), {count}: BatchNorm differs, it shares "
                f"{parts['batchnorm_biases']} biases and {parts['batchnorm_statistics']} "
                f"statistics{scales}{head}"
            )
        return (
            f"closest to {name}, {count}: convolutions {parts['convolutions']}, BatchNorm biases "
            f"{parts['batchnorm_biases']}, BatchNorm statistics {parts['batchnorm_statistics']}, "
            f"head {parts['head']}; the first tensor that differs is {self.differing[0]}"
        )

    def _describe_head(self) -> str:
        if self.classes == 0:
            return "there is no head"
        return "the head differs" + (f" ({self.classes} classes)" if self.classes else "")

    def _describe_no_match(self) -> str:
        if self.dtype != "float32" and not self.name:
            return (
                f"not compared: the file is {self.dtype}, published checksums are of float32, and "
                "no checkpoint of this stream is cached; pull one with i3dzoo pull and try again"
            )
        return (
            f"no tensor of a published checkpoint (0 of {self.total}): the structure is the same, "
            "so it was fine-tuned or trained from scratch"
        )


def tensor_checksums(tensors: Tensors) -> dict[str, int]:
    """Return the masked CRC32C of each canonical tensor that DeepMind's checkpoints hold.

    DeepMind's checkpoints have no BatchNorm scales. Those that are 1 are therefore left out, and
    others are checksums that no published checkpoint has.
    """
    return {
        name: checksum(array)
        for name, array in tensors.items()
        if not (name.endswith(_SCALE) and (array == 1).all())
    }


def compare_checksums(
    name: str,
    published: Mapping[str, int],
    actual: Mapping[str, int],
    classes: int | None = None,
    dtype: str = "float32",
) -> Match:
    """Compare the checksums of a file's tensors with those of the published checkpoint `name`."""
    differing = tuple(tensor for tensor, crc in published.items() if actual.get(tensor) != crc)
    matched = len(published) - len(differing)
    scales = (name for name in actual if name.endswith(_SCALE) and name not in published)
    return Match(name, matched, len(published), (*differing, *scales), classes, dtype)


def checksum(array: Array) -> int:
    """Return the masked CRC32C of a canonical tensor, over its bytes in DeepMind's axis order."""
    return mask(crc32c(array.transpose(2, 3, 4, 1, 0) if array.ndim == 5 else array))


def _part(name: str) -> str:
    if name.startswith(HEAD):
        return "head"
    if name.endswith(".conv.weight"):
        return "convolutions"
    return "batchnorm_biases" if name.endswith(".bn.bias") else "batchnorm_statistics"
