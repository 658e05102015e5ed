"""ONNX exports of i3dzoo whose BatchNorm is folded: described, but no checkpoints any more.

They are recognised by their metadata, and compared with the published checkpoint that they name.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from i3dzoo import formats
from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints.checkpoint import check_finite, read_checkpoint
from i3dzoo.checkpoints.metadata import Metadata
from i3dzoo.errors import ChecksumError
from i3dzoo.network.architecture import HEAD_BIAS, HEAD_WEIGHT, UNITS
from i3dzoo.onnx.description import EXPORT_KEY, read_description
from i3dzoo.onnx.folding import fold_batch_norm
from i3dzoo.onnx.options import INPUT, ExportOptions
from i3dzoo.zoo.registry import cached_path


@dataclass(frozen=True)
class FoldedNetwork:
    """One stream of an export.

    Attributes:
        metadata: The description of the checkpoint that was exported.
        options: How it was exported.
        tensors: The weights of the file.
        summary: What the file is, and whether its weights are those of the published checkpoint.
        verified: Whether they were compared, and are.
    """

    metadata: Metadata
    options: ExportOptions
    tensors: Tensors
    summary: str
    verified: bool


def read_folded(path: Path) -> tuple[FoldedNetwork, ...]:
    """Read the networks of an export whose BatchNorm is folded; none if the file is not one.

    Raises:
        FormatError: The file is malformed, or its weights have NaN or infinity.
        MetadataError: The description is malformed.
        ChecksumError: The weights are not those of the published checkpoint that is described.
    """
    container = formats.read(path)
    if container.format != "onnx" or EXPORT_KEY not in container.metadata:
        return ()
    streams, options = read_description(str(path), container.metadata)
    if options.keep_bn:
        return ()
    check_finite(str(path), container.tensors)
    return tuple(
        _network(path, metadata, options, container.tensors, len(streams) > 1)
        for metadata in streams
    )


def _network(
    path: Path, metadata: Metadata, options: ExportOptions, tensors: Tensors, joint: bool
) -> FoldedNetwork:
    prefix = f"{INPUT[metadata.stream].removeprefix('input_')}." if joint else ""
    own = {name.removeprefix(prefix): a for name, a in tensors.items() if name.startswith(prefix)}
    what = f"an ONNX export in {options.precision}, BatchNorm folded,"
    name, made_from = metadata.zoo, metadata.base
    if name is None:
        origin = f"made from {made_from}" if made_from else f"of sha256 {metadata.source.sha256}"
        return FoldedNetwork(metadata, options, own, f"{what} of a checkpoint {origin}", False)
    if options.precision != "fp32" or options.space_to_depth:
        summary = f"{what} of {name} by its description; rounded weights are not compared"
        return FoldedNetwork(metadata, options, own, summary, False)
    if not cached_path(name).exists():
        summary = f"{what} of {name} by its description; to compare them, run i3dzoo pull {name}"
        return FoldedNetwork(metadata, options, own, summary, False)
    published = read_checkpoint(cached_path(name), "canonical")
    if wrong := _differing(own, published.tensors, published.metadata.variant.epsilon):
        raise ChecksumError(
            f"{path}: {wrong} differs from that of {name}, which its description names; export "
            f"{name} again with i3dzoo export"
        )
    return FoldedNetwork(metadata, options, own, f"{what} of {name}: all weights are equal", True)


def _differing(own: Tensors, published: Tensors, epsilon: float) -> str | None:
    """Return the first weight that is not that of a checkpoint with its BatchNorm folded."""
    expected = {name: published[name] for name in (HEAD_WEIGHT, HEAD_BIAS) if name in published}
    for unit in UNITS:
        weight, bias = fold_batch_norm(published, unit.name, epsilon)
        expected |= {f"{unit.name}.conv.weight": weight, f"{unit.name}.conv.bias": bias}
    for name, array in expected.items():
        if name not in own or not np.array_equal(own[name], array):
            return name
    return None
