"""Reading video: files of any container that FFmpeg knows, folders of images, NumPy arrays.

Frames are uint8, RGB [H, W, 3] or optical flow [H, W, 2]. `probe` counts and times the frames of a
video; `stream` yields the ones that are wanted, one at a time; `read` gathers them in one array.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from i3dzoo.errors import MissingFileError, VideoError
from i3dzoo.video import _container, _frames
from i3dzoo.video.records import Channels, Frames, Video, VideoInfo

__all__ = ["probe", "read", "stream"]


def probe(path: str | Path, channels: Channels = "rgb") -> VideoInfo:
    """Count and time the frames of a video.

    Args:
        path: A video file, a folder of images sorted by name (PNG, JPEG, BMP, WebP; or TAO's
            rgb/, or u/ and v/ for flow), or a .npy array uint8 [T, H, W, C].
        channels: What is wanted: `rgb`, or `xy` for optical flow.

    Returns:
        The record; a file that is cut short or damaged in places says so in `warnings`.

    Raises:
        MissingFileError: There is nothing at this path.
        VideoError: It is no video, holds none of what is wanted, or no frame of it decodes.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise MissingFileError(f"{path}: no such file or folder")
        if path.is_dir():
            return _frames.probe_folder(path, channels)
        if not path.is_file():
            raise VideoError(f"{path}: is no regular file")
        with path.open("rb") as file:
            if not file.read(1):
                raise VideoError(f"{path}: is empty")
    except PermissionError as error:
        raise VideoError(f"{path}: may not be read: permission denied") from error
    except (OSError, ValueError) as error:
        if isinstance(error, MissingFileError | VideoError):
            raise
        raise VideoError(f"{path}: cannot be read: {error}") from error
    if path.suffix.lower() == ".npy":
        return _frames.probe_array(path, channels)
    if channels == "xy":
        raise VideoError(
            f"{path}: is an RGB video, and the model takes optical flow: give {_frames.FLOW_HELP}"
        )
    return _container.probe_container(path)


def stream(
    info: VideoInfo, indices: Sequence[int] | npt.NDArray[np.int64], threads: int = 0
) -> Iterator[tuple[int, Frames]]:
    """Yield the wanted frames one by one, each index once, in rising order.

    Args:
        info: What `probe` returned.
        indices: The wanted frames, in any order, repeated or not.
        threads: That decode a video file; 0 for as many as there are processors.

    Yields:
        The index, and the frame as uint8 [H, W, C].

    Raises:
        VideoError: An index is outside the video, or the video changed since it was probed.
    """
    wanted = np.unique(np.asarray(indices, dtype=np.int64))
    if wanted.size and (wanted[0] < 0 or wanted[-1] >= info.frames):
        raise VideoError(
            f"{info.path}: frames {wanted[0]}..{wanted[-1]} are wanted; it has {info.frames}"
        )
    if info.kind == "file":
        return _container.read_container(info, wanted, threads)
    readers = {
        "folder": _frames.read_folder,
        "npy": _frames.read_array,
    }
    return readers[info.kind](info, wanted)


def read(
    source: str | Path | VideoInfo,
    indices: Sequence[int] | npt.NDArray[np.int64] | None = None,
    channels: Channels = "rgb",
    threads: int = 0,
) -> Video:
    """Read frames of a video into one array.

    Args:
        source: The path, or what `probe` returned for it.
        indices: Which frames, in the order wanted and repeated as wanted; None reads all of them.
        channels: `rgb`, or `xy` for optical flow; ignored when `source` is a record.
        threads: As in `stream`.

    Returns:
        The frames, uint8 [T, H, W, C].

    Raises:
        MissingFileError: There is nothing at this path.
        VideoError: As `probe` and `stream`.
    """
    info = source if isinstance(source, VideoInfo) else probe(source, channels)
    chosen = np.arange(info.frames) if indices is None else np.asarray(indices, dtype=np.int64)
    depth = 3 if info.channels == "rgb" else 2
    frames = np.empty((len(chosen), info.height, info.width, depth), dtype=np.uint8)
    for index, frame in stream(info, chosen, threads):
        frames[chosen == index] = frame
    return Video(info, chosen, frames)
