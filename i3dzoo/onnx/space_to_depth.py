"""Equal operators that have fast GPU kernels: a space-to-depth stem and separable max pooling.

Sizes must be fixed. TensorRT has slow kernels only for a convolution of 3 channels and for
three-dimensional pooling: they took 10 of 16 ms of a batch of 8 on an H100
(benchmarks/results/h100.md).
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from i3dzoo.arrays import Array
from i3dzoo.onnx.graph import GraphBuilder


def space_to_depth(graph: GraphBuilder, x: str, size: Sequence[int], name: str) -> str:
    """Move 2x2x2 blocks into channels: [B, C, T, H, W] of even size to [B, 8C, T/2, H/2, W/2]."""
    parts = []
    for corner in itertools.product((0, 1), repeat=3):
        starts, ends = graph.integers(*corner), graph.integers(*size)
        inputs = [x, starts, ends, graph.integers(2, 3, 4), graph.integers(2, 2, 2)]
        parts.append(graph.node("Slice", inputs, f"{name}.{''.join(map(str, corner))}"))
    return graph.node("Concat", parts, name, axis=1)


def space_to_depth_stem(
    before: int,
) -> tuple[Callable[[Array], Array], dict[str, list[int]]]:
    """Return how to run the 7x7x7 convolution with stride 2 on a `space_to_depth` input.

    They are a function that rearranges its weight [O, C, 7, 7, 7] to [O, 8C, 4, 4, 4], with zeros,
    and the attributes of the convolution. `before` is the padding before T, H and W, 2 or 3.
    """
    lead = before % 2  # windows begin in the middle of a block if it is odd
    blocks_before = (before + lead) // 2

    def arrange(weight: Array) -> Array:
        out, channels = weight.shape[:2]
        even = np.pad(weight, [(0, 0), (0, 0), *[(lead, 1 - lead)] * 3])
        blocks = even.reshape(out, channels, *(4, 2) * 3).transpose(0, 3, 5, 7, 1, 2, 4, 6)
        return blocks.reshape(out, 8 * channels, 4, 4, 4)

    pads = [blocks_before] * 3 + [3 - blocks_before] * 3
    return arrange, {"kernel_shape": [4] * 3, "strides": [1] * 3, "pads": pads}


def separable_max_pool(
    graph: GraphBuilder,
    x: str,
    name: str,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[int],
) -> str:
    """Max-pool [B, C, T, H, W] by frame, then over time, both as two-dimensional pools.

    `size`, `kernel` and `stride` are along T, H and W; `pads` are before all three, then after.
    """
    time, height, width = (
        (n + before + after - k) // s + 1
        for n, before, after, k, s in zip(size, pads[:3], pads[3:], kernel, stride, strict=True)
    )
    frames = graph.integers(0, -1, *size[1:])
    x = graph.node("Reshape", [x, frames], f"{name}.frames")
    plane = {"kernel_shape": kernel[1:], "strides": stride[1:], "pads": [*pads[1:3], *pads[4:]]}
    x = graph.node("MaxPool", [x], f"{name}.planes", **plane)
    if kernel[0] > 1:
        rows = graph.integers(0, -1, size[0], height * width)
        x = graph.node("Reshape", [x, rows], f"{name}.rows")
        pads = [pads[0], 0, pads[3], 0]
        line = {"kernel_shape": [kernel[0], 1], "strides": [stride[0], 1], "pads": pads}
        x = graph.node("MaxPool", [x], f"{name}.time", **line)
    return graph.node("Reshape", [x, graph.integers(0, -1, time, height, width)], name)
