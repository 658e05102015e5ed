"""Choose the frames of clips: resample in time, spread clips, loop short videos, cut windows.

This is arithmetic on a `VideoInfo`; no frame is decoded.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from i3dzoo.errors import VideoError
from i3dzoo.limits import MAX_FPS, MAX_FRAMES, MAX_SECONDS_A_FRAME, MAX_WHOLE_PIXELS
from i3dzoo.video.info import VideoInfo

SAME_RATE = 0.01
"""Rates that differ by at most 1 % are treated as the same, such as 25 and 24.975 fps."""

_SLACK = 1e-6  # seconds; k / fps can be slightly less than a timestamp, which is a fraction


@dataclass(frozen=True, eq=False)
class Samples:
    """A video at the frame rate of the network, as indices of source frames.

    Attributes:
        info: Description of the video.
        indices: Source frame of each sample, int64 [N], not decreasing.
        times: Seconds since the first frame, float64 [N]; None if the source has no rate.
        duration: Seconds that the samples cover; None if the source has no rate.
        fps: Samples per second; None if the source has no rate.
        note: How the video was resampled, in a few words.
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
    """The frames of one window of a video, an input of the network.

    Attributes:
        indices: Source frames, int64 [T], in the order of the clip.
        first: Sample of the first frame.
        last: Sample of the last distinct frame.
        start: Seconds at which the clip starts; None if the source has no rate.
        end: Seconds at which the last frame ends; None if the source has no rate.
        loops: How often the video is played to fill the clip, such as 1 or 2.5 times.
    """

    indices: npt.NDArray[np.int64]
    first: int
    last: int
    start: float | None
    end: float | None
    loops: float = 1.0


def resample(info: VideoInfo, fps: float | None) -> Samples:
    """Choose the source frames that are on screen at the times 0, 1/fps, 2/fps and so on.

    The frame at time t is the last one with a timestamp of at most t, so videos of variable frame
    rate keep their speed. All frames are taken once if `fps` is None, if the source has no rate, or
    if the rates differ by at most 1 % and the frames are evenly spaced.

    Args:
        info: Description of the video.
        fps: Samples per second, 0 to 1000; None for the video's own rate.

    Raises:
        VideoError: The rate is outside its range, or the video has too many samples at this rate.
    """
    if fps is not None and not 0 < fps <= MAX_FPS:
        raise VideoError(f"expected a frame rate of 0 to {MAX_FPS:g} fps, found {fps:g}")
    indices = np.arange(info.frames, dtype=np.int64)
    if info.times is None or info.fps is None or info.duration is None:
        note = f"{info.frames} frames, without a frame rate: taken as they are"
        return Samples(info, indices, None, None, None, note)
    source = f"{info.frames} frames at {_rate(info.fps)} fps ({info.duration:.1f} s)"
    if fps is None or (abs(info.fps / fps - 1) <= SAME_RATE and _regular(info)):
        note = f"{source}, taken as they are"
        return Samples(info, indices, info.times, info.duration, info.fps, note)
    # A few frames over a very long time would be repeated for it.
    most = min(MAX_FRAMES, int(info.frames * MAX_SECONDS_A_FRAME * fps) + 1)
    count = max(int(info.duration * fps + _SLACK), 1)
    if count > most:
        raise VideoError(
            f"{info.path}: {info.frames} frames over {info.duration:,.0f} s make {count:,} samples "
            f"at {_rate(fps)} fps; expected at most {most:,}: encode it again at an even frame rate"
        )
    times = np.arange(count, dtype=np.float64) / fps
    indices = np.searchsorted(info.times, times + _SLACK, side="right") - 1
    uneven = "" if _regular(info) else " (uneven)"
    note = f"{source}{uneven}, resampled to {count} at {_rate(fps)} fps"
    return Samples(info, indices.astype(np.int64), times, count / fps, fps, note)


def segment(samples: Samples, start: float | None, end: float | None) -> Samples:
    """Return the samples from `start` to before `end`, in seconds; at least one sample.

    Raises:
        VideoError: The video has no frame rate, or ends before `start`.
    """
    if start is None and end is None:
        return samples
    if samples.times is None or samples.duration is None:
        raise VideoError(
            f"{samples.info.path}: has no frame rate; expected one for a segment in seconds"
        )
    first, last = start or 0.0, min(samples.duration if end is None else end, samples.duration)
    if first >= samples.duration:
        raise VideoError(
            f"{samples.info.path}: is {samples.duration:.1f} s long; expected a segment that "
            f"starts before its end, found one that starts at {first:g} s"
        )
    begin, stop = np.searchsorted(samples.times, [first - _SLACK, last - _SLACK]).tolist()
    begin = min(begin, len(samples) - 1)
    stop = max(stop, begin + 1)
    note = f"{samples.note}, from {first:g} to {last:g} s"
    return replace(
        samples,
        indices=samples.indices[begin:stop],
        times=samples.times[begin:stop],
        duration=last,
        note=note,
    )


