"""ONNX models, written from canonical tensors with onnx's own helpers; PyTorch is not needed.

Two streams are fused by adding their logits, as DeepMind's evaluate_sample.py does and the paper
means by averaging predictions. NVIDIA TAO's joint model instead learns two further layers on the
logits of both (its model/ar_model.py, JointModel); those weights exist in no I3D checkpoint, so
only its names are taken over.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from i3dzoo import __version__
from i3dzoo.architecture import FEATURES
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.errors import DependencyError, FormatError, MetadataError
from i3dzoo.export.describe import describe
from i3dzoo.export.options import INPUT, OUTPUT, PIXELS, ExportOptions, Size
from i3dzoo.export.rounding import Rounding
from i3dzoo.metadata import Input, Metadata, Stream

try:
    import onnx
    from onnx import TensorProto
except ImportError as error:
    raise DependencyError("ONNX models need onnx: pip install 'i3dzoo[onnx]'") from error

from i3dzoo.export.graph import ELEMENT, Graph
from i3dzoo.export.network import Network

__all__ = [
    "build",
    "check",
    "describe",
    "input_shapes",
    "node_limit",
    "widened",
]


def build(
    checkpoints: Sequence[Checkpoint],
    options: ExportOptions,
    rounding: Mapping[str, Rounding] | None = None,
) -> "onnx.ModelProto":
    """Write a network, or RGB and flow fused, as an ONNX model.

    Args:
        checkpoints: One checkpoint, or one of each stream with the same classes.
        options: What the model takes and gives.
        rounding: For int8, from `i3dzoo.export.calibrate`.

    Returns:
        A model that `onnx.checker` finds sound, with labels, input and origin in its metadata.

    Raises:
        MetadataError: The checkpoints do not go together, or the options do not fit them.
        FormatError: The model is not sound, or has more nodes than it should.
    """
    streams = _by_stream(checkpoints)
    if (options.precision == "int8") != (rounding is not None) or (rounding and len(streams) > 1):
        raise MetadataError("int8 takes one stream, calibrated with real clips")
    graph = Graph(options.opset)
    fused: list[str] = []
    joint = len(streams) > 1
    classes = checkpoints[0].metadata.num_classes
    for stream, checkpoint in streams.items():
        prefix = f"{INPUT[stream].removeprefix('input_')}." if joint else ""
        size = options.size(checkpoint.metadata.input)
        x = _clip(graph, checkpoint.metadata, options, prefix, size)
        network = Network(graph, checkpoint.tensors, options, prefix, rounding)
        pooled = network.trunk(x, size)
        if options.features or not classes:
            name = f"features{'_' + prefix[:-1] if joint else ''}"
            _give_mean(graph, pooled, name, FEATURES, options)
        if classes:
            fused.append(network.head(pooled))
    if classes:
        _classify(graph, fused, classes, options)
    model = graph.model("inception_i3d", _summary(checkpoints, options), __version__)
    onnx.helper.set_model_props(model, describe(checkpoints, options))
    check(model, options, joint)
    return model


def node_limit(options: ExportOptions, joint: bool) -> int:
    """Return how many nodes a clean graph has at most.

    200 for one stream; kept BatchNorm adds one for each of 57 units, int8 two for each of 55 and
    two for each tensor that they are given; splitting adds 9 for the first convolution, 4 for each
    of 11 pools and 2 for each of 2, and with int8 one more for 12 of them.
    """
    int8 = options.precision == "int8"
    more = 57 if options.keep_bn else 2 * (55 + 37) if int8 else 0
    more += (57 + 12 * int8) * options.split
    return (200 + more) * (2 if joint else 1)


def check(model: "onnx.ModelProto", options: ExportOptions, joint: bool = False) -> None:
    """Check a model with all that `onnx.checker` has, and that its graph is clean.

    Raises:
        FormatError: It is not sound, or has more nodes than `node_limit`.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).partition("\n")[0]
        raise FormatError(f"the ONNX model is not sound: {reason}") from error
    count, limit = len(model.graph.node), node_limit(options, joint)
    if count > limit:
        raise FormatError(f"the ONNX graph has {count} nodes; expected at most {limit}")


