"""Write videos that every browser plays: H.264 of a moderate size, with the times of the source."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import av.error
import numpy as np
import numpy.typing as npt

from i3dzoo.errors import I3DZooError, VideoError
from i3dzoo.progress import SILENT, Progress
from i3dzoo.video import Frames, VideoInfo, stream

FPS: Final = 25.0  # of frames without a rate, as in labelled videos
_SHORT_SIDE: Final = 360  # pixels
_TIME_BASE: Final = Fraction(1, 90_000)
_OPTIONS: Final = {"preset": "veryfast", "crf": "23", "g": "12"}

Seconds = npt.NDArray[np.float64]


def frame_times(info: VideoInfo) -> Seconds:
    """Return the time of each frame in seconds, float64 [frames]; 25 fps if they have no rate."""
    return np.arange(info.frames) / FPS if info.times is None else info.times


def duration(info: VideoInfo) -> float:
    """Return how many seconds a video lasts on the page."""
    return info.frames / FPS if info.duration is None else info.duration


def write_preview(info: VideoInfo, path: Path, progress: Progress = SILENT) -> Path:
    """Write the frames that i3dzoo decodes of an RGB video, as the browser shows them."""
    progress.start(f"reading {info.path.name}", info.frames, "items")

    def frames() -> Iterable[tuple[float, Frames]]:
        for index, frame in stream(info, range(info.frames)):
            progress.update(index)
            yield float(times[index]), frame

    times = frame_times(info)
    return encode(frames(), path, duration(info))


def encode(frames: Iterable[tuple[float, Frames]], path: Path, end: float) -> Path:
    """Write frames, RGB uint8 [H, W, 3] of one size, at rising times in seconds; `end` is the last.

    Raises:
        VideoError: PyAV has no H.264 encoder, or encoding failed.
    """
    part = path.with_name(f".{path.name}")
    try:
        # by its name, since FFmpeg opens it again to move the index to the front
        with av.open(str(part), "w", "mp4", options={"movflags": "+faststart"}) as container:
            _mux(container, frames, end)
        part.replace(path)
    except I3DZooError:
        raise  # of the frames; it is a ValueError, too
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(
            f"{path.name}: cannot be encoded for the browser: {error}; install PyAV from its "
            "wheel, which has H.264"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _mux(container: Any, frames: Iterable[tuple[float, Frames]], end: float) -> None:
    output: Any = None
    last = -1
    for time, pixels in frames:
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        if output is None:
            output = container.add_stream("libx264", rate=Fraction(25), options=dict(_OPTIONS))
            output.height, output.width = _size(*pixels.shape[:2])
            output.pix_fmt = "yuv420p"
            output.codec_context.time_base = _TIME_BASE
        small = picture.reformat(output.width, output.height, "yuv420p")
        # times may be equal in damaged files; in MP4 they rise
        last = small.pts = max(round(time / _TIME_BASE), last + 1)
        small.time_base = _TIME_BASE
        for packet in output.encode(small):
            container.mux(packet)
    if output is None:
        raise VideoError("the video has no frames")
    for packet in output.encode(None):
        # the last frame is shown until the end
        packet.duration = max(round(end / _TIME_BASE) - last, 1) if packet.pts == last else 0
        container.mux(packet)


def _size(height: int, width: int) -> tuple[int, int]:
    """Return the even height and width of a preview."""
    scale = min(_SHORT_SIDE / min(height, width), 1920 / max(height, width), 1.0)
    return max(2 * round(height * scale / 2), 2), max(2 * round(width * scale / 2), 2)
