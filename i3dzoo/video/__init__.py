"""Video in: decoding, sampling in time, transforms, datasets, optical flow."""

from i3dzoo.video.batches import Batch, EpochSampler, collate, loader, normalise
from i3dzoo.video.cache import FrameCache
from i3dzoo.video.dataset import (
    CENTRE,
    MULTI,
    TRAIN,
    WHOLE,
    BadVideo,
    Sample,
    Sampling,
    VideoDataset,
    together,
)
from i3dzoo.video.decode import probe, read, stream
from i3dzoo.video.index import Entry, Index, read_index, write_index
from i3dzoo.video.records import Channels, Frames, Video, VideoInfo
from i3dzoo.video.sampling import Clip, Samples, clip_at, clips, resample, whole, windows
from i3dzoo.video.seek import TimedFrames, read_at
from i3dzoo.video.splits import SplitLists, read_splits
from i3dzoo.video.transforms import load_clips, preprocess, resized_size

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
    "EpochSampler",
    "FrameCache",
    "Frames",
    "Index",
    "Sample",
    "Samples",
    "Sampling",
    "SplitLists",
    "TimedFrames",
    "Video",
    "VideoDataset",
    "VideoInfo",
    "clip_at",
    "clips",
    "collate",
    "load_clips",
    "loader",
    "normalise",
    "preprocess",
    "probe",
    "read",
    "read_at",
    "read_index",
    "read_splits",
    "resample",
    "resized_size",
    "stream",
    "together",
    "whole",
    "windows",
    "write_index",
]
