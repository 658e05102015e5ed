"""Small pictures of the frames of a video."""

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter

from i3dzoo.errors import VideoError
from i3dzoo.video import Channels, Frames, VideoInfo, probe, stream

if TYPE_CHECKING:
    from i3dzoo.predict import Timeline

_QUALITY = {"qmin": "4", "qmax": "6", "strict": "unofficial"}  # 2 is best, 31 worst


def film_strip(
    path: str | Path, channels: Channels = "rgb", *, frames: int = 3, height: int = 120
) -> bytes:
    """Return evenly spread frames of a video, side by side, as a JPEG of an even height in pixels.

    Optical flow is shown as colour: x as red, y as green.
    """
    info = probe(path, channels)
    indices = ((np.arange(frames) + 0.5) * info.frames / frames).astype(np.int64)
    width = max(round(info.width * height / info.height / 2) * 2, 2)
    width = min(width, 4 * height)
    pictures = {
        index: _resize(to_rgb(frame), width, height) for index, frame in stream(info, indices)
    }
    strip = np.concatenate([pictures[index] for index in indices.tolist()], axis=1)
    return _encode_jpeg(strip, info.path)


def timeline_frames(
    info: VideoInfo, timeline: "Timeline", width: float, height: float
) -> list[Frames]:
    """Return frames that fill a strip side by side, each from the time at its middle.

    The width and the height of the strip are in any one unit. The frames, uint8 [H, W, 3], are cut
    to the shape of their places.
    """
    count = max(round(width / (height * min(max(info.width / info.height, 0.5), 2.5))), 1)
    moments = timeline.ends[-1] * (np.arange(count) + 0.5) / count
    if info.times is not None and timeline.unit == "s":
        indices = np.searchsorted(info.times, moments, side="right") - 1
    else:
        indices = moments.astype(np.int64)
    indices = np.clip(indices, 0, info.frames - 1).astype(np.int64)
    # made small one by one, so that a few frames of a very large video do not fill the memory
    step = max(min(info.height, info.width) // 360, 1)
    frames = {index: frame[::step, ::step].copy() for index, frame in stream(info, indices)}
    return [_crop(to_rgb(frames[index]), width / count / height) for index in indices.tolist()]


def to_rgb(frame: Frames) -> Frames:
    """Show optical flow as colour: x as red, y as green."""
    if frame.shape[2] == 3:
        return frame
    return np.concatenate([frame, np.full_like(frame[..., :1], 128)], axis=2)


def _resize(frame: Frames, width: int, height: int) -> Frames:
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    small = VideoReformatter().reformat(picture, width, height, "rgb24")
    return np.asarray(small.to_ndarray(), dtype=np.uint8)


def _crop(frame: Frames, aspect: float) -> Frames:
    """Cut out the centre of a frame, at a ratio of width to height."""
    height, width = frame.shape[:2]
    new_width = min(width, max(round(height * aspect), 1))
    new_height = min(height, max(round(width / aspect), 1))
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return frame[top : top + new_height, left : left + new_width]


def _encode_jpeg(picture: Frames, path: Path) -> bytes:
    try:
        codec: Any = av.CodecContext.create("mjpeg", "w")
        codec.height, codec.width = picture.shape[:2]
        codec.pix_fmt = "yuvj420p"
        codec.time_base = Fraction(1, 1)
        codec.options = _QUALITY
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        packets = [*codec.encode(frame), *codec.encode(None)]
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(f"{path}: its frames cannot be encoded as JPEG: {error}") from error
    return b"".join(bytes(packet) for packet in packets)
