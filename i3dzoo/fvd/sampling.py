"""Choose the videos of a set and the frames of their clips, as a protocol says."""

import numpy as np

from i3dzoo.errors import VideoError
from i3dzoo.fvd.protocol import Protocol


def choose_videos(count: int, protocol: Protocol) -> list[int]:
    """Return the numbers of the videos that are taken of a set, drawn without repetition."""
    if protocol.videos is None or protocol.videos >= count:
        return list(range(count))
    random = np.random.default_rng(protocol.seed)
    return sorted(random.choice(count, protocol.videos, replace=False).tolist())


def clip_indices(name: str, frames: int, number: int, protocol: Protocol) -> list[list[int]]:
    """Return the frames of each clip of a video; none if it is short and short ones are skipped.

    Args:
        name: What messages call the video.
        frames: Number of its frames.
        number: Its number in the set, from which random offsets are drawn.
        protocol: The sampling.

    Raises:
        VideoError: The video is shorter than a clip, and the protocol refuses that.
    """
    spare = frames - protocol.span
    if spare < 0:
        if protocol.short_videos == "skip":
            return []
        every = f", every {protocol.every}th frame," if protocol.every > 1 else ""
        raise VideoError(
            f"{name}: has {frames} frames; a clip of {protocol.frames}{every} needs "
            f"{protocol.span}: take fewer with --frames, or leave short videos out with "
            "--short-videos skip"
        )
    count = protocol.clips_per_video
    if protocol.offset == "start":
        starts = [0]
    elif protocol.offset == "random":
        random = np.random.default_rng([protocol.seed, number])
        starts = random.integers(0, spare + 1, count).tolist()
    elif count == 1:
        starts = [spare // 2]
    else:
        starts = np.rint(np.linspace(0, spare, count)).astype(int).tolist()
    return [
        [start + place * protocol.every for place in range(protocol.frames)] for start in starts
    ]
