"""Decode video files with PyAV: all frames in display order, with their times."""

import bisect
import contextlib
import itertools
import struct
from array import array
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Final

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from i3dzoo.errors import VideoError
from i3dzoo.files import missing_error
from i3dzoo.limits import (
    MAX_ANIMATION_PIXELS,
    MAX_FRAMES,
    MAX_SECONDS_A_FRAME,
)
from i3dzoo.video import _nvdec
from i3dzoo.video._contents import explain
from i3dzoo.video._packets import Report, decode
from i3dzoo.video._pixels import DECODER_PIXELS, check_pixels, display_size, reason, to_array
from i3dzoo.video.info import Frames, VideoInfo

# An allowlist: FFmpeg also opens playlists, which lead to other files and to the network, and
# treats plain text as a terminal video.
_FORMATS: Final = (
    "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif,apng,asf,flv,mpeg,mpegts,mpegvideo,m4v,mjpeg,"
    "h264,hevc,av1,obu,ivf,ogg,rm,dv,nut,mxf,yuv4mpegpipe,swf,wtv,nsv,vob"
)

ANIMATIONS: Final = ("gif", "apng")

_MIN_SKIP: Final = 8  # decoding fewer frames is faster than seeking past them


def probe_container(path: Path) -> VideoInfo:
    """Decode a video file once, without converting pixels, and count its frames."""
    info = _exhaust(scan_container(path, threads=0))
    if info is None or info.warnings:
        # With several threads, a damaged file loses different frames every time.
        info = _exhaust(scan_container(path, threads=1))
    if info is None:
        raise VideoError(f"{path}: none of its frames can be decoded; the file is damaged or empty")
    return info


def _exhaust(scan: Generator[av.VideoFrame, None, VideoInfo | None]) -> VideoInfo | None:
    while True:
        try:
            next(scan)
        except StopIteration as end:
            info: VideoInfo | None = end.value
            return info


def scan_container(
    path: Path, threads: int, gpu: int | None = None
) -> Generator[av.VideoFrame, None, VideoInfo | None]:
    """Decode a file once: yield its frames in display order, and return its description.

    The description is None if none of its frames can be decoded.

    Raises:
        NvdecError: The file is to be decoded by NVDEC of a GPU, which does not decode it.
    """
    report = Report()
    stamps = array("d")
    keys: list[tuple[int, int]] = []
    with open_video(path, threads, gpu) as (container, stream):
        if container.format.name in ANIMATIONS:
            _check_animation(path)
        last = None
        for frame in decode(container, stream, report):
            if not stamps:
                height, width, remarks = display_size(path, frame, stream.sample_aspect_ratio)
            if len(stamps) == MAX_FRAMES:
                raise VideoError(f"{path}: has more than {MAX_FRAMES:,} frames; cut it first")
            far = not keys or len(stamps) - keys[-1][0] >= _MIN_SKIP
            if far and frame.key_frame and frame is not last and frame.pts is not None:
                keys.append((len(stamps), frame.pts))
            stamps.append(_stamp(frame, stream))
            last = frame
            yield frame
        if not stamps:
            return None
        declared = float(stream.average_rate or stream.guessed_rate or 0) or None
        truncated = _is_truncated(path, container, stream, report)
        count = stream.frames
        # The timestamps of an AVI with B-frames are not display times.
        ordered = container.format.name != "avi" or not stream.codec_context.has_b_frames
        seekable = ordered and not truncated and not report.lost
    seconds = np.frombuffer(stamps)
    times, fps = display_times(seconds, declared)
    if fps is None and declared is not None:
        remarks += (
            f"its frame rate of {declared:.3g} fps is not credible; frames are taken as they are",
        )
    warnings = []
    if truncated:
        warnings.append(f"the file is truncated; {len(stamps)} frames can be decoded")
    warnings += _damage(report, count, times)
    keyframes = _keyframes(seconds, keys) if seekable else ()
    size = len(stamps), height, width
    found = tuple(warnings), keyframes, remarks
    return VideoInfo(path, "file", "rgb", *size, fps, times, truncated, *found)


