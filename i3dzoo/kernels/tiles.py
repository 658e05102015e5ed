"""What each program of the fused convolutions computes.

`tiles.json` has the tiles that were fastest on an H100, by layer, for one clip of 64x224x224 and
for eight. `benchmarks/gpu_fused.py --tune` measures them.
"""

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Final, NamedTuple

_TABLE: Final[dict[str, dict[str, list[int]]]] = json.loads(
    (files("i3dzoo.kernels") / "tiles.json").read_text("utf-8")
)
_MANY: Final = 4  # clips from which the tiles for eight are taken


class Tile(NamedTuple):
    """A box of clips and positions, the columns of the result, and how to compute them."""

    clips: int
    time: int
    height: int
    width: int
    columns: int
    depth: int  # input channels of one step
    warps: int
    stages: int


def find_tile(name: str, taps: int, shape: Sequence[int]) -> Tile:
    """Return the tile of a layer for an input [N, T, H, W, C]."""
    table = _TABLE["8" if shape[0] >= _MANY else "1"]
    if name in table:
        return Tile(*table[name])
    if taps == 343:
        return Tile(1, 2, 8, 8, 128, 32, 4, 4)
    if taps == 1:
        return Tile(1, 1, 1, 128, 64, 64, 4, 4)
    width = shape[3]
    if width > 32:
        return Tile(1, 4, 8, 8, 64, 64, 8, 3)
    if width > 16:
        return Tile(1, 8, 4, 4, 64, 64, 4, 4)
    return Tile(1, 16, 2, 2, 64, 64, 4, 4) if width > 8 else Tile(1, 1, 8, 8, 64, 64, 4, 4)
