"""Which frames each window of a video has: the rules, as arithmetic on numbers of frames."""

import numpy as np
import numpy.typing as npt

from i3dzoo.errors import VideoError
from i3dzoo.features.settings import Chunks, FeatureSettings, Pad
from i3dzoo.limits import MAX_WHOLE_PIXELS
from i3dzoo.video import sampling
from i3dzoo.video.plan import ZEROS
from i3dzoo.video.sampling import Clip, Samples

Indices = npt.NDArray[np.int64]


def window_starts(
    count: int,
    window: int,
    stride: int,
    settings: FeatureSettings = FeatureSettings(),  # noqa: B008 - it is frozen
) -> list[int]:
    """Return the first frame of each window of a video; it may lie before the video.

    Args:
        count: Frames of the video.
        window: Frames of a window.
        stride: Frames from one window to the next.
        settings: The fields `align`, `pad`, `tail` and `lookahead` apply.
    """
    usable = count - settings.lookahead
    if usable < 1:
        return [0] if settings.pad != "none" and count else []
    if settings.align == "center":
        starts = [place - window // 2 for place in range(0, usable, stride)]
        if settings.pad == "none":
            starts = [start for start in starts if 0 <= start <= usable - window]
        return starts
    last = usable - window
    if last < 0:
        return [] if settings.pad == "none" else [0]
    starts = list(range(0, last + 1, stride))
    if settings.tail == "flush" and starts[-1] < last:
        starts.append(last)
    elif settings.tail == "pad" and starts[-1] < last:
        starts.append(starts[-1] + stride)
    return starts


def window_frames(start: int, window: int, count: int, pad: Pad) -> Indices:
    """Return the frames of a window, int64 [window]; `ZEROS` stands for a frame of zeros.

    Args:
        start: First frame, which may lie before the video.
        window: Frames of the window.
        count: Frames of the video, 1 or more.
        pad: What stands for frames outside of the video; `none` needs a window without any.
    """
    places = start + np.arange(window, dtype=np.int64)
    if pad == "edge":
        return np.clip(places, 0, count - 1)
    if pad == "zero":
        return np.where((places < 0) | (places >= count), ZEROS, places)
    return places % count


def chunk_frames(count: int, chunks: Chunks) -> list[tuple[int, int]]:
    """Return the first frame of each part of a video, and the frame after its last one."""
    if count <= chunks.frames:
        return [(0, count)]
    return [
        (
            max(chunks.skip, start - chunks.before),
            min(count - chunks.skip, start + chunks.frames + chunks.after),
        )
        for start in range(chunks.skip, count - chunks.after, chunks.frames)
    ]


def plan_clips(
    samples: Samples, settings: FeatureSettings, window: int, min_frames: int, crop: int
) -> list[Clip]:
    """Return the windows of a video.

    Args:
        samples: The video at the rate of the network.
        settings: How the video is cut into windows.
        window: Frames of a window that `settings` does not set.
        min_frames: Frames of the shortest clip that the network takes.
        crop: Edge of the network's input in pixels.

    Raises:
        VideoError: The whole video is too long for one window.
    """
    count = len(samples)
    if settings.window == "all":
        parts = chunk_frames(count, settings.chunks) if settings.chunks else [(0, count)]
        return [
            clip_of(samples, start, max(stop - start, min_frames), settings.pad)
            for start, stop in parts
            if _fits(samples, stop - start, crop)
            and (stop - start >= min_frames or settings.pad != "none")
        ]
    frames = settings.window or window
    starts = window_starts(count, frames, settings.stride or frames, settings)
    return [clip_of(samples, start, frames, settings.pad, settings.lookahead) for start in starts]


def clip_of(samples: Samples, start: int, frames: int, pad: Pad, lookahead: int = 0) -> Clip:
    """Return the clip that starts at a sample, which may lie before the first."""
    count = max(len(samples) - lookahead, 1)
    places = window_frames(start, frames, count, pad)
    real = places[places != ZEROS]
    inside = np.clip([start, start + frames - 1], 0, count - 1)
    first, last = (
        (int(inside[0]), int(inside[1]))
        if pad != "loop"
        else (
            int(real.min()),
            int(real.max()),
        )
    )
    begin, end = sampling.time_span(samples, first, last)
    indices = np.where(places == ZEROS, ZEROS, samples.indices[places])
    outside = frames - int(inside[1] - inside[0] + 1)
    return Clip(indices, first, last, begin, end, frames / max(frames - outside, 1))


def _fits(samples: Samples, frames: int, crop: int) -> bool:
    most = MAX_WHOLE_PIXELS // crop**2
    if frames > most:
        raise VideoError(
            f"{samples.info.path}: has {len(samples):,} frames; a whole video of {crop}x{crop} "
            f"pixels can have at most {most:,}: set a window"
        )
    return True
