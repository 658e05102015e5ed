"""A few frames of a video side by side, as one JPEG."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter

from i3dzoo.errors import VideoError
from i3dzoo.video import Channels, Frames, probe, stream

__all__ = ["film_strip"]

_QUALITY = {"qmin": "4", "qmax": "6", "strict": "unofficial"}  # 2 is best, 31 worst


def film_strip(
    path: str | Path, channels: Channels = "rgb", *, frames: int = 3, height: int = 120
) -> bytes:
    """Return evenly spread frames of a video, side by side, as a JPEG.

    Optical flow is shown as colour: x as red, y as green.

    Args:
        path: As `i3dzoo.video.probe` takes it.
        channels: `rgb`, or `xy` for optical flow.
        frames: How many.
        height: Of the picture in pixels; even.

    Raises:
        MissingFileError: There is nothing at this path.
        VideoError: It cannot be decoded.
    """
    info = probe(path, channels)
    indices = ((np.arange(frames) + 0.5) * info.frames / frames).astype(np.int64)
    width = max(round(info.width * height / info.height / 2) * 2, 2)
    width = min(width, 4 * height)
    found = {
        index: _resized(_colour(frame), width, height) for index, frame in stream(info, indices)
    }
    return _jpeg(np.concatenate([found[index] for index in indices.tolist()], axis=1), info.path)


def _colour(frame: Frames) -> Frames:
    if frame.shape[2] == 3:
        return frame
    return np.concatenate([frame, np.full_like(frame[..., :1], 128)], axis=2)


def _resized(frame: Frames, width: int, height: int) -> Frames:
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    small = VideoReformatter().reformat(picture, width, height, "rgb24")
    return np.asarray(small.to_ndarray(), dtype=np.uint8)


def _jpeg(picture: Frames, path: Path) -> bytes:
    try:
        codec: Any = av.CodecContext.create("mjpeg", "w")
        codec.height, codec.width = picture.shape[:2]
        codec.pix_fmt = "yuvj420p"
        codec.time_base = Fraction(1, 1)
        codec.options = _QUALITY
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        packets = [*codec.encode(frame), *codec.encode(None)]
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(f"{path}: no picture can be made of its frames: {error}") from error
    return b"".join(bytes(packet) for packet in packets)
