"""Describe a video file by its packets, so that it need not be decoded to be planned.

A well-formed file has one frame for each packet, at the packet's time. What is planned by this is
checked as the file is decoded: see `agrees`.
"""

from array import array
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from i3dzoo.limits import MAX_FRAMES
from i3dzoo.video._container import ANIMATIONS, display_times, open_video
from i3dzoo.video._pixels import display_size
from i3dzoo.video.info import VideoInfo


def expect_container(path: Path) -> VideoInfo | None:
    """Return what decoding a whole file should find, after decoding its first frame only.

    Returns:
        The description without keyframes; None if only decoding can tell.

    Raises:
        VideoError: The file cannot be opened, or its frames are too large.
    """
    with open_video(path, 1) as (container, stream):
        # An AVI with B-frames has no display times, and often packets without a frame.
        unclear = container.format.name == "avi" and stream.codec_context.has_b_frames
        if unclear or container.format.name in ANIMATIONS:
            return None
        stamps: array[float] = array("d")
        first = None
        try:
            for packet in container.demux(stream):
                if not packet.size and packet.pts is None:
                    continue  # the end of the stream
                if not packet.size or packet.pts is None or packet.is_corrupt:
                    return None
                if first is None:
                    first = _first(stream, packet)
                if not packet.is_discard:
                    stamps.append(float(packet.pts * stream.time_base))
            first = first or _first(stream, None)
        except (av.error.FFmpegError, OSError, ValueError, IndexError, TypeError):
            return None
        if first is None or not 0 < len(stamps) <= MAX_FRAMES:
            return None
        height, width, remarks = display_size(path, first, stream.sample_aspect_ratio)
        declared = float(stream.average_rate or stream.guessed_rate or 0) or None
    times, fps = display_times(np.sort(np.frombuffer(stamps)), declared)
    if fps is None:
        return None
    size = len(stamps), height, width
    return VideoInfo(path, "file", "rgb", *size, fps, times, remarks=remarks)


def agrees(expected: VideoInfo, decoded: VideoInfo | None) -> bool:
    """Whether a whole file was decoded without damage, to the frames that were expected."""
    return (
        decoded is not None
        and not decoded.warnings
        and (expected.frames, expected.height, expected.width, expected.fps, expected.remarks)
        == (decoded.frames, decoded.height, decoded.width, decoded.fps, decoded.remarks)
        and expected.times is not None
        and decoded.times is not None
        and np.array_equal(expected.times, decoded.times)
    )


def _first(stream: Any, packet: Any) -> av.VideoFrame | None:
    return next(iter(stream.codec_context.decode(packet)), None)
