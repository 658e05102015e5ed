"""Which frames a clip is made of: resampling in time, clips, loops, windows.

All of it is arithmetic on a `VideoInfo`; no frame is decoded here.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from i3dzoo.errors import VideoError
from i3dzoo.video.records import VideoInfo

__all__ = ["MAX_FPS", "Clip", "Samples", "clip_at", "clips", "resample", "whole", "windows"]

MAX_FPS = 1000.0
"""The highest frame rate that a video is resampled to."""

SAME_RATE = 0.01
"""Rates that differ by no more than this (1 %) are taken for the same: 25 and 24.975 fps."""

_SLACK = 1e-6  # seconds; timestamps are fractions, so k / fps may fall just short of one


@dataclass(frozen=True, eq=False)
class Samples:
    """A video at the rate the network takes, as indices of source frames.

    Attributes:
        info: The video.
        indices: Source frames in order, int64 [N], never falling.
        times: Seconds since the first frame, float64 [N]; None where the source has no rate.
        duration: Seconds that the samples cover; None where the source has no rate.
        fps: Samples a second; None where the source has no rate.
        note: What was done, in a few words.
    """

    info: VideoInfo
    indices: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64] | None
    duration: float | None
    fps: float | None
    note: str

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True, eq=False)
class Clip:
    """The frames of one input of the network.

    Attributes:
        indices: Source frames, int64 [T], in the order of the clip.
        first: Position among the samples of the first frame.
        last: Position among the samples of the last distinct frame.
        start: Seconds; None where the source has no rate.
        end: Seconds, where the last frame ends; None where the source has no rate.
        loops: How often the video is played to fill the clip; 1 for once, 2.5 for two and a half.
    """

    indices: npt.NDArray[np.int64]
    first: int
    last: int
    start: float | None
    end: float | None
    loops: float = 1.0


def resample(info: VideoInfo, fps: float | None) -> Samples:
    """Choose the source frames that are on screen at every k-th 1/fps of a second.

    The frame at time t is the last whose timestamp is at or before t, so videos of variable frame
    rate keep their speed. Frames are taken as they are, none dropped or repeated, when `fps` is
    None, when the source has no rate, or when the rates are within 1 % and the source is regular.

    Args:
        info: The video.
        fps: The rate of the samples, 0 to 1000 frames a second; None for the video's own.

    Raises:
        VideoError: The rate is outside its range.
    """
    if fps is not None and not 0 < fps <= MAX_FPS:
        raise VideoError(f"{fps:g} fps is no frame rate to sample at; expected 0 to {MAX_FPS:g}")
    every = np.arange(info.frames, dtype=np.int64)
    if info.times is None or info.fps is None or info.duration is None:
        note = f"{info.frames} frames, without a frame rate: taken as they are"
        return Samples(info, every, None, None, None, note)
    found = f"{info.frames} frames at {_rate(info.fps)} fps ({info.duration:.1f} s)"
    if fps is None or (abs(info.fps / fps - 1) <= SAME_RATE and _regular(info)):
        note = f"{found}, taken as they are"
        return Samples(info, every, info.times, info.duration, info.fps, note)
    count = max(int(info.duration * fps + _SLACK), 1)
    times = np.arange(count, dtype=np.float64) / fps
    indices = np.searchsorted(info.times, times + _SLACK, side="right") - 1
    uneven = "" if _regular(info) else " (uneven)"
    note = f"{found}{uneven}, resampled to {count} at {_rate(fps)} fps"
    return Samples(info, indices.astype(np.int64), times, count / fps, fps, note)


def clips(samples: Samples, frames: int, count: int = 1) -> list[Clip]:
    """Spread clips evenly over the video.

    One clip is the centre of the video; several start at even steps from its first frame to the
    last start that fits. A video shorter than a clip is looped as in the paper: "for shorter
    videos, we looped the video as many times as necessary" (arXiv:1705.07750, section 3).

    Args:
        samples: The video.
        frames: Frames of a clip.
        count: Clips wanted; fewer come back when the video has fewer different ones.
    """
    if frames < 1 or count < 1:
        raise VideoError(f"{count} clips of {frames} frames are wanted; expected 1 or more of both")
    spare = len(samples) - frames
    if spare <= 0:
        return [_clip(samples, 0, frames)]
    if count == 1:
        return [_clip(samples, spare // 2, frames)]
    starts = np.unique(np.rint(np.linspace(0, spare, count)).astype(int))
    return [_clip(samples, int(start), frames) for start in starts]


def clip_at(samples: Samples, first: int, frames: int) -> Clip:
    """Return the clip that starts at sample `first`, looped where the video ends before it does.

    Raises:
        VideoError: There is no such sample, or no frame is wanted.
    """
    if not 0 <= first < len(samples) or frames < 1:
        raise VideoError(
            f"a clip of {frames} frames from sample {first} is wanted; there are {len(samples)}"
        )
    return _clip(samples, first, frames)


def whole(samples: Samples, minimum: int) -> Clip:
    """Return the whole video as one clip, looped only when shorter than `minimum` frames."""
    return _clip(samples, 0, max(len(samples), minimum))


def windows(samples: Samples, frames: int, stride: int) -> list[Clip]:
    """Cover the video from its first sample to its last with windows.

    Args:
        samples: The video, at least `frames` long.
        frames: Frames of a window.
        stride: Frames from one start to the next; the last window is moved back to end with the
            video.
    """
    if stride < 1 or not 0 < frames <= len(samples):
        raise VideoError(
            f"windows of {frames} frames every {stride} do not fit {len(samples)} frames"
        )
    last = len(samples) - frames
    starts = [*range(0, last, stride), last]
    return [_clip(samples, start, frames) for start in starts]


def _clip(samples: Samples, first: int, frames: int) -> Clip:
    present = min(frames, len(samples) - first)
    positions = first + np.arange(frames) % present
    last = first + present - 1
    start = end = None
    if samples.times is not None and samples.duration is not None:
        start = float(samples.times[first])
        after = last + 1
        end = float(samples.times[after]) if after < len(samples) else samples.duration
    return Clip(samples.indices[positions], first, last, start, end, frames / present)


def _regular(info: VideoInfo) -> bool:
    """Tell whether no frame is half a frame away from where an even rate would put it."""
    if info.times is None or info.fps is None or info.frames < 2:
        return True
    even = np.linspace(0, info.times[-1], info.frames)
    return bool(np.abs(info.times - even).max() < 0.5 / info.fps)


def _rate(fps: float) -> str:
    return f"{fps:.2f}".rstrip("0").rstrip(".")
