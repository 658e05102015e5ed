"""Write ONNX models from canonical tensors with onnx's own helpers; PyTorch is not needed.

Two streams are fused by adding their logits, as DeepMind's evaluate_sample.py does and the paper
means by averaging predictions. NVIDIA TAO's joint model instead learns two more layers on the
logits of both streams (its model/ar_model.py, JointModel). No I3D checkpoint has those weights, so
only TAO's names are used.
"""

from collections.abc import Sequence
from dataclasses import replace

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.metadata import Metadata, Stream
from i3dzoo.errors import DependencyError, FormatError, MetadataError, OptionError
from i3dzoo.formats.onnx_file import Node
from i3dzoo.network.architecture import FEATURES
from i3dzoo.onnx.description import describe
from i3dzoo.onnx.operators import check_nodes
from i3dzoo.onnx.options import AXES, INPUT, OUTPUT, ExportOptions

try:
    import onnx
except ImportError as error:
    raise DependencyError("ONNX models need onnx: pip install 'i3dzoo[onnx]'") from error

from i3dzoo.onnx.graph import FLOAT, GraphBuilder
from i3dzoo.onnx.network import StreamBuilder
from i3dzoo.onnx.preprocessing import add_clip


def build_model(checkpoints: Sequence[Checkpoint], options: ExportOptions) -> "onnx.ModelProto":
    """Write a network, or RGB and flow fused, as an ONNX model that passes `onnx.checker`.

    Its metadata holds labels, input and origin; see `describe`.
    """
    streams = _by_stream(checkpoints)
    graph = GraphBuilder(options)
    logits: list[str] = []
    joint = len(streams) > 1
    classes = checkpoints[0].metadata.num_classes
    if joint and classes and options.steps:
        raise OptionError(
            "the steps of two streams may differ in time, so they cannot be fused; leave --steps "
            "or --flow out"
        )
    for stream, checkpoint in streams.items():
        prefix = f"{INPUT[stream].removeprefix('input_')}." if joint else ""
        size = options.size(checkpoint.metadata.input)
        x = add_clip(graph, checkpoint.metadata, prefix, size)
        builder = StreamBuilder(graph, checkpoint.tensors, checkpoint.metadata.variant, prefix)
        pooled = builder.trunk(x, size)
        if options.features or not classes:
            name = f"features{'_' + prefix[:-1] if joint else ''}"
            graph.add_output(_mean(graph, pooled, name), name, FEATURES)
        if classes:
            logits.append(builder.head(pooled))
    if options.steps and classes:
        steps = graph.reduce("ReduceMean", logits[0], (3, 4), "fc_steps.channels_first")
        swapped = graph.node("Transpose", [steps], "fc_steps.swapped", perm=[0, 2, 1])
        graph.add_output(swapped, "fc_steps", "steps", classes)
    if classes:
        means = [_mean(graph, name, name if joint else OUTPUT) for name in logits]
        total = graph.node("Add", means, "fc_sum") if joint else means[0]
        graph.add_output(total, OUTPUT, classes)
    names = " + ".join(c.metadata.zoo or c.metadata.stream for c in checkpoints)
    inputs = "; ".join(str(c.metadata.input) for c in checkpoints)
    scores = checkpoints[0].metadata.scores
    kind = "uint8 frames, preprocessed by the graph" if options.pixels else "float clips"
    text = f"I3D {names}: {kind}; {inputs}. Output: logits averaged over time, before {scores}."
    model = graph.to_model("inception_i3d", text)
    onnx.helper.set_model_props(model, describe(checkpoints, options))
    check_model(model, options, joint)
    return model


def any_size(checkpoint: Checkpoint) -> ExportOptions:
    """Return the options of a model for clips of any size, with every output."""
    steps = checkpoint.metadata.num_classes > 0
    return ExportOptions(dynamic=AXES, steps=steps, features=True)


