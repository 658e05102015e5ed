"""The Fréchet Video Distance: statistics of features, and distances between two sets of them."""

from i3dzoo.fvd.compute import FVDResult, compute_fvd
from i3dzoo.fvd.distance import frechet_distance, kernel_distance
from i3dzoo.fvd.embedding import Embedder, embed_videos
from i3dzoo.fvd.protocol import Protocol, load_protocol, protocol_names
from i3dzoo.fvd.statistics import Statistics, statistics_of

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
