"""All kinds, by name."""

from fuzz import (
    checkpoint_kinds,
    dataset_kinds,
    fvd_kinds,
    hub_kinds,
    media_kinds,
    run_kinds,
)

_MODULES = (checkpoint_kinds, media_kinds, dataset_kinds, run_kinds, hub_kinds, fvd_kinds)

KINDS = {kind.name: kind for module in _MODULES for kind in module.KINDS}
OF_VIDEOS = tuple(kind.name for module in (media_kinds, dataset_kinds) for kind in module.KINDS)
"""About half of the kinds, measured by the time that their mutants take."""


def shares(count: int) -> dict[str, int]:
    """Return how many of `count` mutants, or a few more, are of each kind, by their weights."""
    total = sum(kind.weight for kind in KINDS.values())
    return {kind.name: -int(-count * kind.weight // total) for kind in KINDS.values()}