def build_endpoint(
    checkpoint: Checkpoint, endpoint: str
) -> tuple["onnx.ModelProto", dict[str, str]]:
    """Write the network up to an endpoint, for clips of any size; return it and its metadata.

    The output `features` is the mean of the activations over time and positions.
    """
    metadata = checkpoint.metadata.replace(num_classes=0, labels=None, multi_label=False)
    trunk = replace(checkpoint, metadata=metadata)
    options = any_size(trunk)
    size = options.size(metadata.input)
    graph = GraphBuilder(options)
    x = add_clip(graph, metadata, "", size)
    x, _ = StreamBuilder(graph, trunk.tensors, metadata.variant).activations(x, size, endpoint)
    graph.add_output(_mean(graph, x, "features"), "features", "channels")
    model = graph.to_model("inception_i3d", f"I3D up to {endpoint}")
    texts = describe([trunk], options)
    onnx.helper.set_model_props(model, texts)
    check_model(model, options)
    return model, texts


def _mean(graph: GraphBuilder, x: str, name: str) -> str:
    """Average over time and space."""
    return graph.reduce("ReduceMean", x, (2, 3, 4), f"{name}.mean")


def max_nodes(options: ExportOptions, joint: bool) -> int:
    """Return the largest number of nodes that a clean graph has.

    One stream has 200. Kept BatchNorm adds one for each of 57 units. Operators with fast GPU
    kernels add 9 for the first convolution, 4 for each of 11 pools and 2 for each of 2.
    """
    return (200 + 57 * options.keep_bn + 57 * options.space_to_depth) * (2 if joint else 1)


def check_model(model: "onnx.ModelProto", options: ExportOptions, joint: bool = False) -> None:
    """Check a model with all checks of `onnx.checker`, its operators and their number."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).partition("\n")[0]
        raise FormatError(f"the ONNX model is invalid: {reason}") from error
    nodes = (Node(n.op_type, tuple(n.input), tuple(n.output)) for n in model.graph.node)
    check_nodes("the ONNX model", nodes, frozenset(c.name for c in model.graph.initializer))
    count, limit = len(model.graph.node), max_nodes(options, joint)
    if count > limit:
        raise FormatError(f"the ONNX graph: expected at most {limit} nodes, found {count}")


def to_float32(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return a copy of a bfloat16 model that computes with the same weights in float32."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.data_type == onnx.TensorProto.BFLOAT16:
            values = onnx.numpy_helper.to_array(tensor).astype("f4")
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for node in copy.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == onnx.TensorProto.BFLOAT16:
                attribute.i = FLOAT
    return copy


def _kind(metadata: Metadata) -> str:
    return "multi-label" if metadata.multi_label else "single-label"


def _by_stream(checkpoints: Sequence[Checkpoint]) -> dict[Stream, Checkpoint]:
    streams = {checkpoint.metadata.stream: checkpoint for checkpoint in checkpoints}
    if len(streams) != len(checkpoints) or not checkpoints:
        names = ", ".join(checkpoint.metadata.stream for checkpoint in checkpoints)
        raise MetadataError(
            f"the checkpoints: expected one, or one of rgb and one of flow, found {names}"
        )
    first, last = checkpoints[0].metadata, checkpoints[-1].metadata
    if first.multi_label != last.multi_label:
        raise MetadataError(
            f"the {last.stream} checkpoint: expected a {_kind(first)} head as the {first.stream} "
            f"checkpoint has, found a {_kind(last)} one; describe one with i3dzoo convert "
            f"--{_kind(first)}"
        )
    if (first.num_classes, first.labels) != (last.num_classes, last.labels):
        raise MetadataError(
            f"the {last.stream} checkpoint: expected the {first.num_classes} classes of the "
            f"{first.stream} checkpoint, found {last.num_classes}, or other labels; two streams "
            "are fused class by class, so train both on the same label set"
        )
    return {stream: streams[stream] for stream in ("rgb", "flow") if stream in streams}