def _check_animation(path: Path) -> None:
    """Raise a VideoError if drawing all frames of an animation on its canvas takes too long."""
    with open_video(path, 1) as (container, stream):
        canvas = max(stream.codec_context.width * stream.codec_context.height, 1)
        most = MAX_ANIMATION_PIXELS // canvas
        with contextlib.suppress(av.error.FFmpegError, OSError):  # damage is found by decoding
            if next(itertools.islice(container.demux(stream), most + 1, None), None) is not None:
                raise VideoError(
                    f"{path}: has more than {most:,} frames of {stream.codec_context.width}x"
                    f"{stream.codec_context.height} pixels; make it smaller, or convert it to a "
                    "video"
                )


def _is_truncated(path: Path, container: Any, stream: Any, report: Report) -> bool:
    """Whether the end of a file is missing; what is missing within it is counted as lost."""
    if report.unflushed and report.frames < report.packets:
        report.lose()
    early = _ends_early(stream, report)
    if report.partial or (container.format.name == "gif" and _lacks_trailer(path)):
        truncated = True
    else:
        # What an AVI lacks is in its gaps if its end is there.
        truncated = early and (not report.gap or _shorter_than_its_header(path))
    if report.gap and not truncated:
        report.lost += max(stream.frames - report.packets, 0)
    if truncated and report.places == 1 and not report.gap:
        report.lost = 0  # the incomplete packet at the end
    return truncated


def _damage(report: Report, declared: int, times: npt.NDArray[np.float64] | None) -> Iterator[str]:
    """Yield a sentence about what was lost, and where."""
    if not report.lost:
        return
    of = f" of {declared}" if declared >= report.lost else ""
    # FFmpeg reads a packet or two ahead.
    near = min(report.first or 0, report.frames - 1)
    place = f"near frame {near}" + (f" ({times[near]:.1f} s)" if times is not None else "")
    if report.places > 1:
        place = f"at {report.places} places, the first {place}"
    yield f"the file is damaged; {report.lost}{of} frames or packets were left out {place}"


def read_container(
    info: VideoInfo, wanted: npt.NDArray[np.int64], threads: int = 0
) -> Iterator[tuple[int, Frames]]:
    """Yield (index, uint8 [H, W, 3]) for each wanted frame; the indices are increasing.

    Decoding skips to the last keyframe before a wanted frame, and stops after the last frame.
    """
    reformatter = VideoReformatter()
    size = info.height, info.width
    pending = iter(wanted.tolist())
    target = next(pending, None)
    with open_video(info.path, 1 if info.warnings else threads) as (container, stream):
        position = 0
        frames = decode(container, stream)
        while target is not None:
            place = bisect.bisect_right(info.keyframes, target, key=lambda key: key[0])
            if place and info.keyframes[place - 1][0] > position + _MIN_SKIP:
                position, frames = _skip(info, container, stream, info.keyframes[place - 1])
            frame = next(itertools.islice(frames, target - position, None), None)
            if frame is None:
                raise VideoError(
                    f"{info.path}: frame {target} is missing; the file has changed since "
                    "it was probed"
                )
            position = target + 1
            yield target, to_array(frame, reformatter, info.path, size)
            target = next(pending, None)


def _skip(
    info: VideoInfo, container: Any, stream: Any, key: tuple[int, int]
) -> tuple[int, Iterator[av.VideoFrame]]:
    """Seek to a keyframe, or to the first frame if seeking does not lead exactly there."""
    container.seek(key[1], stream=stream)
    frames = decode(container, stream)
    for frame in frames:
        # Frames before the keyframe refer to frames that were not decoded.
        if frame.pts is not None and frame.pts >= key[1]:
            if frame.pts == key[1]:
                return key[0], itertools.chain([frame], frames)
            break
    container.seek(info.keyframes[0][1], stream=stream)
    return 0, decode(container, stream)


def _stamp(frame: av.VideoFrame, stream: Any) -> float:
    """Return the frame's timestamp in seconds, or NaN if it has none."""
    if frame.pts is None or not stream.time_base:
        return float("nan")
    return float(frame.pts * stream.time_base)


