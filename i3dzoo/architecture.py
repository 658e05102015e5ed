"""The I3D network as data: its units, their shapes, and the canonical names of its tensors.

Source: Carreira and Zisserman, "Quo Vadis, Action Recognition?", arXiv:1705.07750, figure 3, and
the names of DeepMind's kinetics-i3d, with dots for slashes.
"""

from dataclasses import dataclass
from typing import Final

__all__ = [
    "BLOCKS",
    "BN_EPSILON",
    "ENDPOINTS",
    "FEATURES",
    "HEAD",
    "MIN_FRAMES",
    "POOLS",
    "STEM",
    "UNITS",
    "Unit",
    "block_units",
    "canonical_shapes",
    "same_padding",
]

BN_EPSILON: Final = 1e-3
"""Epsilon of every BatchNorm; 1e-5, PyTorch's default, gives other outputs on the same weights."""

FEATURES: Final = 1024
"""Channels after the last block, which the head classifies."""

MIN_FRAMES: Final = 9
"""The shortest clip that leaves the two steps that the last average pool takes."""

HEAD: Final = "Logits.Conv3d_0c_1x1"
"""The classifier, a 1x1x1 convolution with bias and without BatchNorm."""


@dataclass(frozen=True)
class Unit:
    """A convolution without bias, its BatchNorm and a ReLU.

    Attributes:
        name: Canonical path, such as `Mixed_3b.Branch_1.Conv3d_0b_3x3`.
        in_channels: Channels in; for the first unit, those of RGB.
        out_channels: Channels out.
        kernel: Edge of the cubic kernel.
    """

    name: str
    in_channels: int
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

ENDPOINTS: Final = (
    "Conv3d_1a_7x7",
    "MaxPool3d_2a_3x3",
    "Conv3d_2b_1x1",
    "Conv3d_2c_3x3",
    "MaxPool3d_3a_3x3",
    "Mixed_3b",
    "Mixed_3c",
    "MaxPool3d_4a_3x3",
    "Mixed_4b",
    "Mixed_4c",
    "Mixed_4d",
    "Mixed_4e",
    "Mixed_4f",
    "MaxPool3d_5a_2x2",
    "Mixed_5b",
    "Mixed_5c",
)
"""The named activations, in order."""


POOLS: Final = {
    "MaxPool3d_2a_3x3": ((1, 3, 3), (1, 2, 2)),
    "MaxPool3d_3a_3x3": ((1, 3, 3), (1, 2, 2)),
    "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
    "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
}
"""Kernel and stride of each max pool, along T, H and W; all are padded SAME."""


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


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's SAME padding of one axis: how much before it, how much after.

    Source: tensorflow.org/api_docs/python/tf/nn, "Notes on padding"; the odd one goes after.
    """
    total = max(kernel - (stride if size % stride == 0 else size % stride), 0)
    return total // 2, total - total // 2


def canonical_shapes(num_classes: int, in_channels: int = 3) -> dict[str, tuple[int, ...]]:
    """Return the shape of each of the 287 canonical tensors, in canonical order.

    Args:
        num_classes: Classes of the head.
        in_channels: 3 for RGB, 2 for optical flow.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for unit in UNITS:
        cin = in_channels if unit is UNITS[0] else unit.in_channels
        shapes[f"{unit.name}.conv.weight"] = (unit.out_channels, cin, *[unit.kernel] * 3)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{unit.name}.bn.{part}"] = (unit.out_channels,)
    shapes[f"{HEAD}.conv.weight"] = (num_classes, FEATURES, 1, 1, 1)
    shapes[f"{HEAD}.conv.bias"] = (num_classes,)
    return shapes
