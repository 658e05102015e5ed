"""What each program of the fused convolutions computes.

`tiles.json` has the tiles that were fastest on an H100, by layer, for one clip of 64x224x224 and
for eight. `i3dzoo.network.tile_search` chooses among them, and one more for small GPUs, elsewhere.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final, NamedTuple

TIMED_ON: Final = (9, 0)
"""The compute capability of the GPUs that `TIMED` is for."""

CLASSES: Final = (1, 8)
"""Numbers of clips that have a table."""

_MANY: Final = 4  # clips from which the tiles for eight are taken
_BYTES: Final = 2  # of a number in half precision


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
    flip: bool = False  # weights are the first factor of the product, and positions the second

    @property
    def shared_memory(self) -> int:
        """Least bytes of a program's inputs on their way: one step for each stage but the last."""
        rows = self.clips * self.time * self.height * self.width
        return (self.stages - 1) * (rows + self.columns) * self.depth * _BYTES


Table = Mapping[str, Mapping[str, Tile]]
"""Tiles by number of clips, 1 or 8, and by layer."""

TIMED: Final[Table] = {
    count: {name: Tile(*tile[:8], *map(bool, tile[8:])) for name, tile in table.items()}
    for count, table in json.loads((files(__package__) / "tiles.json").read_text("utf-8")).items()
}
"""The tiles for an H100."""


def find_tile(name: str, shape: Sequence[int], table: Table = TIMED) -> Tile:
    """Return the tile of a layer for an input [N, T, H, W, C]."""
    return table[_class_of(shape[0])].get(name) or _modest(name, shape[3])


def candidates(name: str, shape: Sequence[int], split: int | None, memory: int) -> list[Tile]:
    """Return the tiles to try for a layer on another GPU than an H100, a modest one first.

    Args:
        name: Name of the layer.
        shape: The input [N, T, H, W, C].
        split: Number of columns of the first output, of a layer that has two.
        memory: Bytes of shared memory that a program can have.
    """
    tiles = [_modest(name, shape[3])]
    for table in TIMED.values():
        for other, tile in table.items():
            if _kind(other) == _kind(name):
                tiles += [tile, tile._replace(flip=False)]
    return [
        tile
        for tile in dict.fromkeys(tiles)
        if tile.clips <= shape[0]
        and (split is None or split % tile.columns == 0)
        and tile.shared_memory <= memory
    ]


def known_tiles() -> frozenset[Tile]:
    """Return all tiles that a search can find."""
    tiles = {tile for table in TIMED.values() for tile in table.values()}
    tiles |= {tile._replace(flip=False) for tile in tiles}
    widths = (7, 14, 28, 56)
    return frozenset(tiles | {_modest(name, width) for name in TIMED["1"] for width in widths})


def _class_of(clips: int) -> str:
    return str(CLASSES[clips >= _MANY])


def _kind(name: str) -> tuple[str, str]:
    """Return the kernel, and which layers have inputs of this size, if that matters to it."""
    kernel = name[-3:]
    return kernel, "" if kernel == "1x1" else name[: len("Mixed_3")]


def _modest(name: str, width: int) -> Tile:
    """Return a tile that fits every GPU with tensor cores for bfloat16."""
    kernel, _ = _kind(name)
    if kernel == "7x7":
        return Tile(1, 2, 8, 8, 128, 32, 4, 4)
    if kernel == "1x1":
        return Tile(1, 1, 1, 64, 64, 64, 4, 4)
    box = (2, 8, 8) if width > 32 else (8, 4, 4) if width > 16 else (16, 2, 2)
    return Tile(1, *(box if width > 8 else (1, 8, 8)), 64, 32, 4, 4)
