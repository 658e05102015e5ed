"""The I3D network as data: its units, their shapes, and the canonical names of its tensors.

Source: Carreira and Zisserman, "Quo Vadis, Action Recognition?", arXiv:1705.07750, figure 3, and
the names of DeepMind's kinetics-i3d, with dots for slashes.
"""

from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta

from i3dzoo.records import Record

Padding = Literal["same", "symmetric", "ceil"]

FEATURES: Final = 1024
"""Channels after the last block, which the head classifies."""

MIN_FRAMES: Final = 9
"""The shortest clip: with SAME padding it leaves two steps, a window of the average pool."""

HEAD: Final = "Logits.Conv3d_0c_1x1"
"""The classifier, a 1x1x1 convolution with bias and without BatchNorm."""

HEAD_WEIGHT: Final = f"{HEAD}.conv.weight"
HEAD_BIAS: Final = f"{HEAD}.conv.bias"

STEM_WEIGHT: Final = "Conv3d_1a_7x7.conv.weight"
"""The first convolution; its input channels tell RGB from flow."""


class Variant(Record, frozen=True, kw_only=True):
    """What ports of I3D change in the network although its tensors stay the same.

    The same weights give other outputs in another variant. The defaults are DeepMind's.

    Attributes:
        epsilon: Added to the variance in every BatchNorm. PyTorch's default is 1e-5.
        padding: `same` is TensorFlow's SAME, which depends on the size and adds an odd element at
            the end. `symmetric` adds (kernel - 1) // 2 elements on both sides. `ceil` is that of
            torchvision's GoogLeNet: like `symmetric`, but pools with a stride add nothing before
            and fill up the last window (`ceil_mode`).
        pooling: `window` averages over windows of 2 steps and 7x7 positions before the head and
            over time after it, so that the first and the last step count half. `global` averages
            over all positions.
    """

    epsilon: Annotated[float, Meta(gt=0, le=1)] = 1e-3
    padding: Padding = "same"
    pooling: Literal["window", "global"] = "window"

    def __str__(self) -> str:
        pooling = {"window": "pooling in windows of 2x7x7", "global": "global pooling"}
        padding = {
            "same": "SAME padding",
            "symmetric": "symmetric padding",
            "ceil": "symmetric padding with pools in ceil mode",
        }
        return (
            f"BatchNorm epsilon {self.epsilon:g}, {padding[self.padding]}, {pooling[self.pooling]}"
        )

    @property
    def min_frames(self) -> int:
        """The shortest clip: it leaves the two steps of a window."""
        if self.pooling == "global":
            return MIN_FRAMES
        return {"same": MIN_FRAMES, "symmetric": 13, "ceil": 11}[self.padding]

    def steps(self, frames: int) -> int:
        """Return the number of steps that the network makes of a clip; they are 8 frames apart."""
        frames = output_size(self.padding, frames, STEM[0].kernel, 2, pool=False)
        for kernel, stride in POOLS.values():
            frames = output_size(self.padding, frames, kernel[0], stride[0], pool=True)
        return frames - (self.pooling == "window")


DEEPMIND: Final = Variant()
"""The variant of DeepMind's kinetics-i3d, and of most ports."""


class Unit(NamedTuple):
    """A convolution with a cubic kernel and without bias, its BatchNorm and a ReLU."""

    name: str  # canonical path, such as Mixed_3b.Branch_1.Conv3d_0b_3x3
    in_channels: int  # those of RGB for the first unit
    out_channels: int
    kernel: int


STEM: Final = (
    Unit("Conv3d_1a_7x7", 3, 64, 7),
    Unit("Conv3d_2b_1x1", 64, 64, 1),
    Unit("Conv3d_2c_3x3", 64, 192, 3),
)

# block: (channels in, branch 0, branch 1 reduce and out, branch 2 reduce and out, branch 3)
BLOCKS: Final[dict[str, tuple[int, int, int, int, int, int, int]]] = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}

