"""Decode videos: files of any container that FFmpeg knows, animated WebP, images, NumPy arrays.

Frames are uint8, RGB [H, W, 3] or optical flow [H, W, 2]. `probe` counts and times the frames of a
video, `stream` yields wanted frames one at a time, and `read` returns them as one array.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from i3dzoo.errors import MissingFileError, VideoError
from i3dzoo.files import missing_error, open_input
from i3dzoo.video._arrays import SUFFIXES, Floats, probe_array, read_array
from i3dzoo.video._container import probe_container, read_container
from i3dzoo.video._webp import is_animated_webp, probe_webp, read_webp
from i3dzoo.video.frames import probe_folder, read_folder
from i3dzoo.video.info import Channels, Frames, Video, VideoInfo
from i3dzoo.video.series import FLOW_HELP


def probe(path: str | Path, channels: Channels = "rgb") -> VideoInfo:
    """Count and time the frames of a video.

    Args:
        path: A video file, a folder of numbered images (PNG, JPEG, BMP, WebP; see
            `i3dzoo.video.series`), or a .npy or .npz array [T, H, W, C] or [1, T, H, W, C]:
            uint8, or floats from -1 to 1 as in DeepMind's samples. A .npz file holds one array,
            or one named `rgb` or `flow`.
        channels: `rgb`, or `xy` for optical flow.

    Returns:
        The description; `warnings` says if a file is truncated or damaged in places.

    Raises:
        MissingFileError: The path does not exist.
        VideoError: It is not a video, has other channels, or none of its frames can be decoded.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise missing_error(path)
        if path.is_dir():
            return probe_folder(path, channels)
    except (OSError, ValueError) as error:
        if isinstance(error, MissingFileError | VideoError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise VideoError(f"{path}: cannot be read: {reason}") from error
    with open_input(path, VideoError) as file:
        if not file.read(1):
            raise VideoError(f"{path}: is empty")
    if path.suffix.lower() in SUFFIXES:
        return probe_array(path, channels)
    if channels == "xy":
        raise VideoError(
            f"{path}: is an RGB video, but the model takes optical flow; expected {FLOW_HELP}"
        )
    return probe_webp(path) if is_animated_webp(path) else probe_container(path)


def stream(
    info: VideoInfo, indices: Sequence[int] | npt.NDArray[np.int64], threads: int = 0
) -> Iterator[tuple[int, Frames]]:
    """Yield the wanted frames one by one, each index once, in increasing order.

    Args:
        info: Description from `probe`.
        indices: The wanted frames, in any order; repetitions are allowed.
        threads: Threads that decode a video file; 0 uses one for each processor.

    Yields:
        The index, and the frame as uint8 [H, W, C]; floats from -1 to 1 are rounded.

    Raises:
        VideoError: An index is outside the video, or the video changed since it was probed.
    """
    frames: Any = stream_exact(info, indices, threads)
    if not info.floats:
        return frames  # type: ignore[no-any-return] # frames of uint8
    return ((index, np.rint((frame + 1) * 127.5).astype(np.uint8)) for index, frame in frames)


def stream_exact(
    info: VideoInfo, indices: Sequence[int] | npt.NDArray[np.int64], threads: int = 0
) -> Iterator[tuple[int, Frames | Floats]]:
    """Yield frames as `stream` does, but floats as they are: float32 [H, W, C] from -1 to 1."""
    wanted = np.unique(np.asarray(indices, dtype=np.int64))
    if wanted.size and (wanted[0] < 0 or wanted[-1] >= info.frames):
        raise VideoError(
            f"{info.path}: has no frames {wanted[0]}..{wanted[-1]}; expected 0..{info.frames - 1}"
        )
    if info.source is not None:
        return info.source.read(wanted)
    if info.kind == "file":
        if is_animated_webp(info.path):
            return read_webp(info, wanted)
        return read_container(info, wanted, threads)
    return read_folder(info, wanted) if info.kind == "folder" else read_array(info, wanted)


def read(
    source: str | Path | VideoInfo,
    indices: Sequence[int] | npt.NDArray[np.int64] | None = None,
    channels: Channels = "rgb",
    threads: int = 0,
) -> Video:
    """Read frames of a video into one array.

    Args:
        source: A path, or its description from `probe`.
        indices: Frames to read, in this order and with these repetitions; None reads all frames.
        channels: `rgb`, or `xy` for optical flow; ignored if `source` is a description.
        threads: As in `stream`.

    Returns:
        The frames, uint8 [T, H, W, C].

    Raises:
        MissingFileError: The path does not exist.
        VideoError: As in `probe` and `stream`.
    """
    info = source if isinstance(source, VideoInfo) else probe(source, channels)
    chosen = np.arange(info.frames) if indices is None else np.asarray(indices, dtype=np.int64)
    depth = 3 if info.channels == "rgb" else 2
    frames = np.empty((len(chosen), info.height, info.width, depth), dtype=np.uint8)
    for index, frame in stream(info, chosen, threads):
        frames[chosen == index] = frame
    return Video(info, chosen, frames)
