"""Describe a video, and hold frames that were read from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Channels = Literal["rgb", "xy"]
Frames = npt.NDArray[np.uint8]


class FrameSource(Protocol):
    """Makes the frames of a video that is in no file, such as computed optical flow."""

    def read(self, wanted: npt.NDArray[np.int64]) -> Iterator[tuple[int, Frames]]:
        """Yield (index, uint8 [H, W, C]) for each wanted frame, in increasing order."""


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """Description of a video; `probe` counts the frames instead of believing the header.

    Attributes:
        path: The file or folder.
        kind: A video `file`, a `folder` of images, or a `npy` or .npz array.
        channels: `rgb`, or `xy` for optical flow (horizontal, then vertical).
        frames: Number of frames that can be decoded.
        height: Height of a frame in pixels, after rotation.
        width: Width of a frame in pixels, after rotation.
        fps: Average frames per second; None if the source has no frame rate (folders, arrays).
        times: Seconds since the first frame, float64 [frames], not decreasing; None without a rate.
        truncated: Whether the source ends before its header says.
        warnings: What is wrong or odd with the source, one sentence each.
        keyframes: (index, timestamp in the stream's time base) of the frames where decoding can
            start, including the first frame; empty if decoding must start at the first frame.
        remarks: How its frames differ from those of other videos, such as pixels that are not
            square, one sentence each.
        floats: Whether an array holds the network's input, floats from -1 to 1.
        source: What makes the frames, if they are not read from `path`.
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
    remarks: tuple[str, ...] = ()
    floats: bool = False
    source: FrameSource | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """The warnings and the remarks."""
        return self.warnings + self.remarks

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
        info: Description of the video.
        indices: Index of each frame in the video, int64 [T].
        frames: uint8 [T, H, W, 3] RGB, or [T, H, W, 2] optical flow, 0..255.
    """

    info: VideoInfo
    indices: npt.NDArray[np.int64]
    frames: Frames

    @property
    def times(self) -> npt.NDArray[np.float64] | None:
        """Seconds of each frame since the first of the video, float64 [T]; None without a rate."""
        return None if self.info.times is None else self.info.times[self.indices]
