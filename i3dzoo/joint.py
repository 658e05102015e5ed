"""Both networks of a two-stream model in one file: TAO's joint checkpoints, DeepMind's two scopes.

TAO's joint model puts two linear layers behind its networks, with a ReLU between them, that make
one set of logits of both (nvidia_tao_pytorch/cv/action_recognition/model/ar_model.py, JointModel).
A file that is joined here gets layers that add the logits, as DeepMind's evaluate_sample.py does:
x is relu(x) - relu(-x), so 2 N hidden units do it for N classes, and exactly.
"""

import dataclasses
from pathlib import Path

import numpy as np

from i3dzoo import convert, formats, tables
from i3dzoo._files import check_output
from i3dzoo.architecture import HEAD
from i3dzoo.arrays import Array
from i3dzoo.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.convert import Conversion, Step
from i3dzoo.errors import MappingError
from i3dzoo.metadata import Stream
from i3dzoo.tables import Joint, Table

__all__ = ["join", "read_networks", "summing_layers", "write_joint"]

_STREAMS: tuple[Stream, ...] = ("rgb", "flow")


def summing_layers(classes: int) -> tuple[Array, Array, Array, Array]:
    """Return weight and bias of two linear layers that add two vectors of logits through a ReLU.

    Args:
        classes: N, of each network.

    Returns:
        float32 [2 N, 2 N], [2 N], [N, 2 N] and [N]; the first takes RGB's logits and then flow's.
    """
    one = np.eye(classes, dtype="f4")
    positive = np.concatenate([one, one], axis=1)
    first = np.concatenate([positive, -positive])
    second = np.concatenate([one, -one], axis=1)
    return first, np.zeros(2 * classes, "f4"), second, np.zeros(classes, "f4")


def join(where: str, rgb: Checkpoint, flow: Checkpoint, table: Table) -> Conversion:
    """Convert the networks of two streams to one file's tensors.

    Args:
        where: The file, for messages.
        rgb: One network.
        flow: The other.
        table: A layout with a place for two networks.

    Returns:
        Tensors of both and, where the layout has them, of the layers that add their logits. The
        steps begin with the names in the files that the networks were read from.

    Raises:
        MappingError: The layout has one network a file, or the two are not of two streams, or
            their logits cannot be added.
    """
    if table.joint is None:
        able = ", ".join(name for name in tables.names() if tables.table(name).joint)
        raise MappingError(
            f"{where}: the layout {table.name} has no place for a second network; use {able}"
        )
    found = (rgb.metadata.stream, flow.metadata.stream)
    if found != _STREAMS:
        raise MappingError(
            f"{where}: the networks are of {found[0]} and {found[1]}; expected rgb and flow"
        )
    tensors: dict[str, Array] = {}
    steps: list[Step] = []
    ignored: list[Step] = []
    alone = dataclasses.replace(table, stream_prefix=table.joint.prefix)
    for checkpoint in (rgb, flow):
        written = convert.from_canonical(where, checkpoint.tensors, alone)
        tensors |= written.tensors
        read = checkpoint.conversion
        steps += convert.compose(read, written) if read else written.steps
        ignored += (*(read.ignored if read else ()), *written.ignored)
    for name, array in _sum(where, rgb, flow, table.joint).items():
        tensors[name] = array
        steps.append(Step("", name, array.shape, "adds the logits of the two networks"))
    return Conversion(table.name, tensors, tuple(steps), tuple(ignored))


def read_networks(path: str | Path) -> tuple[Checkpoint, ...]:
    """Read every network of a file: the one that most have, or both of a joint checkpoint.

    Raises:
        I3DZooError: As of `i3dzoo.read_checkpoint`.
    """
    container = formats.read(Path(path))
    table = convert.detect(str(path), container.tensors, tables.likely(container.format))
    held = convert.networks(container.tensors, table)
    if set(held.values()) == set(_STREAMS) and len(held) == len(_STREAMS):
        return tuple(read_checkpoint(path, stream=stream) for stream in _STREAMS)
    return (read_checkpoint(path),)


def write_joint(
    path: str | Path,
    rgb: Checkpoint,
    flow: Checkpoint,
    layout: str = "tao",
    force: bool = False,
) -> Path:
    """Write the networks of two streams to one file, whole or not at all.

    Args:
        path: The file; of a TensorFlow checkpoint, its index or prefix.
        rgb: One network.
        flow: The other.
        layout: Name of a layout that has a place for both, or the path of such a table.
        force: Replace files that exist.

    Returns:
        The file that was written; of a TensorFlow checkpoint, its index.

    Raises:
        OutputError: The file exists and `force` is not set, or it cannot be written.
        MappingError: See `join`.
    """
    path = Path(path)
    table = tables.table(layout)
    files = formats.outputs(table.format, path)
    for file in files:
        check_output(file, force)
    formats.write(table.format, path, join(str(path), rgb, flow, table).tensors, {})
    return files[0]


def _sum(where: str, rgb: Checkpoint, flow: Checkpoint, joint: Joint) -> dict[str, Array]:
    """Return the layers that add the logits, by their names; none where the layout has none."""
    if joint.sum is None:
        return {}
    counts = (rgb.metadata.num_classes, flow.metadata.num_classes)
    if 0 in counts or counts[0] != counts[1]:
        raise MappingError(
            f"{where}: the heads have {counts[0]} and {counts[1]} classes, so their logits cannot "
            "be added; give both the same with --labels or --num-classes"
        )
    names = (rgb.metadata.labels, flow.metadata.labels)
    if all(names) and names[0] != names[1]:
        raise MappingError(
            f"{where}: the classes of the two networks have different names, so their logits "
            "cannot be added; give both the same with --labels"
        )
    dtype = rgb.tensors[f"{HEAD}.conv.weight"].dtype
    layers = iter(summing_layers(counts[0]))
    return {
        f"{name}.{part}": next(layers).astype(dtype)
        for name in joint.sum
        for part in ("weight", "bias")
    }
