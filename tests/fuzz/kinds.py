"""All kinds, by name."""

from fuzz import (
    bad_commands,
    checkpoint_kinds,
    dataset_kinds,
    fvd_kinds,
    hub_kinds,
    media_kinds,
    run_kinds,
)
from fuzz.kind import Kind

_MODULES = (checkpoint_kinds, media_kinds, dataset_kinds, run_kinds, hub_kinds, fvd_kinds)

KINDS = {kind.name: kind for module in _MODULES for kind in module.KINDS}


def find_kind(name: str) -> Kind:
    """Return a kind, which can also be one of the bad commands that test the harness."""
    return KINDS[name] if name in KINDS else bad_commands.KINDS[name]


def shares(count: int) -> dict[str, int]:
    """Return how many of `count` mutants, or a few more, are of each kind, by their weights."""
    total = sum(kind.weight for kind in KINDS.values())
    return {kind.name: -int(-count * kind.weight // total) for kind in KINDS.values()}
