"""Video files through PyAV: every frame that decodes, in display order, with its time."""

import bisect
import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from i3dzoo.errors import MissingFileError, VideoError
from i3dzoo.video.records import Frames, VideoInfo

__all__ = [
    "MAX_PIXELS",
    "decode",
    "has_display_times",
    "open_video",
    "probe_container",
    "read_container",
    "stamp",
    "to_array",
]

MAX_PIXELS = 1 << 26
"""Largest frame that is decoded (8192 x 8192): a small file can declare an absurdly large one."""

# Named, because FFmpeg also opens playlists, which lead to other files and to the network, and
# takes plain text for a video of a terminal.
_FORMATS = (
    "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif,apng,asf,flv,mpeg,mpegts,mpegvideo,m4v,mjpeg,"
    "h264,hevc,av1,obu,ivf,ogg,rm,dv,nut,mxf,yuv4mpegpipe,swf,wtv,nsv,vob"
)

_WORTH = 8  # frames that are decoded sooner than skipped over

_MAX_SECONDS_A_FRAME = 20.0  # beyond it the timestamps are taken for broken, not for a slideshow


@dataclass
class _Report:
    """What went wrong while a file was decoded; filled by `decode`."""

    # Whether the last packet lacks bytes, or the file could not be read on after it, is `partial`.
    packets: int = 0
    broken: int = 0
    end: float = 0.0
    partial: bool = False


def probe_container(path: Path) -> VideoInfo:
    """Decode a video file once, without converting a pixel, and count what is there.

    Raises:
        MissingFileError: It is not there.
        VideoError: It is no video, or no frame of it decodes.
    """
    info = _probe(path, threads=0)
    if info is None or info.warnings:
        # Of a damaged file several threads drop other frames each time.
        info = _probe(path, threads=1)
    if info is None:
        raise VideoError(f"{path}: no frame of it can be decoded; the file is damaged or empty")
    return info


def _probe(path: Path, threads: int) -> VideoInfo | None:
    """Decode a file once; None where no frame of it decodes."""
    report = _Report()
    stamps: list[float | None] = []
    keys: list[tuple[int, int | None]] = []
    with open_video(path, threads) as (container, stream):
        height = width = 0
        for frame in decode(container, stream, report):
            if not stamps:
                height, width = frame.height, frame.width
                if _quarter_turns(frame) % 2:
                    height, width = width, height
            if frame.key_frame:
                keys.append((len(stamps), frame.pts))
            stamps.append(stamp(frame))
        if not stamps:
            return None
        declared = float(stream.average_rate or stream.guessed_rate or 0) or None
        truncated = _ends_early(stream, report) or (
            container.format.name == "gif" and _lacks_trailer(path)
        )
        seekable = not truncated and not report.broken and has_display_times(container, stream)
    times, fps = _times(stamps, declared)
    warnings = []
    if truncated:
        warnings.append(f"the file ends early; the {len(stamps)} frames that are there are used")
    elif report.broken:
        warnings.append(f"the file is damaged; {report.broken} frames or packets were left out")
    keyframes = _keyframes(stamps, keys) if seekable else ()
    size = len(stamps), height, width
    return VideoInfo(path, "file", "rgb", *size, fps, times, truncated, tuple(warnings), keyframes)


def read_container(
    info: VideoInfo, wanted: npt.NDArray[np.int64], threads: int = 0
) -> Iterator[tuple[int, Frames]]:
    """Yield (index, uint8 [H, W, 3]) of the wanted frames, whose indices rise, as they decode.

    Only wanted frames are converted to RGB, one is held at a time, decoding stops at the last, and
    where the video has keyframes it skips to the one before a wanted frame.

    Raises:
        VideoError: The file holds fewer frames than when it was probed.
    """
    reformatter = VideoReformatter()
    pending = iter(wanted.tolist())
    target = next(pending, None)
    with open_video(info.path, 1 if info.warnings else threads) as (container, stream):
        position = 0
        frames = decode(container, stream)
        while target is not None:
            if (key := _key_before(info, target)) is not None and key[0] > position + _WORTH:
                position, frames = _skip(info, container, stream, key)
            frame = next(itertools.islice(frames, target - position, None), None)
            if frame is None:
                raise VideoError(
                    f"{info.path}: frame {target} is gone; the file changed while being read"
                )
            position = target + 1
            yield target, to_array(frame, reformatter, info)
            target = next(pending, None)