def widened(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return a bfloat16 model with the same weights computed in float32, which anything can run."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            values = onnx.numpy_helper.to_array(tensor).astype("f4")
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for node in wide.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
    return wide


def input_shapes(
    checkpoints: Sequence[Checkpoint], options: ExportOptions, batch: int, size: Size
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input for a batch and size, by its name.

    Args:
        checkpoints: What was exported.
        options: How it was exported.
        batch: Clips at once.
        size: Frames, height and width where they are dynamic; None takes the model's own.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for checkpoint in checkpoints:
        metadata = checkpoint.metadata
        own = (metadata.input.frames, metadata.input.crop, metadata.input.crop)
        fixed = options.size(metadata.input)
        frames, height, width = (
            (asked or usual) if exact is None else exact
            for exact, asked, usual in zip(fixed, size, own, strict=True)
        )
        channels = len(metadata.input.mean)
        if options.pixels:
            name, shape = PIXELS[metadata.stream], (batch, frames, *options.pixels, channels)
        else:
            name, shape = INPUT[metadata.stream], (batch, channels, frames, height, width)
        shapes[name] = shape
    return shapes


def _by_stream(checkpoints: Sequence[Checkpoint]) -> dict[Stream, Checkpoint]:
    streams = {checkpoint.metadata.stream: checkpoint for checkpoint in checkpoints}
    if len(streams) != len(checkpoints) or not checkpoints:
        found = ", ".join(checkpoint.metadata.stream for checkpoint in checkpoints)
        raise MetadataError(f"the checkpoints are {found}; expected one, or one rgb and one flow")
    first, last = checkpoints[0].metadata, checkpoints[-1].metadata
    if (first.num_classes, first.labels) != (last.num_classes, last.labels):
        raise MetadataError(
            f"the {first.stream} checkpoint has {first.num_classes} classes and the {last.stream} "
            f"checkpoint {last.num_classes}, or they are named differently; two streams are fused "
            "class by class, so both must be trained on the same label set"
        )
    return {stream: streams[stream] for stream in ("rgb", "flow") if stream in streams}


def _clip(graph: Graph, metadata: Metadata, options: ExportOptions, prefix: str, size: Size) -> str:
    """Declare an input and return the clip, [B, C, T, H, W] in the type of computation."""
    stream, channels = metadata.stream, len(metadata.input.mean)
    axes: list[int | str] = [
        f"{prefix}{axis}" if n is None else n
        for axis, n in zip(("frames", "height", "width"), size, strict=True)
    ]
    if options.pixels is None:
        x = graph.take(INPUT[stream], TensorProto.FLOAT, ["batch", channels, *axes])
    else:
        shape = ["batch", axes[0], *options.pixels, channels]
        frames = graph.take(PIXELS[stream], TensorProto.UINT8, shape)
        x = _preprocess(graph, frames, metadata.input, options.pixels, prefix, size[0])
    if ELEMENT[options.precision] == TensorProto.FLOAT:
        return x
    return graph.cast(x, ELEMENT[options.precision], f"{prefix}input_typed")


def _preprocess(
    graph: Graph, x: str, spec: Input, pixels: tuple[int, int], prefix: str, frames: int | None
) -> str:
    """Do what `i3dzoo.video.preprocess` does: resize, crop, normalise; [B, C, T, crop, crop]."""
    height, width = pixels
    channels, edge = len(spec.mean), spec.crop

    def name(step: str) -> str:
        return f"{prefix}pixels.{step}"

    shape = graph.node("Shape", [x], name("shape"))
    flat = graph.integers(-1, height, width, channels)
    x = graph.node("Reshape", [graph.cast(x, TensorProto.FLOAT, name("float")), flat], name("flat"))
    x = graph.node("Transpose", [x], name("planes"), perm=[0, 3, 1, 2])
    if spec.resize is not None and min(pixels) != spec.resize:
        from i3dzoo.video import resized_size

        height, width = resized_size(height, width, spec.resize)
        now = graph.node("Shape", [x], name("planes_shape"))
        images = graph.node(
            "Slice", [now, graph.integers(0), graph.integers(2)], name("planes_count")
        )
        size = graph.node("Concat", [images, graph.integers(height, width)], name("size"), axis=0)
        x = graph.node(
            "Resize",
            [x, "", "", size],
            name("resize"),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
    if min(height, width) < edge:
        raise MetadataError(
            f"frames of {pixels[1]}x{pixels[0]} pixels become {width}x{height}, smaller than the "
            f"crop of {edge}; name frames of another size"
        )
    if (height, width) != (edge, edge):
        top, left = (height - edge) // 2, (width - edge) // 2
        begin, end = graph.integers(top, left), graph.integers(top + edge, left + edge)
        x = graph.node("Slice", [x, begin, end, graph.integers(2, 3)], name("crop"))
    std, mean = np.array(spec.std, "f8"), np.array(spec.mean, "f8")
    scale = graph.constant(name("scale"), (1 / (255 * std)).astype("f4").reshape(-1, 1, 1))
    shift = graph.constant(name("shift"), (-mean / std).astype("f4").reshape(-1, 1, 1))
    x = graph.node("Mul", [x, scale], name("scaled"))
    x = graph.node("Add", [x, shift], name("normal"))
    if frames is None:
        lead = graph.node("Slice", [shape, graph.integers(0), graph.integers(2)], name("lead"))
        tail = graph.integers(channels, edge, edge)
        target = graph.node("Concat", [lead, tail], name("target"), axis=0)
    else:
        target = graph.integers(-1, frames, channels, edge, edge)
    x = graph.node("Reshape", [x, target], name("clips"))
    return graph.node("Transpose", [x], name("clip"), perm=[0, 2, 1, 3, 4])


def _classify(graph: Graph, fused: Sequence[str], classes: int, options: ExportOptions) -> None:
    """Add up the streams' logits, and give them averaged over time and, if asked, step by step."""
    if len(fused) == 1:
        if options.steps:
            steps = graph.mean(fused[0], (3, 4), "fc_steps.channels_first")
            _give_steps(graph, steps, classes, options)
        _give_mean(graph, fused[0], OUTPUT, classes, options)
        return
    if options.steps:
        raise MetadataError("the streams of a joint model may have other steps; leave steps out")
    means = [graph.mean(each, (2, 3, 4), f"{each}.mean") for each in fused]
    _give(graph, graph.node("Add", means, "fc_sum"), OUTPUT, ["batch", classes], options)


def _give_mean(graph: Graph, x: str, name: str, channels: int, options: ExportOptions) -> None:
    mean = graph.mean(x, (2, 3, 4), f"{name}.mean")
    _give(graph, mean, name, ["batch", channels], options)


def _give_steps(graph: Graph, x: str, classes: int, options: ExportOptions) -> None:
    swapped = graph.node("Transpose", [x], "fc_steps.swapped", perm=[0, 2, 1])
    _give(graph, swapped, "fc_steps", ["batch", "steps", classes], options)


def _give(
    graph: Graph, x: str, name: str, shape: Sequence[int | str], options: ExportOptions
) -> None:
    """Declare an output in float32, whatever was computed in."""
    if ELEMENT[options.precision] == TensorProto.FLOAT:
        # the last node itself bears the output's name
        graph.nodes[-1].output[0] = name
    else:
        graph.cast(x, TensorProto.FLOAT, name)
    graph.give(name, shape)


def _summary(checkpoints: Sequence[Checkpoint], options: ExportOptions) -> str:
    names = " + ".join(c.metadata.zoo or c.metadata.stream for c in checkpoints)
    inputs = "; ".join(str(c.metadata.input) for c in checkpoints)
    raw = "uint8 frames, preprocessed here" if options.pixels else "float clips"
    return f"I3D {names}: {raw}; {inputs}. Output: logits averaged over time, before softmax."