POOLS: Final = {
    "MaxPool3d_2a_3x3": ((1, 3, 3), (1, 2, 2)),
    "MaxPool3d_3a_3x3": ((1, 3, 3), (1, 2, 2)),
    "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
    "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
}
"""Kernel and stride of each max pool, along T, H and W."""

ENDPOINTS: Final = tuple(
    sorted((*(unit.name for unit in STEM), *POOLS, *BLOCKS), key=lambda name: name.split("_")[1])
)
"""The named activations in the order of computation, 1a, 2a, 2b to 5c: names contain their turn."""

POOLED: Final = "pooled"
"""The features before the head: the last activation, average-pooled to [B, 1024]."""


def block_units(block: str) -> tuple[Unit, ...]:
    """Return the six units of one Inception block."""
    cin, b0, b1a, b1b, b2a, b2b, b3 = BLOCKS[block]
    return (
        Unit(f"{block}.Branch_0.Conv3d_0a_1x1", cin, b0, 1),
        Unit(f"{block}.Branch_1.Conv3d_0a_1x1", cin, b1a, 1),
        Unit(f"{block}.Branch_1.Conv3d_0b_3x3", b1a, b1b, 3),
        Unit(f"{block}.Branch_2.Conv3d_0a_1x1", cin, b2a, 1),
        Unit(f"{block}.Branch_2.Conv3d_0b_3x3", b2a, b2b, 3),
        Unit(f"{block}.Branch_3.Conv3d_0b_1x1", cin, b3, 1),
    )


UNITS: Final = STEM + tuple(unit for block in BLOCKS for unit in block_units(block))
"""All 57 units, in the order of computation."""


def endpoint_channels(endpoint: str) -> int:
    """Return the number of channels of a named activation."""
    channels = 0
    stem = {unit.name: unit.out_channels for unit in STEM}
    for name in ENDPOINTS[: ENDPOINTS.index(endpoint) + 1]:
        if name in BLOCKS:
            _, b0, _, b1, _, b2, b3 = BLOCKS[name]
            channels = b0 + b1 + b2 + b3
        else:
            channels = stem.get(name, channels)  # a pool keeps them
    return channels


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's SAME padding of one axis, before and after.

    Source: tensorflow.org/api_docs/python/tf/nn, "Notes on padding"; an odd element is added after.
    """
    total = max(kernel - (stride if size % stride == 0 else size % stride), 0)
    return total // 2, total - total // 2


def pad_axis(
    padding: Padding, size: int, kernel: int, stride: int, *, pool: bool
) -> tuple[int, int]:
    """Return the padding of one axis of a convolution or a max pool, before and after."""
    if padding == "same":
        return same_padding(size, kernel, stride)
    if padding == "ceil" and pool and stride > 1:
        return 0, -(size - kernel) % stride
    return (kernel - 1) // 2, (kernel - 1) // 2


def output_size(padding: Padding, size: int, kernel: int, stride: int, *, pool: bool) -> int:
    """Return the size of one axis after a convolution or a max pool."""
    pads = pad_axis(padding, size, kernel, stride, pool=pool)
    return (size + sum(pads) - kernel) // stride + 1


def canonical_shapes(
    num_classes: int, in_channels: int = 3, *, images: bool = False
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each of the 287 canonical tensors, in canonical order.

    With `images`, they are those of Inception-v1 of images: every kernel spans one frame.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for unit in UNITS:
        cin = in_channels if unit is UNITS[0] else unit.in_channels
        frames = 1 if images else unit.kernel
        kernel = (frames, unit.kernel, unit.kernel)
        shapes[f"{unit.name}.conv.weight"] = (unit.out_channels, cin, *kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{unit.name}.bn.{part}"] = (unit.out_channels,)
    shapes[HEAD_WEIGHT] = (num_classes, FEATURES, 1, 1, 1)
    shapes[HEAD_BIAS] = (num_classes,)
    return shapes
