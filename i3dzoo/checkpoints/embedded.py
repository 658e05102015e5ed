"""The description of a checkpoint inside a file: a canonical file, or an export of i3dzoo.

An export is ONNX or TorchScript. It has the description of each stream's checkpoint, so it can be
read like that checkpoint, unless BatchNorm is folded into its convolutions.
"""

from collections.abc import Mapping
from typing import Final

from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.metadata import Metadata, Stream
from i3dzoo.errors import MappingError, MetadataError
from i3dzoo.formats import Container
from i3dzoo.formats.onnx_file import read_graph

DESCRIPTION: Final = "i3dzoo"
"""The key of the description in a canonical file."""

EXPORT_DESCRIPTIONS: Final[Mapping[Stream, str]] = {"rgb": "i3dzoo.rgb", "flow": "i3dzoo.flow"}
"""The key of the description of each stream in an export."""


def is_described(container: Container) -> bool:
    """Whether a file contains a description by i3dzoo."""
    return not {DESCRIPTION, *EXPORT_DESCRIPTIONS.values()}.isdisjoint(container.metadata)


def read_description(container: Container, tensors: Tensors, stream: Stream) -> Metadata:
    """Read the description of the canonical tensors that a described file has."""
    where, texts = str(container.path), container.metadata
    if DESCRIPTION in texts:
        return Metadata.from_json(texts[DESCRIPTION], where)
    key = EXPORT_DESCRIPTIONS[stream]
    if key not in texts:
        raise MetadataError(
            f"{where}: has a {stream} network, but no description of one; it was changed after "
            "its export: export it again"
        )
    metadata = Metadata.from_json(texts[key], where)
    formats = sorted({array.dtype.name for array in tensors.values()})
    last = metadata.history[-1] if metadata.history else None
    if formats == ["float32"] or (last is not None and [last.after] == formats):
        return metadata
    step = HistoryStep(
        operation="dtype",
        base_model=metadata.origin,
        before="float32",
        after=" and ".join(formats),
    )
    return metadata.changed(step)


def check_batch_norm(container: Container) -> None:
    """Refuse an ONNX model whose BatchNorm is folded, and name what to use instead."""
    if container.format != "onnx":
        return
    operators = {node.operator for node in read_graph(container.path).nodes}
    if "Conv" not in operators or "BatchNormalization" in operators:
        return
    source = "the checkpoint that it was exported from"
    for key in EXPORT_DESCRIPTIONS.values():
        if text := container.metadata.get(key):
            metadata = Metadata.from_json(text, str(container.path))
            name = metadata.origin or f"sha256 {metadata.source.sha256}"
            source += f" ({metadata.stream}, {name})"
    raise MappingError(
        f"{container.path}: is an ONNX model whose BatchNorm is folded into the convolutions, so "
        f"it has no weights of a checkpoint; use {source}, or export that with i3dzoo export "
        "--keep-bn"
    )
