"""Which published checkpoint is this? Tensors are matched by the CRC32C that DeepMind stored.

The CRC of a tensor is taken over its bytes in DeepMind's axis order, so it is the same whatever
layout the tensor came from, and the same as in DeepMind's own `.index` files.

Nobody published checksums of weights in half precision. Such a file is compared with the published
checkpoints that are in the cache, rounded to its format. Checkpoints without published checksums of
their tensors are known by the digest of their file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from i3dzoo.architecture import HEAD
from i3dzoo.arrays import Array, Tensors
from i3dzoo.checksums import crc32c, git_blob, mask, sha256
from i3dzoo.errors import I3DZooError

if TYPE_CHECKING:
    from i3dzoo.manifest import Manifest

__all__ = ["Match", "best_match", "match", "published_file", "tensor_crcs", "without_checksums"]

_STEM = "Conv3d_1a_7x7.conv.weight"


@dataclass(frozen=True)
class Match:
    """How many tensors of a file are those of a published checkpoint.

    Attributes:
        name: The published checkpoint; empty where there was none to compare with.
        matched: Tensors that are the same to the bit.
        total: Tensors of the published checkpoint.
        differing: Canonical names of the others, in the order of the network.
        classes: Classes of the file's head, 0 where it has none; None where they are not known.
        dtype: The file's number format, to which the published checkpoint was rounded.
    """

    name: str
    matched: int
    total: int
    differing: tuple[str, ...]
    classes: int | None = None
    dtype: str = "float32"

    @property
    def exact(self) -> bool:
        """Whether the file is that checkpoint, or that checkpoint rounded to its format."""
        return self.total > 0 and self.matched == self.total

    @property
    def trunk(self) -> bool:
        """Whether at most the head differs."""
        return self.matched > 0 and all(name.startswith(HEAD) for name in self.differing)

    @property
    def convolutions(self) -> bool:
        """Whether all convolutions are the same, and at most BatchNorm and the head differ."""
        same, total = self.parts()["convolutions"]
        return self.matched > 0 and same == total

    def parts(self) -> dict[str, tuple[int, int]]:
        """Return how many tensors of each part are the same, and how many it has."""
        counts = {
            "convolutions": 57,
            "BatchNorm biases": 57,
            "BatchNorm statistics": 114,
            "head": 2,
        }
        differing = dict.fromkeys(counts, 0)
        for name in self.differing:
            differing[_part(name)] += 1
        return {part: (total - differing[part], total) for part, total in counts.items()}

    def __str__(self) -> str:
        if not self.matched:
            return self._unmatched()
        name = self.name if self.dtype == "float32" else f"{self.name} as {self.dtype}"
        count = f"{self.matched} of {self.total} tensors"
        if self.exact:
            return f"{name}, {count}"
        if self.trunk:
            return f"{name} trunk, {count}: {self._head()}"
        parts = self.parts()
        if self.convolutions:
            biases, statistics = parts["BatchNorm biases"], parts["BatchNorm statistics"]
            head = "" if parts["head"] == (2, 2) else f"; {self._head()}"
            return (
                f"convolutions of {name} (57 of 57), {count}: BatchNorm moved, the same are "
                f"{biases[0]} of {biases[1]} biases and {statistics[0]} of {statistics[1]} "
                f"statistics{head}"
            )
        same = ", ".join(f"{part} {same} of {total}" for part, (same, total) in parts.items())
        first = self.differing[0]
        return f"nearest to {name}, {count}: {same}; the first that differs is {first}"

    def _head(self) -> str:
        if self.classes == 0:
            return "there is no head"
        return "the head differs" + (f" ({self.classes} classes)" if self.classes else "")

    def _unmatched(self) -> str:
        if self.dtype != "float32" and not self.name:
            return (
                f"not compared: it is {self.dtype}, published checksums are of float32, and the "
                "cache has no checkpoint of this stream to round; i3dzoo pull one and try again"
            )
        return (
            f"no tensor of a published checkpoint (0 of {self.total}), same structure: fine-tuned "
            "or trained anew"
        )


def tensor_crcs(tensors: Tensors) -> dict[str, int]:
    """Return the masked CRC32C of each canonical tensor that DeepMind's checkpoints hold.

    BatchNorm scales are left out: they have none.
    """
    return {name: _crc(array) for name, array in tensors.items() if not name.endswith(".bn.weight")}


def match(
    name: str,
    published: Mapping[str, int],
    found: Mapping[str, int],
    classes: int | None = None,
    dtype: str = "float32",
) -> Match:
    """Compare the CRCs of a file with those of the published checkpoint `name`."""
    differing = tuple(tensor for tensor, crc in published.items() if found.get(tensor) != crc)
    matched = len(published) - len(differing)
    return Match(name, matched, len(published), differing, classes, dtype)


def best_match(tensors: Tensors) -> Match:
    """Return the published checkpoint that shares most tensors with these; it may share none."""
    from i3dzoo import zoo

    crcs = tensor_crcs(tensors)
    bias = tensors.get(f"{HEAD}.conv.bias")
    classes = 0 if bias is None else len(bias)
    dtype = tensors[_STEM].dtype.name
    models = [model for model in map(zoo.manifest, zoo.names()) if model.crc32c]
    if dtype == "float32":
        matches = [match(model.name, model.crc32c, crcs, classes) for model in models]
    else:
        matches = [
            match(model.name, rounded, crcs, classes, dtype)
            for model in models
            if (rounded := _rounded_crcs(model, tensors))
        ]
    none = Match("", 0, len(models[0].crc32c), tuple(models[0].crc32c), classes, dtype)
    return max(matches, key=lambda m: m.matched / m.total, default=none)


def published_file(path: Path, stream: str, classes: int) -> str | None:
    """Return the published checkpoint whose file this is, of those without checksums of tensors.

    Args:
        path: The file, whose digest decides.
        stream: Of the file.
        classes: Of the file; files of other streams and sizes are not read.
    """
    from i3dzoo import zoo

    for model in map(zoo.manifest, zoo.names()):
        if model.crc32c or (model.stream, model.num_classes) != (stream, classes):
            continue
        digests = {f"git-blob:{git_blob(path)}", f"sha256:{sha256(path)}"}
        for source in model.sources:
            if isinstance(source, zoo.Files) and source.files[0].digest in digests:
                return model.name
    return None


def without_checksums(name: str | None) -> bool:
    """Whether this is a published checkpoint of which nobody published a tensor's checksum."""
    from i3dzoo import zoo

    return name in zoo.names() and not zoo.manifest(str(name)).crc32c


def _crc(array: Array) -> int:
    return mask(crc32c(array.transpose(2, 3, 4, 1, 0) if array.ndim == 5 else array))


def _part(name: str) -> str:
    if name.startswith(HEAD):
        return "head"
    if name.endswith(".conv.weight"):
        return "convolutions"
    return "BatchNorm biases" if name.endswith(".bn.bias") else "BatchNorm statistics"


def _rounded_crcs(model: "Manifest", like: Tensors) -> dict[str, int]:
    """Return the CRCs of a cached model rounded to the formats of other tensors.

    They are none where it is not cached, is unsound or of another stream.
    """
    from i3dzoo import zoo
    from i3dzoo.checkpoint import read_checkpoint

    path = zoo.cached_path(model.name)
    if not path.exists() or like[_STEM].shape[1] != {"rgb": 3, "flow": 2}[model.stream]:
        return {}
    try:
        tensors = read_checkpoint(path, "canonical").tensors
    except I3DZooError:
        return {}
    return {
        name: _crc(tensors[name].astype(like[name].dtype if name in like else "f4"))
        for name in model.crc32c
    }
