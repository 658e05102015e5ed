"""What units are given on average, as their BatchNorms tell it: no clips are needed.

BatchNorm leaves a channel with a mean and a spread. Taken as normal, what follows from a ReLU and a
pool has a mean that can be computed. It serves to take back what rounding weights does to means, as
in arXiv:1906.04721, section 4.2, with BatchNorm's statistics in the place of data.
"""

import math

import numpy as np

from i3dzoo.architecture import ENDPOINTS, HEAD, POOLS, STEM, block_units
from i3dzoo.arrays import Array, Tensors

__all__ = ["average_inputs"]

_SEEN = {1: 1.0, 8: 2.5, 9: 2.0, 27: 4.0}
"""By the places in a pool's window: as many independent values have such a largest one. Neighbours
resemble each other; fitted to rgb_scratch on six clips of real video."""

_SIGMAS = np.linspace(-8, 8, 2001)
_BELOW = np.array([(1 + math.erf(z / math.sqrt(2))) / 2 for z in _SIGMAS])


def average_inputs(tensors: Tensors) -> dict[str, Array]:
    """Return the mean of each channel that each unit and the head are given, float64 [in].

    Args:
        tensors: The canonical state dict.
    """
    channels = tensors[f"{STEM[0].name}.conv.weight"].shape[1]
    found = {STEM[0].name: np.zeros(channels)}  # clips are normalised
    stem = {unit.name for unit in STEM}
    x, window = [STEM[0].name], 1  # what the channels come from, and the window they went through
    for name in ENDPOINTS[1:]:
        if name in POOLS:
            window = math.prod(POOLS[name][0])
            continue
        given = _average(tensors, x, _SEEN[window])
        if name in stem:
            found[name], x = given, [name]
        else:
            ends: dict[str, str] = {}
            for unit in block_units(name):
                branch = unit.name.split(".")[1]
                if branch in ends:
                    found[unit.name] = _average(tensors, [ends[branch]], _SEEN[1])
                elif branch == "Branch_3":
                    found[unit.name] = _average(tensors, x, _SEEN[window] * _SEEN[27])
                else:
                    found[unit.name] = given
                ends[branch] = unit.name
            x = list(ends.values())
        window = 1
    found[HEAD] = _average(tensors, x, _SEEN[1])
    return found


def _average(tensors: Tensors, units: list[str], seen: float) -> Array:
    """Return the mean of the largest of some values of each channel, after the ReLU."""
    share = np.diff(_BELOW**seen)
    middle = (_SIGMAS[1:] + _SIGMAS[:-1]) / 2
    parts = []
    for unit in units:
        mean, spread = (
            np.asarray(tensors[f"{unit}.bn.{part}"], "f8") for part in ("bias", "weight")
        )
        values = mean[:, None] + np.abs(spread)[:, None] * middle
        parts.append(np.maximum(values, 0) @ share)
    return np.concatenate(parts)