def _key_before(info: VideoInfo, target: int) -> tuple[int, int] | None:
    place = bisect.bisect_right(info.keyframes, target, key=lambda key: key[0])
    return info.keyframes[place - 1] if place else None


def _skip(
    info: VideoInfo, container: Any, stream: Any, key: tuple[int, int]
) -> tuple[int, Iterator[av.VideoFrame]]:
    """Seek to a keyframe; where that does not lead exactly there, to the first frame."""
    container.seek(key[1], stream=stream)
    frames = decode(container, stream)
    for frame in frames:
        # Frames before the keyframe belong to the group before it and lack what they refer to.
        if frame.pts is not None and frame.pts >= key[1]:
            if frame.pts == key[1]:
                return key[0], itertools.chain([frame], frames)
            break
    container.seek(info.keyframes[0][1], stream=stream)
    return 0, decode(container, stream)


def to_array(frame: av.VideoFrame, reformatter: VideoReformatter, info: VideoInfo | None) -> Frames:
    """Convert a decoded frame of any pixel format to uint8 RGB [H, W, 3], turned upright.

    Transparent pixels are laid over white. Where the size changes within a video, later frames
    are scaled to the size of the first.

    Raises:
        VideoError: FFmpeg cannot convert the pixel format.
    """
    turns = _quarter_turns(frame)
    width, height = frame.width, frame.height
    if info is not None:
        width, height = (info.height, info.width) if turns % 2 else (info.width, info.height)
    clear = frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components)
    try:
        made = reformatter.reformat(frame, width, height, "rgba" if clear else "rgb24").to_ndarray()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{'a frame' if info is None else info.path}: pixels of the format {frame.format.name} "
            f"cannot be converted to RGB ({_reason(error)}); encode it anew with ffmpeg"
        ) from error
    image = np.asarray(made, dtype=np.uint8)
    if clear:
        image = _over_white(image)
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _over_white(image: Frames) -> Frames:
    alpha = image[..., 3:].astype(np.uint16)
    if alpha.min() == 255:
        return np.ascontiguousarray(image[..., :3])
    mixed = image[..., :3] * alpha + 255 * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def stamp(frame: av.VideoFrame) -> float | None:
    """Return the frame's own time in seconds; None where it has none."""
    if frame.pts is None or not frame.time_base:
        return None
    return float(frame.pts * frame.time_base)


def _quarter_turns(frame: av.VideoFrame) -> int:
    return round(frame.rotation / 90) % 4


def _open(path: Path) -> Any:
    options: dict[str, Any] = {
        "container_options": {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    }
    # Real files (HMDB51's) hold metadata that is not UTF-8; PyAV 19 reads it by itself.
    if int(av.__version__.split(".")[0]) < 19:
        options["metadata_errors"] = "ignore"
    try:
        return av.open(f"file:{path.absolute()}", "r", **options)
    except FileNotFoundError as error:
        link = f"is a link to {path.readlink()}, which " if path.is_symlink() else ""
        raise MissingFileError(f"{path}: {link}is not there") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path}: is no video that FFmpeg can read ({_reason(error)}); "
            "check that the file is whole"
        ) from error


@contextlib.contextmanager
def open_video(path: Path, threads: int = 0) -> Iterator[tuple[Any, Any]]:
    """Open a file and its video stream; both are closed when the block ends.

    Args:
        path: The file.
        threads: That decode; 0 for as many as there are processors.

    Raises:
        MissingFileError: It is not there.
        VideoError: It is no video.
    """
    with _open(path) as container:
        stream = _video_stream(path, container)
        if threads:
            stream.codec_context.thread_count = threads
        else:
            stream.thread_type = "AUTO"
        yield container, stream


