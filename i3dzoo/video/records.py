"""What is known of a video, and the frames that were read from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Channels", "Frames", "Video", "VideoInfo"]

Channels = Literal["rgb", "xy"]
Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """A video as `probe` found it: every number was counted, none is taken from a header's word.

    Attributes:
        path: The file or folder.
        kind: A video `file`, a `folder` of images, or a `npy` array.
        channels: `rgb`, or `xy` for optical flow (horizontal, then vertical).
        frames: Number of frames that decode.
        height: Of a frame in pixels, rotation applied.
        width: Of a frame in pixels, rotation applied.
        fps: Frames a second on average; None where the source has no rate (folders, arrays).
        times: Seconds since the first frame, float64 [frames], never falling; None without a rate.
        truncated: The source ends before its own header says.
        warnings: What the user should know of the source, one sentence each.
        keyframes: (index, timestamp in the stream's time base) of the frames where decoding can
            start, the first frame among them; empty where it must start at the first frame.
    """

    path: Path
    kind: Literal["file", "folder", "npy"]
    channels: Channels
    frames: int
    height: int
    width: int
    fps: float | None = None
    times: npt.NDArray[np.float64] | None = None
    truncated: bool = False
    warnings: tuple[str, ...] = ()
    keyframes: tuple[tuple[int, int], ...] = ()

    @property
    def duration(self) -> float | None:
        """Seconds from the first frame to the end of the last one; None without a rate."""
        if self.times is None or self.fps is None:
            return None
        return float(self.times[-1]) + 1 / self.fps


@dataclass(frozen=True, eq=False)
class Video:
    """Frames that were read from a video.

    Attributes:
        info: The whole video.
        indices: Which of its frames these are, int64 [T].
        frames: uint8 [T, H, W, 3] RGB, or [T, H, W, 2] optical flow, 0..255.
    """

    info: VideoInfo
    indices: npt.NDArray[np.int64]
    frames: Frames

    @property
    def times(self) -> npt.NDArray[np.float64] | None:
        """Seconds of each frame since the first of the video, float64 [T]; None without a rate."""
        return None if self.info.times is None else self.info.times[self.indices]
