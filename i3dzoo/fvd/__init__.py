"""The Fréchet Video Distance: statistics of features, and distances between two sets of them.

Names are imported when they are first used, so that distances need no video decoder.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from i3dzoo.fvd.compute import FVDResult, compute_fvd
    from i3dzoo.fvd.distance import frechet_distance, kernel_distance
    from i3dzoo.fvd.embedding import Embedder, embed_videos
    from i3dzoo.fvd.protocol import Protocol, load_protocol, protocol_names
    from i3dzoo.fvd.statistics import Statistics, statistics_of

_HOME = {
    "compute": ["FVDResult", "compute_fvd"],
    "distance": ["frechet_distance", "kernel_distance"],
    "embedding": ["Embedder", "embed_videos"],
    "protocol": ["Protocol", "load_protocol", "protocol_names"],
    "statistics": ["Statistics", "statistics_of"],
}
_MODULES = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Embedder",
    "FVDResult",
    "Protocol",
    "Statistics",
    "compute_fvd",
    "embed_videos",
    "frechet_distance",
    "kernel_distance",
    "load_protocol",
    "protocol_names",
    "statistics_of",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'i3dzoo.fvd' has no attribute {name!r}")
    return getattr(importlib.import_module(f"i3dzoo.fvd.{_MODULES[name]}"), name)