def clips(
    samples: Samples,
    frames: int,
    count: int = 1,
    sampling: Literal["consecutive", "interval"] = "consecutive",
) -> list[Clip]:
    """Spread clips evenly over the video.

    One clip is the centre of the video. Several clips start at even steps, from the first frame to
    the last start that fits. A video shorter than a clip is looped as in the paper: "for shorter
    videos, we looped the video as many times as necessary" (arXiv:1705.07750, section 3).

    Args:
        samples: The video.
        frames: Frames of a clip.
        count: Number of clips; a video with fewer different clips gives fewer.
        sampling: `consecutive` frames; or `interval`: each clip has one frame from each of `frames`
            equal parts of the video. One clip has the middle frames of the parts; of several, each
            begins elsewhere in the first part.

    Raises:
        VideoError: `frames` or `count` is less than 1.
    """
    if frames < 1 or count < 1:
        raise VideoError(f"expected 1 clip and 1 frame or more, found {count} clips of {frames}")
    spare = len(samples) - frames
    if sampling == "interval":
        step = len(samples) // frames
        if count == 1 or step < 2:
            return [interval_clip(samples, frames)]
        offsets = np.unique(np.rint(np.linspace(0, step - 1, count)).astype(int)).tolist()
        return [interval_clip(samples, frames, offset) for offset in offsets]
    if spare <= 0:
        return [_clip(samples, 0, frames)]
    if count == 1:
        return [_clip(samples, spare // 2, frames)]
    steps = np.linspace(0, spare, min(count, spare + 1))
    starts = np.unique(np.rint(steps).astype(int))
    return [_clip(samples, int(start), frames) for start in starts]


def looped_note(samples: Samples, clip: Clip) -> str:
    """Say how a clip of a shorter video is filled."""
    return f"{len(samples)} frames looped {clip.loops:.3g}x to fill a clip of {len(clip.indices)}"


def interval_clip(
    samples: Samples, frames: int, place: int | Callable[[int], int] | None = None
) -> Clip:
    """Return a clip of one frame from each of `frames` equal parts of the video.

    This is the sampling of NVIDIA TAO's `random_interval`. `place` is that of each frame in
    its part, or draws one of 0..n-1 for each frame; None takes the middle of each part. Of a video
    with fewer samples, some are taken several times.
    """
    count, step = len(samples), len(samples) // frames
    if place is None or (isinstance(place, int) and not step):
        part = count / frames
        positions = np.array([int(part / 2 + part * number) for number in range(frames)])
    elif isinstance(place, int):
        positions = np.arange(frames) * step + place
    elif step:
        positions = np.array([number * step + place(step) for number in range(frames)])
    else:
        positions = np.sort([place(count) for _ in range(frames)])
    first, last = int(positions[0]), int(positions[-1])
    start, end = time_span(samples, first, last)
    return Clip(samples.indices[positions], first, last, start, end)


def clip_at(samples: Samples, first: int, frames: int) -> Clip:
    """Return the clip that starts at sample `first`, looped if the video ends before it.

    Raises:
        VideoError: There is no such sample, or `frames` is less than 1.
    """
    if not 0 <= first < len(samples) or frames < 1:
        raise VideoError(
            f"expected 1 frame or more from one of {len(samples)} samples, "
            f"found {frames} frames from sample {first}"
        )
    return _clip(samples, first, frames)


def whole(samples: Samples, minimum: int, crop: int) -> Clip:
    """Return the whole video as one clip, looped only if it has fewer than `minimum` frames.

    Raises:
        VideoError: The clip of crop x crop pixels would be too large for the memory.
    """
    most = MAX_WHOLE_PIXELS // crop**2
    if len(samples) > most:
        raise VideoError(
            f"{samples.info.path}: has {len(samples):,} frames; a whole video of {crop}x{crop} "
            f"pixels can have at most {most:,}: use several clips or windows instead"
        )
    return _clip(samples, 0, max(len(samples), minimum))


def windows(samples: Samples, frames: int, stride: int) -> list[Clip]:
    """Cover the video from its first to its last sample with windows.

    Args:
        samples: The video, with at least `frames` samples.
        frames: Frames of a window.
        stride: Frames from one start to the next; the last window is moved back to end with the
            video.

    Raises:
        VideoError: The video is shorter than a window, or `stride` is less than 1.
    """
    if stride < 1 or not 0 < frames <= len(samples):
        raise VideoError(
            f"windows of {frames} frames with a stride of {stride} do not fit into "
            f"{len(samples)} frames"
        )
    last = len(samples) - frames
    starts = [*range(0, last, stride), last]
    return [_clip(samples, start, frames) for start in starts]


def _clip(samples: Samples, first: int, frames: int) -> Clip:
    present = min(frames, len(samples) - first)
    positions = first + np.arange(frames) % present
    last = first + present - 1
    start, end = time_span(samples, first, last)
    return Clip(samples.indices[positions], first, last, start, end, frames / present)


def time_span(samples: Samples, first: int, last: int) -> tuple[float | None, float | None]:
    """Return the seconds at which a sample starts and another one ends."""
    if samples.times is None or samples.duration is None:
        return None, None
    after = last + 1
    end = float(samples.times[after]) if after < len(samples) else samples.duration
    return float(samples.times[first]), end


def _regular(info: VideoInfo) -> bool:
    """Whether every frame is less than half a frame away from its place at an even rate."""
    if info.times is None or info.fps is None or info.frames < 2:
        return True
    even = np.linspace(0, info.times[-1], info.frames)
    return bool(np.abs(info.times - even).max() < 0.5 / info.fps)


def _rate(fps: float) -> str:
    return f"{fps:.2f}".rstrip("0").rstrip(".")