def _open(path: Path, gpu: int | None) -> Any:
    options: dict[str, Any] = {
        "container_options": {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    }
    if gpu is not None:
        options["hwaccel"] = _nvdec.accelerator(gpu)
    # Real files (HMDB51's) hold metadata that is not UTF-8; PyAV 19 needs no option to read it.
    if int(av.__version__.split(".")[0]) < 19:
        options["metadata_errors"] = "ignore"
    try:
        return av.open(f"file:{path.absolute()}", "r", **options)
    except FileNotFoundError as error:
        raise missing_error(path, "the file does not exist") from error
    except (av.error.FFmpegError, OSError, ValueError, RuntimeError) as error:
        if gpu is not None:
            raise _nvdec.NvdecError(reason(error)) from error
        raise VideoError(f"{path}: {explain(path, reason(error))}") from error


@contextlib.contextmanager
def open_video(path: Path, threads: int, gpu: int | None = None) -> Iterator[tuple[Any, Any]]:
    """Open a file and its video stream; both are closed at the end of the block.

    `gpu` is the number of the GPU whose NVDEC decodes it; None decodes on the CPU.
    """
    with _open(path, gpu) as container:
        stream = _video_stream(path, container)
        if gpu is not None:
            _nvdec.check_codec(stream)
        if threads:
            stream.codec_context.thread_count = threads
        else:
            stream.thread_type = "AUTO"
        yield container, stream


def _keyframes(
    stamps: npt.NDArray[np.float64], keys: list[tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    """Return the keyframes if timestamps increase strictly, since seeking goes by timestamps."""
    if np.isnan(stamps).any() or (np.diff(stamps) <= 0).any() or not keys or keys[0][0] != 0:
        return ()
    return tuple(keys)


def _video_stream(path: Path, container: Any) -> Any:
    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        kinds = sorted({other.type for other in container.streams}) or ["nothing"]
        raise VideoError(f"{path}: holds no video stream, only {', '.join(kinds)}")
    if stream.codec_context is None:
        raise VideoError(f"{path}: its video stream has a codec that FFmpeg does not know")
    check_pixels(path, stream.codec_context.height, stream.codec_context.width)
    stream.codec_context.options = {"max_pixels": DECODER_PIXELS}
    return stream


def _ends_early(stream: Any, report: Report) -> bool:
    """Whether packets are missing, both by their number and by their time.

    Either alone misleads: an AVI counts dropped frames, and an edit list can trim an MP4.
    """
    if not stream.frames or report.packets >= stream.frames or not stream.duration:
        return False
    declared = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    frame = 1 / float(stream.average_rate) if stream.average_rate else 0.04
    return report.end + 1.5 * frame < declared


def _shorter_than_its_header(path: Path) -> bool:
    """Whether an AVI is shorter than its first RIFF chunk says."""
    with path.open("rb") as file:
        header = file.read(8)
    return len(header) < 8 or path.stat().st_size < 8 + struct.unpack("<4xI", header)[0]


def _lacks_trailer(path: Path) -> bool:
    """Whether a GIF lacks its final semicolon; nothing else shows that it is truncated."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 64, 0))
        return not file.read().rstrip(b"\0").endswith(b";")


def display_times(
    stamps: npt.NDArray[np.float64], declared: float | None
) -> tuple[npt.NDArray[np.float64] | None, float | None]:
    """Return the times from 0 and the average rate.

    If timestamps decrease or are missing, they are not display times (an AVI with B-frames has only
    the decoding order); the frames, which are in display order, are then counted at the declared
    rate.
    """
    count = len(stamps)
    if count > 1 and not np.isnan(stamps).any():
        times = stamps - stamps[0]
        increasing = bool(np.all(np.diff(times) >= 0))
        if increasing and 0 < times[-1] <= MAX_SECONDS_A_FRAME * count:
            rate = float((count - 1) / times[-1])
            near = declared is not None and abs(rate / declared - 1) < 1e-3
            return times, declared if near else rate
    if declared is None or declared * MAX_SECONDS_A_FRAME < 1:
        return None, None
    return np.arange(count, dtype=np.float64) / declared, declared
