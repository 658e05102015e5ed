"""Rounding to int8, and of weights to the bits that a floating type keeps.

To int8, weights go filter by filter and activations tensor by tensor, both around zero.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from i3dzoo.arrays import Array

__all__ = ["BITS", "LEVELS", "Rounding", "filter_scales", "keep_bits"]

BITS: Final = {"fp16": 10, "bf16": 7, "tf32": 10}
"""Of the fraction of a weight, by precision."""

LEVELS: Final = 127
"""Steps from zero to the largest magnitude, as TensorRT wants it: -128 is left out."""


@dataclass(frozen=True)
class Rounding:
    """How a unit computes in int8.

    Attributes:
        largest: Magnitude of its input that is kept; what is larger is clipped.
        shift: Added to the bias of each output channel: what rounding takes from its mean.
    """

    largest: float
    shift: tuple[float, ...]


def filter_scales(weight: Array) -> Array:
    """Return the step of each filter's weights, float32 [out]."""
    largest = np.abs(weight).max(axis=(1, 2, 3, 4))
    # a filter of zeros has no scale of its own
    scales: Array = (np.where(largest > 0, largest, 1) / LEVELS).astype("f4")
    return scales


def keep_bits(weight: Array, bits: int) -> Array:
    """Round float32 to the nearest values with so few bits of fraction; halves go away from zero.

    Args:
        weight: Finite.
        bits: 10 is what TF32 and float16 keep, 7 is bfloat16.
    """
    dropped = 23 - bits
    whole = np.ascontiguousarray(weight, "f4").view("u4") + np.uint32(1 << (dropped - 1))
    rounded: Array = (whole & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)).view("f4")
    return rounded
