"""Write the networks of both streams to one file: TAO's joint checkpoints, DeepMind's two scopes.

TAO's joint model has two linear layers with a ReLU between them after its networks, which combine
their logits (nvidia_tao_pytorch/cv/action_recognition/model/ar_model.py, JointModel). i3dzoo writes
weights for these layers that add the logits, as DeepMind's evaluate_sample.py does: x is
relu(x) - relu(-x), so 2 N hidden units do it exactly for N classes.
"""

from pathlib import Path

import numpy as np

from i3dzoo import formats
from i3dzoo.arrays import Array
from i3dzoo.checkpoints import convert, converter
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.convert import Conversion, MappedTensor
from i3dzoo.checkpoints.converter import Joint, Table
from i3dzoo.checkpoints.suffixes import table_for
from i3dzoo.errors import MappingError
from i3dzoo.files.exclusive import exclusive_files
from i3dzoo.network.architecture import HEAD_WEIGHT


def summing_layers(classes: int) -> tuple[Array, Array, Array, Array]:
    """Return weights and biases of two linear layers that add two vectors of N logits.

    They are float32 [2 N, 2 N], [2 N], [N, 2 N] and [N]. The input of the first layer is the logits
    of RGB followed by those of flow; a ReLU follows it.
    """
    identity = np.eye(classes, dtype="f4")
    positive = np.concatenate([identity, identity], axis=1)
    first = np.concatenate([positive, -positive])
    second = np.concatenate([identity, -identity], axis=1)
    return first, np.zeros(2 * classes, "f4"), second, np.zeros(classes, "f4")


def join(where: str, rgb: Checkpoint, flow: Checkpoint, table: Table) -> Conversion:
    """Convert the networks of two streams to the tensors of one file.

    They include the layers that add the logits, if the layout has them. The mapping starts at the
    names in the files that the networks were read from.
    """
    if table.joint is None:
        usable = [name for name in converter.names() if converter.table(name).joint]
        raise MappingError(
            f"{where}: the layout {table.name} cannot hold two networks; use {', '.join(usable)}"
        )
    streams = (rgb.metadata.stream, flow.metadata.stream)
    if streams != ("rgb", "flow"):
        raise MappingError(
            f"{where}: expected an rgb and a flow network, found {streams[0]} and {streams[1]}"
        )
    tensors: dict[str, Array] = {}
    mapping: list[MappedTensor] = []
    ignored: list[MappedTensor] = []
    single = table.replace(stream_prefix=table.joint.prefix)
    for checkpoint in (rgb, flow):
        written = convert.from_canonical(where, checkpoint.tensors, single)
        tensors |= written.tensors
        read = checkpoint.conversion
        mapping += convert.compose(read, written) if read else written.mapping
        ignored += (*(read.ignored if read else ()), *written.ignored)
    for name, array in _layers(where, rgb, flow, table.joint).items():
        tensors[name] = array
        mapping.append(MappedTensor("", name, array.shape, "adds the logits of the two networks"))
    return Conversion(table.name, tensors, tuple(mapping), tuple(ignored))


def write_joint(
    path: str | Path,
    rgb: Checkpoint,
    flow: Checkpoint,
    layout: str = "tao",
    force: bool = False,
) -> Path:
    """Write the networks of two streams to one file, whole or not at all.

    Examples:
        >>> import i3dzoo
        >>> rgb = i3dzoo.open_checkpoint("mine.safetensors")
        >>> flow = i3dzoo.change_stream(rgb, in_channels=2)
        >>> i3dzoo.write_joint("both.ckpt", rgb, flow, "tao")
        PosixPath('both.ckpt')

    Args:
        path: The file; for a TensorFlow checkpoint, its index or prefix.
        rgb: The RGB network.
        flow: The flow network.
        layout: Name of a layout that can hold two networks, or path of a custom converter table.
        force: Whether to replace existing files.

    Returns:
        The file that was written; for a TensorFlow checkpoint, its index.

    Raises:
        OptionError: The suffix of `path` contradicts the layout.
        OutputError: The file exists and `force` is not set, or it cannot be written.
        MappingError: The layout holds one network a file, the networks are not RGB and flow, or
            their logits cannot be added.
    """
    path = Path(path)
    table = table_for(path, layout)
    outputs = formats.outputs(table.format, path)
    with exclusive_files(outputs, force):
        formats.write(table.format, path, join(str(path), rgb, flow, table).tensors, {})
    return outputs[0]


def _layers(where: str, rgb: Checkpoint, flow: Checkpoint, joint: Joint) -> dict[str, Array]:
    """Return the layers that add the logits, if the layout has them."""
    if joint.sum is None:
        return {}
    counts = (rgb.metadata.num_classes, flow.metadata.num_classes)
    if 0 in counts or counts[0] != counts[1]:
        raise MappingError(
            f"{where}: the heads have {counts[0]} and {counts[1]} classes, so their logits cannot "
            "be added; give both the same classes with --labels or --num-classes"
        )
    names = (rgb.metadata.labels, flow.metadata.labels)
    if all(names) and names[0] != names[1]:
        raise MappingError(
            f"{where}: the classes of the two networks have different names, so their logits "
            "cannot be added; give both the same classes with --labels"
        )
    dtype = rgb.tensors[HEAD_WEIGHT].dtype
    layers = iter(summing_layers(counts[0]))
    return {
        f"{name}.{part}": next(layers).astype(dtype)
        for name in joint.sum
        for part in ("weight", "bias")
    }
