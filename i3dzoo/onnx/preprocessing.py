"""Add the input of a network to its graph, and the preprocessing of uint8 frames."""

import numpy as np
from onnx import TensorProto

from i3dzoo.checkpoints.metadata import Input, Metadata
from i3dzoo.errors import OptionError
from i3dzoo.onnx.graph import FLOAT, GraphBuilder
from i3dzoo.onnx.options import AXES, INPUT, PIXELS, Size


def add_clip(graph: GraphBuilder, metadata: Metadata, prefix: str, size: Size) -> str:
    """Declare the input of a stream; return the clip [B, C, T, H, W], in the type of computation.

    `prefix` begins every name, and `size` is T, H and W of the clip, None where any is taken.
    """
    stream, channels, pixels = metadata.stream, len(metadata.input.mean), graph.options.pixels
    axes: list[int | str] = [
        f"{prefix}{axis}" if n is None else n for axis, n in zip(AXES, size, strict=True)
    ]
    if pixels is None:
        x = graph.add_input(INPUT[stream], FLOAT, ["batch", channels, *axes])
    else:
        shape = ["batch", axes[0], *pixels, channels]
        frames = graph.add_input(PIXELS[stream], TensorProto.UINT8, shape)
        x = _preprocess(graph, frames, metadata.input, pixels, prefix, size[0])
    return graph.to_element(x, f"{prefix}input_typed")


def _preprocess(
    graph: GraphBuilder,
    x: str,
    spec: Input,
    pixels: tuple[int, int],
    prefix: str,
    frames: int | None,
) -> str:
    """Preprocess frames as `i3dzoo.video.preprocess` does; return [B, C, T, crop, crop]."""
    height, width = pixels
    channels, edge = len(spec.mean), spec.crop

    def name(step: str) -> str:
        return f"{prefix}pixels.{step}"

    shape = graph.node("Shape", [x], name("shape"))
    flat = graph.integers(-1, height, width, channels)
    x = graph.node("Reshape", [graph.to_float(x, name("float")), flat], name("flat"))
    x = graph.node("Transpose", [x], name("planes"), perm=[0, 3, 1, 2])
    if spec.channels == "bgr":
        # from the last channel to before the first, by steps of -1
        ends = [graph.integers(number) for number in (2, -4, 1, -1)]
        x = graph.node("Slice", [x, *ends], name("bgr"))
    if spec.resize_mode == "squash" or spec.resize is not None:
        from i3dzoo.video.transforms import frame_size  # imports PyTorch

        height, width = frame_size(height, width, spec)
    if (height, width) != pixels:
        planes = graph.node("Shape", [x], name("planes_shape"))
        ends = [graph.integers(0), graph.integers(2)]
        count = graph.node("Slice", [planes, *ends], name("planes_count"))
        size = graph.node("Concat", [count, graph.integers(height, width)], name("size"), axis=0)
        attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        x = graph.node("Resize", [x, "", "", size], name("resize"), **attributes)
    if min(height, width) < edge:
        raise OptionError(
            f"--pixels {pixels[1]}x{pixels[0]}: expected frames that are at least as large as the "
            f"crop of {edge} after resizing, found {width}x{height}; pass another size"
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
