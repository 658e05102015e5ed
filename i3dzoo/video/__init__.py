"""Video in: decoding, sampling in time, and the transforms that a checkpoint asks for."""

from i3dzoo.video.decode import probe, read, stream
from i3dzoo.video.records import Channels, Frames, Video, VideoInfo
from i3dzoo.video.sampling import Clip, Samples, clips, resample, whole, windows
from i3dzoo.video.transforms import load_clips, preprocess, resized_size

__all__ = [
    "Channels",
    "Clip",
    "Frames",
    "Samples",
    "Video",
    "VideoInfo",
    "clips",
    "load_clips",
    "preprocess",
    "probe",
    "read",
    "resample",
    "resized_size",
    "stream",
    "whole",
    "windows",
]
