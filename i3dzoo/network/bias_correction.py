"""Data-free bias correction for weights that are rounded to fewer bits of mantissa.

Rounding the weights of a unit shifts the mean of its outputs; the bias can take the shift back if
the mean of the unit's inputs is known. It is estimated from BatchNorm statistics, as in
arXiv:1906.04721, section 4.2: a channel is taken as normal with BatchNorm's mean and standard
deviation, which gives its mean behind a ReLU and a max pool. No clips are needed.
"""

import math
from typing import Final

import numpy as np

from i3dzoo.arrays import Array, Tensors
from i3dzoo.network.architecture import ENDPOINTS, HEAD, POOLS, STEM, block_units

MANTISSA_BITS: Final = {"tf32": 10, "fp16": 10, "bf16": 7}
"""Bits of mantissa that a precision keeps, without the leading one."""

_EFFECTIVE_SAMPLES: Final = {1: 1.0, 8: 2.5, 9: 2.0, 27: 4.0}
"""Independent values that have the same maximum as a pooling window, by the window's size.
Neighbours in a window are correlated; fitted to rgb_scratch on six real clips."""

_SIGMAS = np.linspace(-8, 8, 2001)
_NORMAL_CDF = np.array([(1 + math.erf(z / math.sqrt(2))) / 2 for z in _SIGMAS])


def round_weights(weight: Array, bias: Array, bits: int, mean_input: Array) -> tuple[Array, Array]:
    """Round the weights [out, in, T, H, W] of a convolution, and correct its bias [out]; float32.

    `mean_input` has the mean of each input channel, from `expected_inputs`.
    """
    rounded = round_mantissa(weight, bits)
    shift = (weight - rounded).sum((2, 3, 4), dtype="f8") @ mean_input
    return rounded, (bias + shift).astype("f4")


def round_mantissa(values: Array, bits: int) -> Array:
    """Round finite float32 values to fewer bits of mantissa; ties are rounded away from zero."""
    dropped = 23 - bits
    pattern = np.ascontiguousarray(values, "f4").view("u4") + np.uint32(1 << (dropped - 1))
    rounded: Array = (pattern & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)).view("f4")
    return rounded


def expected_inputs(tensors: Tensors) -> dict[str, Array]:
    """Estimate the mean of each input channel of every unit and of the head, float64 [in]."""
    channels = tensors[f"{STEM[0].name}.conv.weight"].shape[1]
    means = {STEM[0].name: np.zeros(channels)}  # clips are normalised
    stem = {unit.name for unit in STEM}
    sources, window = [STEM[0].name], 1  # the units before an endpoint, and the pool between
    for endpoint in ENDPOINTS[1:]:
        if endpoint in POOLS:
            window = math.prod(POOLS[endpoint][0])
            continue
        mean = _mean_behind(tensors, sources, _EFFECTIVE_SAMPLES[window])
        if endpoint in stem:
            means[endpoint], sources = mean, [endpoint]
        else:
            last_units: dict[str, str] = {}
            for unit in block_units(endpoint):
                branch = unit.name.split(".")[1]
                if branch in last_units:
                    means[unit.name] = _mean_behind(tensors, [last_units[branch]])
                elif branch == "Branch_3":  # begins with a pool
                    samples = _EFFECTIVE_SAMPLES[window] * _EFFECTIVE_SAMPLES[27]
                    means[unit.name] = _mean_behind(tensors, sources, samples)
                else:
                    means[unit.name] = mean
                last_units[branch] = unit.name
            sources = list(last_units.values())
        window = 1
    means[HEAD] = _mean_behind(tensors, sources)
    return means


def _mean_behind(tensors: Tensors, units: list[str], samples: float = 1) -> Array:
    """Return the mean of each output channel of concatenated units, behind ReLU and a max pool.

    `samples` is the number of independent values that the pool takes the maximum of.
    """
    probability = np.diff(_NORMAL_CDF**samples)
    sigmas = (_SIGMAS[1:] + _SIGMAS[:-1]) / 2
    parts = []
    for unit in units:
        mean, deviation = (
            np.asarray(tensors[f"{unit}.bn.{part}"], "f8") for part in ("bias", "weight")
        )
        values = mean[:, None] + np.abs(deviation)[:, None] * sigmas
        parts.append(np.maximum(values, 0) @ probability)
    return np.concatenate(parts)
