"""The tiles of the engine fused on this GPU: those that ship, or a search that is kept."""

import importlib.metadata
from typing import Final

import torch

from i3dzoo import measurements
from i3dzoo.kernels.tiles import TIMED, TIMED_ON, Table, Tile, known_tiles
from i3dzoo.network.architecture import Variant
from i3dzoo.network.fused import Tensors
from i3dzoo.network.tile_search import TileSearch
from i3dzoo.progress import Progress
from i3dzoo.records import Record
from i3dzoo.version import __version__

FOLDER: Final = "tiles"
"""Folder of the cache."""


class Setting(Record, frozen=True, kw_only=True):
    """What the fastest tiles depend on.

    Attributes:
        gpu: Name of the GPU.
        dtype: Number format of the weights.
        channels: Channels of the clips.
        versions: Versions of i3dzoo and Triton.
    """

    gpu: str
    dtype: str
    channels: int
    versions: dict[str, str]


class Kept(Record, frozen=True, kw_only=True):
    """The fastest tiles, by number of clips and by layer."""

    setting: Setting
    tables: dict[str, dict[str, Tile]]


def find_tiles(
    tensors: Tensors, variant: Variant, device: torch.device, dtype: torch.dtype, progress: Progress
) -> Table:
    """Return the tiles for a GPU; the first time on a GPU that has no table, search them.

    Args:
        tensors: The canonical tensors of a network.
        variant: BatchNorm epsilon, padding and pooling.
        device: The GPU.
        dtype: `torch.float16` or `torch.bfloat16`.
        progress: Receives a remark, and how many layers are done.

    Raises:
        RuntimeError: No tile of a layer computes what PyTorch does.
    """
    if torch.cuda.get_device_capability(device) == TIMED_ON:
        return TIMED
    search = TileSearch(tensors, variant, device, dtype)
    setting = Setting(
        gpu=torch.cuda.get_device_name(device),
        dtype=str(dtype),
        channels=search.channels,
        versions={"i3dzoo": __version__, "triton": importlib.metadata.version("triton")},
    )
    return kept_or_searched(search, setting, progress)


def kept_or_searched(search: TileSearch, setting: Setting, progress: Progress) -> Table:
    """Return the tiles that are kept for a setting, or search and keep them."""
    kept = measurements.read(FOLDER, setting, Kept)
    if kept is not None and _is_complete(kept.tables):
        return kept.tables
    progress.message(
        f"tuning the engine fused for {setting.gpu}, on which it was not timed; "
        "this takes about two minutes, once"
    )
    tables = {count: dict(table) for count, table in search.search(progress).items()}
    if measurements.keep(FOLDER, Kept(setting=setting, tables=tables)) is None:
        progress.message("the cache cannot be written, so the tiles are not kept")
    return tables


def _is_complete(tables: Table) -> bool:
    """Whether tables have all layers, and no tile that i3dzoo does not know."""
    return all(
        set(table) == set(TIMED[count]) and set(table.values()) <= known_tiles()
        for count, table in tables.items()
    ) and set(tables) == set(TIMED)
