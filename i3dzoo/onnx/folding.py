"""Fold BatchNorm into the convolution before it."""

from typing import Final

import numpy as np

from i3dzoo.arrays import Array, Tensors
from i3dzoo.network.architecture import DEEPMIND

BN_PARTS: Final = ("weight", "bias", "running_mean", "running_var")
"""The tensors of a BatchNorm, in the order of ONNX."""


def fold_batch_norm(
    tensors: Tensors, unit: str, epsilon: float = DEEPMIND.epsilon
) -> tuple[Array, Array]:
    """Fold a unit's BatchNorm into its convolution; return weight and bias, float32.

    Computed in double precision: y = g * (conv(x) - m) / sqrt(v + eps) + b.
    """
    scale, shift, mean, variance = (
        np.asarray(tensors[f"{unit}.bn.{part}"], "f8") for part in BN_PARTS
    )
    factor = scale / np.sqrt(variance + epsilon)
    weight = np.asarray(tensors[f"{unit}.conv.weight"], "f8") * factor.reshape(-1, 1, 1, 1, 1)
    return weight.astype("f4"), (shift - mean * factor).astype("f4")