def has_display_times(container: Any, stream: Any) -> bool:
    """Tell whether frames carry the times they are shown at: an AVI with B-frames does not."""
    return not (container.format.name == "avi" and stream.codec_context.has_b_frames)


def _keyframes(
    stamps: list[float | None], keys: list[tuple[int, int | None]]
) -> tuple[tuple[int, int], ...]:
    """Return the keyframes, if times rise strictly: a frame is known by its time alone."""
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) < len(stamps) or any(a >= b for a, b in itertools.pairwise(known)):
        return ()
    if not keys or keys[0][0] != 0:
        return ()
    return tuple((index, pts) for index, pts in keys if pts is not None)


def _video_stream(path: Path, container: Any) -> Any:
    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        kinds = sorted({other.type for other in container.streams}) or ["nothing"]
        raise VideoError(f"{path}: holds no video, only {', '.join(kinds)}")
    if stream.codec_context is None:
        raise VideoError(f"{path}: its video is of a codec that FFmpeg does not know")
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def decode(container: Any, stream: Any, report: _Report | None = None) -> Iterator[av.VideoFrame]:
    """Yield the frames that decode; what does not is counted in the report and left out."""
    report = report or _Report()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError):
            report.partial = True
            packet = None
        yield from _decode_packet(stream, packet, report)
        if packet is None:
            return


def _decode_packet(stream: Any, packet: Any, report: _Report) -> list[av.VideoFrame]:
    if packet is not None and packet.size:
        report.packets += 1
        report.partial = packet.is_corrupt
        begin = packet.dts if packet.dts is not None else packet.pts
        if begin is not None and packet.time_base:
            end = float((begin + (packet.duration or 0)) * packet.time_base)
            report.end = max(report.end, end)
        if packet.is_corrupt:
            report.broken += 1
            return []
    try:
        # None empties the decoder after the last packet, so that delayed frames are not lost.
        frames = list(stream.codec_context.decode(packet))
    except (av.error.FFmpegError, ValueError):
        report.broken += 1
        return []
    whole = [frame for frame in frames if not frame.is_corrupt]
    report.broken += len(frames) - len(whole)
    return whole


def _ends_early(stream: Any, report: _Report) -> bool:
    """Tell whether packets are missing, both by number and by time.

    Either alone misleads: an AVI counts dropped frames, an MP4 may be trimmed by an edit list.
    """
    if report.partial:
        return True
    if not stream.frames or report.packets >= stream.frames or not stream.duration:
        return False
    declared = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    frame = 1 / float(stream.average_rate) if stream.average_rate else 0.04
    return report.end + 1.5 * frame < declared


def _lacks_trailer(path: Path) -> bool:
    """Tell whether a GIF lacks the semicolon that ends it; nothing else shows that it was cut."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 64, 0))
        return not file.read().rstrip(b"\0").endswith(b";")


def _times(
    stamps: list[float | None], declared: float | None
) -> tuple[npt.NDArray[np.float64] | None, float | None]:
    """Return the times from 0 and the average rate.

    Timestamps that fall or are missing are no display times (AVI with B-frames carries only the
    order of decoding): such frames are counted at the declared rate. They come in display order.
    """
    count = len(stamps)
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) == count and count > 1:
        times = np.asarray(known, dtype=np.float64)
        times -= times[0]
        rising = bool(np.all(np.diff(times) >= 0))
        if rising and 0 < times[-1] <= _MAX_SECONDS_A_FRAME * count:
            rate = float((count - 1) / times[-1])
            near = declared is not None and abs(rate / declared - 1) < 1e-3
            return times, declared if near else rate
    if declared is None:
        return None, None
    return np.arange(count, dtype=np.float64) / declared, declared


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
