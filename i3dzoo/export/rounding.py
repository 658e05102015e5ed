"""Rounding to 8 bits: weights filter by filter, activations tensor by tensor, both around zero."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from i3dzoo.arrays import Array

__all__ = ["LEVELS", "Rounding", "filter_scales"]

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
