"""The same network by operators that GPUs have fast kernels for; sizes must be fixed.

TensorRT computes a convolution of 3 channels and pools of three dimensions by kernels of last
resort. Of a batch of 8 on an H100 they took 10 of 16 ms (benchmarks/results/h100.md).
"""

import itertools
from collections.abc import Sequence

import numpy as np

from i3dzoo.arrays import Array
from i3dzoo.export.graph import Graph

__all__ = ["CELLS", "cell_weight", "cells", "split_pool"]

CELLS = {"kernel_shape": [4] * 3, "strides": [1] * 3, "pads": [1] * 3 + [2] * 3}
"""What a 7x7x7 convolution with stride 2 and SAME padding is on cells of an even size."""


def cells(graph: Graph, x: str, size: Sequence[int], name: str) -> str:
    """Put neighbours into channels: [B, C, T, H, W], all even, to [B, 8C, T/2, H/2, W/2]."""
    parts = []
    for corner in itertools.product((0, 1), repeat=3):
        starts, ends = graph.integers(*corner), graph.integers(*size)
        inputs = [x, starts, ends, graph.integers(2, 3, 4), graph.integers(2, 2, 2)]
        parts.append(graph.node("Slice", inputs, f"{name}.{''.join(map(str, corner))}"))
    return graph.node("Concat", parts, name, axis=1)


def cell_weight(weight: Array) -> Array:
    """Rearrange [O, C, 7, 7, 7] for `cells`, with zeros for an eighth tap: [O, 8C, 4, 4, 4]."""
    out, channels = weight.shape[:2]
    even = np.pad(weight, [(0, 0), (0, 0), *[(0, 1)] * 3])
    parts = even.reshape(out, channels, *(4, 2) * 3).transpose(0, 3, 5, 7, 1, 2, 4, 6)
    return parts.reshape(out, 8 * channels, 4, 4, 4)


def split_pool(
    graph: Graph,
    x: str,
    name: str,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[int],
) -> str:
    """Max-pool each frame, then over time, both as pools of two dimensions.

    Args:
        graph: What the nodes are added to.
        x: [B, C, T, H, W].
        name: Of the result.
        size: T, H and W.
        kernel: Along T, H and W.
        stride: Along T, H and W.
        pads: Before T, H and W, then after.
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
        line = {
            "kernel_shape": [kernel[0], 1],
            "strides": [stride[0], 1],
            "pads": [pads[0], 0, pads[3], 0],
        }
        x = graph.node("MaxPool", [x], f"{name}.time", **line)
    return graph.node("Reshape", [x, graph.integers(0, -1, time, height, width)], name)
