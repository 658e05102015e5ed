"""Frames by time, without counting a file from its start: for a clip deep in a long video."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from i3dzoo.errors import MissingFileError, VideoError
from i3dzoo.video._container import decode, has_display_times, open_video, stamp, to_array
from i3dzoo.video.records import Frames
from i3dzoo.video.sampling import MAX_FPS

__all__ = ["TimedFrames", "read_at"]

_SLACK = 1e-6  # seconds; as in sampling
_STEPS_BACK = (0.0, 2.0, 15.0)  # seconds; some containers land after the time that was asked for

_Stamped = tuple[float, av.VideoFrame]


@dataclass(frozen=True, eq=False)
class TimedFrames:
    """Frames of a stretch of a video.

    Attributes:
        path: The video.
        frames: uint8 RGB [T, H, W, 3].
        times: Seconds since the first frame of the video of each, float64 [T].
    """

    path: Path
    frames: Frames
    times: npt.NDArray[np.float64]


def read_at(
    path: str | Path, start: float, frames: int = 64, fps: float | None = 25.0, threads: int = 0
) -> TimedFrames:
    """Read the frames that are on screen at `start`, `start + 1/fps`, ...

    Decoding begins at the last keyframe before `start`, so that the time this takes does not grow
    with what lies before. A file whose frames carry no times of display (AVI with B-frames, raw
    streams) is counted from its first frame at its declared rate.

    Args:
        path: A video file.
        start: Seconds since its first frame; 0 or more.
        frames: How many; fewer come back where the video ends before.
        fps: Frames a second; None for every frame of the video from the one at `start`.
        threads: As in `stream`.

    Raises:
        MissingFileError: There is no such file.
        VideoError: It is no video, or it ends before `start`.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    if not start >= 0 or frames < 1 or (fps is not None and not 0 < fps <= MAX_FPS):
        raise VideoError(
            f"{path}: {frames} frames from {start:g} s at {fps} fps are wanted; expected 1 frame "
            f"or more, 0 s or later, and 0 to {MAX_FPS:g} fps"
        )
    images: list[Frames] = []
    times: list[float] = []
    reformatter = VideoReformatter()
    first: Frames | None = None
    with open_video(path, threads) as (container, stream):
        for time, frame in _on_screen(_from(container, stream, start), start, frames, fps):
            if images and times[-1] == time:
                images.append(images[-1])
            else:
                image = to_array(frame, reformatter, None)
                first = image if first is None else first
                if image.shape != first.shape:
                    raise VideoError(
                        f"{path}: its frames change size at {time:.2f} s; probe and read scale them"
                    )
                images.append(image)
            times.append(time)
    if not images:
        raise VideoError(f"{path}: ends before {start:g} s")
    return TimedFrames(path, np.stack(images), np.asarray(times, dtype=np.float64))


def _on_screen(
    stamped: Iterator[_Stamped], start: float, count: int, fps: float | None
) -> Iterator[_Stamped]:
    """Yield the frame that is on screen at each wanted time, with the frame's own time."""
    target, shown = start, 0
    length = 0.04  # seconds that the last frame lasts: as long as the one before it
    current: _Stamped | None = None
    for following in stamped:
        if current is None:
            current = following
            continue
        length = following[0] - current[0]
        while shown < count and following[0] > target + _SLACK:
            yield current
            shown += 1
            if fps is None:
                target = following[0]
                break
            target = start + shown / fps
        if shown == count:
            return
        current = following
    while current is not None and shown < count and target + _SLACK < current[0] + length:
        yield current
        shown += 1
        if fps is None:
            return
        target = start + shown / fps


def _from(container: Any, stream: Any, start: float) -> Iterator[_Stamped]:
    """Yield frames and their times, the first at or before `start` where the video has one."""
    rate = stream.average_rate or stream.guessed_rate
    if not has_display_times(container, stream):
        yield from _counted(decode(container, stream), float(rate or 25))
        return
    frames = decode(container, stream)
    head = next(frames, None)
    origin = None if head is None else stamp(head)
    if head is None:
        return
    if origin is None:
        yield from _counted(itertools.chain([head], frames), float(rate or 25))
        return
    if start > 1.0:
        for back in _STEPS_BACK:
            found = _seek(container, stream, origin, start, back)
            if found is not None:
                yield from found
                return
        container.seek(head.pts, stream=stream)
        frames, head = decode(container, stream), None
    for frame in frames if head is None else itertools.chain([head], frames):
        time = stamp(frame)
        if time is not None:
            yield time - origin, frame


def _seek(
    container: Any, stream: Any, origin: float, start: float, back: float
) -> Iterator[_Stamped] | None:
    """Seek to the keyframe before a time; None where what comes begins after it."""
    wanted = max(start - back, 0.0) + origin
    try:
        container.seek(int(wanted / stream.time_base), stream=stream)
    except (av.error.FFmpegError, OSError):
        return None
    # What precedes the first keyframe lacks the frames it refers to.
    frames = itertools.dropwhile(lambda frame: not frame.key_frame, decode(container, stream))
    stamped = ((time - origin, frame) for frame in frames if (time := stamp(frame)) is not None)
    first = next(stamped, None)
    if first is None or first[0] > start + _SLACK:
        return None
    return itertools.chain([first], stamped)


def _counted(frames: Iterator[av.VideoFrame], rate: float) -> Iterator[_Stamped]:
    for number, frame in enumerate(frames):
        yield number / rate, frame
