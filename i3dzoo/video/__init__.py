"""Read videos: decoding, sampling in time, transforms, datasets, loading, optical flow.

Names are imported when they are first used, so that a process that decodes needs no PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from i3dzoo.video.bad_videos import BadVideo
    from i3dzoo.video.cache import FrameCache
    from i3dzoo.video.dataset import Sample, VideoDataset
    from i3dzoo.video.decode import probe, read, stream
    from i3dzoo.video.frames import frames_digest
    from i3dzoo.video.index import Entry, Index
    from i3dzoo.video.index_file import read_index, write_index
    from i3dzoo.video.info import Channels, Frames, Video, VideoInfo
    from i3dzoo.video.loader import Batch, centre_clip, epoch_batches, load_batches, load_clips
    from i3dzoo.video.sampling import Clip, Samples, clip_at, clips, resample, whole, windows
    from i3dzoo.video.splits import SplitLists, read_splits
    from i3dzoo.video.transforms import normalise, preprocess, resized_size
    from i3dzoo.video.views import CENTRE, MULTI, TRAIN, WHOLE, Sampling

_HOME = {
    "bad_videos": ["BadVideo"],
    "cache": ["FrameCache"],
    "dataset": ["Sample", "VideoDataset"],
    "decode": ["probe", "read", "stream"],
    "frames": ["frames_digest"],
    "index": ["Entry", "Index"],
    "index_file": ["read_index", "write_index"],
    "info": ["Channels", "Frames", "Video", "VideoInfo"],
    "loader": ["Batch", "centre_clip", "epoch_batches", "load_batches", "load_clips"],
    "sampling": ["Clip", "Samples", "clip_at", "clips", "resample", "whole", "windows"],
    "splits": ["SplitLists", "read_splits"],
    "transforms": ["normalise", "preprocess", "resized_size"],
    "views": ["CENTRE", "MULTI", "TRAIN", "WHOLE", "Sampling"],
}
_MODULES = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "CENTRE",
    "MULTI",
    "TRAIN",
    "WHOLE",
    "BadVideo",
    "Batch",
    "Channels",
    "Clip",
    "Entry",
    "FrameCache",
    "Frames",
    "Index",
    "Sample",
    "Samples",
    "Sampling",
    "SplitLists",
    "Video",
    "VideoDataset",
    "VideoInfo",
    "centre_clip",
    "clip_at",
    "clips",
    "epoch_batches",
    "frames_digest",
    "load_batches",
    "load_clips",
    "normalise",
    "preprocess",
    "probe",
    "read",
    "read_index",
    "read_splits",
    "resample",
    "resized_size",
    "stream",
    "whole",
    "windows",
    "write_index",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'i3dzoo.video' has no attribute {name!r}")
    return getattr(importlib.import_module(f"i3dzoo.video.{_MODULES[name]}"), name)
