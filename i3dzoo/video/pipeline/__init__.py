"""Run a network on many videos: decoders, transforms, shared batches, and outputs by video."""

from i3dzoo.video.pipeline.clip_frames import load_plan
from i3dzoo.video.pipeline.options import DecoderName, Forward, PipelineOptions, Planned
from i3dzoo.video.pipeline.run import KnownVideo, run_plans

__all__ = [
    "DecoderName",
    "Forward",
    "KnownVideo",
    "PipelineOptions",
    "Planned",
    "load_plan",
    "run_plans",
]
