"""Verify a checkpoint, and compare two: tensor by tensor, and endpoint by endpoint on one clip."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from i3dzoo.arrays import Array
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.metadata import Stream
from i3dzoo.devices import Device
from i3dzoo.errors import MappingError, ShapeError
from i3dzoo.fetch.find import open_checkpoint
from i3dzoo.fetch.folded import FoldedNetwork, read_folded
from i3dzoo.network.architecture import ENDPOINTS
from i3dzoo.zoo.identify import best_match, check_claim, without_checksums

if TYPE_CHECKING:  # verifying and comparing tensors does not need PyTorch
    import torch
    from torch import Tensor

    from i3dzoo.engines.torch import TorchEngine

Status = Literal["same", "within", "differs", "shape", "only here", "only there"]

RANDOM_FRAMES: Final = 16
"""Frames of a random clip: enough for one step of the logits, and fast on a CPU."""


@dataclass(frozen=True)
class Verification:
    """The checks that a checkpoint passed.

    Attributes:
        path: The file.
        layout: Its layout.
        num_classes: Number of classes; 0 if the network has no head.
        checksums: Whether the file has a checksum of every tensor; all of them are right.
        published: The closest published checkpoint; None if it shares no tensor with any.
        matched: Number of tensors that are equal to the published ones to the bit.
        total: Number of tensors of the published checkpoint.
        checks: One sentence for each check.
    """

    path: str
    layout: str
    num_classes: int
    checksums: bool
    published: str | None
    matched: int
    total: int
    checks: tuple[str, ...]


@dataclass(frozen=True)
class TensorDifference:
    """The difference between two checkpoints in one tensor.

    Attributes:
        name: Canonical name of the tensor.
        status: `same` (equal in the wider of the two number formats), `within` the tolerance (the
            largest absolute difference), `differs`, another `shape`, `only here` or `only there`.
        here: Shape and number format in the first checkpoint; empty if it has no such tensor.
        there: Shape and number format in the second checkpoint.
        largest: Largest absolute difference; None if the two cannot be subtracted.
    """

    name: str
    status: Status
    here: str
    there: str
    largest: float | None

    @property
    def agrees(self) -> bool:
        """Whether the tensor is the same, or within the tolerance."""
        return self.status in ("same", "within")


@dataclass(frozen=True)
class OutputDifference:
    """The difference between two networks in one output.

    Attributes:
        name: An endpoint, or `logits`, or `features` if the first network has no head.
        largest: Largest absolute difference; None if the shapes differ.
        scale: Largest absolute value of the first network's output.
    """

    name: str
    largest: float | None
    scale: float


def verify(path: Path, stream: Stream | None = None) -> Verification:
    """Check a checkpoint of any layout: structure, numbers, checksums and identity.

    Raises the error of the first check that fails. `stream` is the network to check, if the file
    holds two.
    """
    try:
        checkpoint = open_checkpoint(path, stream=stream)
    except MappingError:
        if folded := read_folded(path):
            return _verify_folded(path, folded)
        raise
    metadata, tensors = checkpoint.metadata, checkpoint.tensors
    check_claim(checkpoint, str(path))
    match = best_match(tensors)
    layout = checkpoint.conversion.layout if checkpoint.conversion else ""
    kind = f"{metadata.stream}, {metadata.num_classes or 'no'} classes, layout {layout}"
    if checkpoint.checked:
        checksums = "every tensor has the checksum that the file records"
    else:
        checksums = "this file has none; i3dzoo convert writes a canonical copy that has them"
    identity = str(match)
    if without_checksums(metadata.zoo):
        identity = f"described as {metadata.zoo}, which was published without tensor checksums"
    return Verification(
        path=str(path),
        layout=layout,
        num_classes=metadata.num_classes,
        checksums=checkpoint.checked,
        published=match.name if match.matched else None,
        matched=match.matched,
        total=match.total,
        checks=(
            f"structure: I3D, {kind}, {len(tensors)} tensors",
            "numbers: all are finite, and no variance is negative",
            f"checksums: {checksums}",
            f"identity: {identity}",
        ),
    )


def _verify_folded(path: Path, networks: tuple[FoldedNetwork, ...]) -> Verification:
    """Return the checks of an export whose BatchNorm is folded."""
    streams = " and ".join(network.metadata.stream for network in networks)
    classes = networks[0].metadata.num_classes
    published = [network.metadata.zoo for network in networks if network.verified]
    return Verification(
        path=str(path),
        layout="onnx",
        num_classes=classes,
        checksums=False,
        published=published[0] if published else None,
        matched=0,
        total=0,
        checks=(
            f"structure: ONNX export of I3D, {streams}, {classes or 'no'} classes",
            "numbers: all are finite",
            *(f"identity: {network.summary}" for network in networks),
        ),
    )


def compare_tensors(
    here: Checkpoint, there: Checkpoint, atol: float = 0.0
) -> tuple[TensorDifference, ...]:
    """Compare two checkpoints tensor by tensor, by their canonical names.

    Values are compared, not number formats: 1.0 in float32 and 1.0 in float16 are the same. Tensors
    come in the order of the first checkpoint; those that only the second has come last.
    """
    names = dict.fromkeys((*here.tensors, *there.tensors))
    return tuple(
        _compare(name, here.tensors.get(name), there.tensors.get(name), atol) for name in names
    )


def random_clip(checkpoint: Checkpoint, seed: int = 0) -> "Tensor":
    """Return uniform noise in [-1, 1) for a checkpoint: float32 [1, C, 16, crop, crop]."""
    import torch

    spec = checkpoint.metadata.input
    shape = (1, len(spec.mean), RANDOM_FRAMES, spec.crop, spec.crop)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def compare_outputs(
    here: Checkpoint, there: Checkpoint, clip: "Tensor", device: Device = "cpu"
) -> tuple[OutputDifference, ...]:
    """Run both networks on one clip in float32, and compare the output of each block.

    The clip is float [1, C, T, H, W], T >= 9. Convolutions and blocks come in the order of
    computation, and the logits last.

    Raises:
        ShapeError: The two are of different streams.
        OptionError: There is no such device.
    """
    from i3dzoo.engines.torch import TorchEngine

    if here.metadata.stream != there.metadata.stream:
        raise ShapeError(
            f"one network takes {here.metadata.stream}, the other {there.metadata.stream}; no clip "
            "fits both: change one with i3dzoo convert --in-channels"
        )
    first, second = (
        _outputs(TorchEngine.from_checkpoint(checkpoint, device, "fp32"), clip)
        for checkpoint in (here, there)
    )
    return tuple(
        OutputDifference(
            name,
            _largest_difference(output.numpy(), second[name].numpy())
            if name in second and second[name].shape == output.shape
            else None,
            float(output.abs().max()),
        )
        for name, output in first.items()
    )


def _compare(name: str, here: Array | None, there: Array | None, atol: float) -> TensorDifference:
    kinds = _kind(here), _kind(there)
    if here is None or there is None:
        return TensorDifference(name, "only there" if here is None else "only here", *kinds, None)
    if here.shape != there.shape:
        return TensorDifference(name, "shape", *kinds, None)
    largest = _largest_difference(here, there)
    status: Status = "same" if not largest else "within" if largest <= atol else "differs"
    return TensorDifference(name, status, *kinds, largest)


def _kind(array: Array | None) -> str:
    return "" if array is None else f"{list(array.shape)} {array.dtype.name}"


def _largest_difference(here: Array, there: Array) -> float:
    # In float64 the difference of two float32 values is exact unless their exponents are far apart.
    return float(np.abs(here.astype("f8") - there.astype("f8")).max(initial=0.0))


def _outputs(engine: "TorchEngine", clip: "Tensor") -> "dict[str, Tensor]":
    """Return the outputs of a network by name, in the order of computation."""
    outputs: dict[str, Tensor] = {}

    def record(name: str, module: "torch.nn.Module") -> None:
        module.register_forward_hook(lambda _, __, output: outputs.update({name: output.cpu()}))

    for name, module in engine.network.named_children():
        if name in ENDPOINTS:
            record(name, module)
    if engine.num_classes:
        return outputs | {"logits": engine.step_logits(clip).mean(1).cpu()}
    return outputs | {"features": engine.features(clip).cpu()}
