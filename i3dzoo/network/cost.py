"""What a forward pass costs: parameters, multiply-adds, shapes and memory, from shapes alone.

PyTorch is not imported. Source: the architecture, see `i3dzoo.network.architecture`.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

from i3dzoo.errors import ShapeError
from i3dzoo.limits import MAX_CLIP_FRAMES, MAX_EDGE
from i3dzoo.network.architecture import (
    DEEPMIND,
    ENDPOINTS,
    FEATURES,
    POOLED,
    POOLS,
    STEM,
    Unit,
    Variant,
    block_units,
    canonical_shapes,
    output_size,
    pad_axis,
)

Size = tuple[int, int, int]
"""Frames, height and width in pixels."""

_FLOAT32: Final = 4
_MIN_EDGE: Final = 32  # leaves a position at the last endpoint without SAME padding


@dataclass(frozen=True)
class Cost:
    """The cost of one clip.

    Attributes:
        size: Frames, height and width of the clip.
        parameters: Weights and biases that training changes, with the head; the running mean and
            variance of BatchNorm are not among them.
        head_parameters: Those of the head.
        multiply_adds: Of the convolutions, with the head. BatchNorm, ReLU and pooling are not
            counted, as in most published numbers.
        endpoints: Shape [channels, T, H, W] of each endpoint, then [1024] of `pooled`, and
            [steps, classes] of `logits` if there is a head.
        weight_bytes: All tensors of the network in float32.
        activation_bytes: The most that the tensors of a forward pass take at once in float32, with
            the clip. Buffers inside of a convolution come on top of it.
    """

    size: Size
    parameters: int
    head_parameters: int
    multiply_adds: int
    endpoints: dict[str, tuple[int, ...]]
    weight_bytes: int
    activation_bytes: int

    @property
    def flop(self) -> int:
        """Floating-point operations: two for a multiply-add."""
        return 2 * self.multiply_adds

    def to_dict(self) -> dict[str, Any]:
        """Return the document of `i3dzoo info --json`."""
        return {
            "clip": list(self.size),
            "parameters": self.parameters,
            "head_parameters": self.head_parameters,
            "multiply_adds": self.multiply_adds,
            "flop": self.flop,
            "endpoints": {name: list(shape) for name, shape in self.endpoints.items()},
            "weight_bytes": self.weight_bytes,
            "activation_bytes": self.activation_bytes,
        }


def cost(
    size: Size, num_classes: int = 400, in_channels: int = 3, variant: Variant = DEEPMIND
) -> Cost:
    """Return the cost of a forward pass on one clip.

    Examples:
        >>> from i3dzoo.network.cost import cost
        >>> round(cost((64, 224, 224)).flop / 1e9, 1)
        222.3

    Args:
        size: Frames, height and width of the clip.
        num_classes: Number of classes; 0 is a network without a head.
        in_channels: 3 for RGB, 2 for optical flow.
        variant: Padding and pooling.

    Raises:
        ShapeError: The clip is too short, too small or too large.
    """
    _check(size, variant)
    shapes = canonical_shapes(num_classes, in_channels)
    if not num_classes:
        shapes = dict(list(shapes.items())[:-2])
    head = num_classes * (FEATURES + 1)
    trained = (math.prod(shape) for name, shape in shapes.items() if ".running_" not in name)
    walk = _Walk(size, in_channels, variant)
    last = walk.endpoints[ENDPOINTS[-1]]
    steps = last[1] - (variant.pooling == "window")
    endpoints = {**walk.endpoints, POOLED: (FEATURES,)}
    if num_classes:
        endpoints["logits"] = (steps, num_classes)
    return Cost(
        size,
        sum(trained),
        head,
        walk.multiply_adds + num_classes * FEATURES * steps,
        endpoints,
        _FLOAT32 * sum(map(math.prod, shapes.values())),
        _FLOAT32 * walk.peak,
    )


def _check(size: Size, variant: Variant) -> None:
    frames, *edges = size
    if not variant.min_frames <= frames <= MAX_CLIP_FRAMES:
        raise ShapeError(
            f"a clip of {frames} frames; expected {variant.min_frames} to {MAX_CLIP_FRAMES}"
        )
    smallest = 1 if variant.padding == "same" else _MIN_EDGE
    if not all(smallest <= edge <= MAX_EDGE for edge in edges):
        raise ShapeError(
            f"frames of {edges[0]}x{edges[1]} pixels; expected edges of {smallest} to {MAX_EDGE}"
        )


class _Walk:
    """Goes through the network as `i3dzoo.network.i3d.I3D.endpoints` does, with sizes only.

    Attributes:
        endpoints: Shape of each endpoint.
        multiply_adds: Of all convolutions.
        peak: The most numbers that are alive at once, with the clip.
    """

    def __init__(self, size: Size, in_channels: int, variant: Variant) -> None:
        self.endpoints: dict[str, tuple[int, ...]] = {}
        self.multiply_adds = self.peak = 0
        self._padding = variant.padding
        self._clip = in_channels * math.prod(size)
        channels, axes = in_channels, size
        stem = {unit.name: unit for unit in STEM}
        for name in ENDPOINTS:
            before = channels * math.prod(axes)
            if name in POOLS:
                axes = self._sizes(axes, *POOLS[name], pool=True)
                self._live(before, channels * math.prod(axes))
            elif name in stem:
                unit, stride = stem[name], 2 if name == STEM[0].name else 1
                padded = self._padded(axes, unit, channels) if stride == 2 else 0
                axes = self._sizes(axes, (unit.kernel,) * 3, (stride,) * 3, pool=False)
                after = self._convolve(unit, channels, axes)
                # the output of the convolution and that of BatchNorm are alive at the same time
                self._live(before if stride == 1 else 0, max(padded + after, 2 * after))
                channels = unit.out_channels
            else:
                channels = self._mix(name, channels, axes)
            self.endpoints[name] = (channels, *axes)

    def _mix(self, block: str, channels: int, axes: Size) -> int:
        """Count an Inception block, whose branches are computed one after another."""
        positions = math.prod(axes)
        before = 2 * channels * positions  # the input, and the pooled input
        done = 0
        for unit in block_units(block):
            self._convolve(unit, unit.in_channels, axes)
            second = "0b_3x3" in unit.name
            within = unit.in_channels if second else 0
            self._live(before, (done + within + 2 * unit.out_channels) * positions)
            if second or "Branch_0" in unit.name or "Branch_3" in unit.name:
                done += unit.out_channels
        self._live(before, 2 * done * positions)  # the branches, and their concatenation
        return done

    def _convolve(self, unit: Unit, in_channels: int, axes: Size) -> int:
        """Count a convolution, and return the numbers of its output."""
        outputs = unit.out_channels * math.prod(axes)
        self.multiply_adds += outputs * in_channels * unit.kernel**3
        return outputs

    def _padded(self, axes: Size, unit: Unit, channels: int) -> int:
        pads = (sum(pad_axis(self._padding, n, unit.kernel, 2, pool=False)) for n in axes)
        return channels * math.prod(n + pad for n, pad in zip(axes, pads, strict=True))

    def _sizes(
        self, axes: Size, kernel: tuple[int, ...], stride: tuple[int, ...], *, pool: bool
    ) -> Size:
        frames, height, width = (
            output_size(self._padding, *axis, pool=pool)
            for axis in zip(axes, kernel, stride, strict=True)
        )
        return frames, height, width

    def _live(self, *numbers: int) -> None:
        self.peak = max(self.peak, self._clip + sum(numbers))
