"""Small videos that say which frame is which."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from i3dzoo.video import Frames

__all__ = ["numbered", "write_video"]


def numbered(count: int, height: int = 48, width: int = 64) -> Frames:
    """Frames of one colour each: frame i has red i, green 2i and blue 3i, modulo 256."""
    colours = np.arange(count)[:, None] * np.array([1, 2, 3]) % 256
    return np.broadcast_to(
        colours[:, None, None].astype(np.uint8), (count, height, width, 3)
    ).copy()


def write_video(
    path: Path,
    frames: Frames,
    fps: int = 25,
    milliseconds: Sequence[int] | None = None,
    codec: str = "png",
    pixels: str = "rgb24",
) -> Path:
    """Encode frames, losslessly by default (PNG in a .mov), evenly or at given times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 1000 if milliseconds else fps)
        for index, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts = milliseconds[index] if milliseconds else index
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
