"""Read animated WebP, of which FFmpeg decodes only the single images.

The container is described in https://developers.google.com/speed/webp/docs/riff_container.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from i3dzoo.errors import VideoError
from i3dzoo.files import open_input
from i3dzoo.limits import MAX_ANIMATION_PIXELS, MAX_IMAGE_BYTES
from i3dzoo.video._pixels import DECODER_PIXELS, check_pixels, over_white, reason
from i3dzoo.video.info import Frames, VideoInfo

_ANIMATED: Final = 0x02  # flag of VP8X
_ALPHA: Final = 0x10  # likewise
_CLEAR, _REPLACE = 1, 2  # flags of a frame: cleared after it was shown; drawn without blending


@dataclass(frozen=True)
class _Frame:
    """A frame: where its image is in the file, where it is drawn, and how long it is shown."""

    offset: int
    size: int
    left: int
    top: int
    width: int
    height: int
    milliseconds: int
    flags: int


def is_animated_webp(path: Path) -> bool:
    """Whether a file starts as an animated WebP."""
    with open_input(path, VideoError) as file:
        start = file.read(21)
    return (
        len(start) == 21
        and (start[:4], start[8:16]) == (b"RIFF", b"WEBPVP8X")
        and bool(start[20] & _ANIMATED)
    )


def probe_webp(path: Path) -> VideoInfo:
    """Describe an animated WebP."""
    height, width, frames, truncated = _frames(path)
    count = 0
    try:
        for _ in _draw(path, height, width, frames):
            count += 1
    except VideoError:
        if not count:
            raise
    warnings = []
    if truncated:
        warnings.append(f"the file is truncated; {count} frames can be decoded")
    elif count < len(frames):
        warnings.append(f"the file is damaged; only {count} of {len(frames)} frames can be decoded")
    ends = np.cumsum([frame.milliseconds for frame in frames[:count]]) / 1000
    timed = bool(ends[-1] > 0)
    return VideoInfo(
        path,
        "file",
        "rgb",
        count,
        height,
        width,
        count / float(ends[-1]) if timed else None,
        np.concatenate([[0.0], ends[:-1]]) if timed else None,
        truncated,
        tuple(warnings),
    )


def read_webp(info: VideoInfo, wanted: npt.NDArray[np.int64]) -> Iterator[tuple[int, Frames]]:
    """Yield (index, uint8 [H, W, 3]) for each wanted frame; the indices are increasing."""
    height, width, frames, _ = _frames(info.path)
    if (height, width) != (info.height, info.width) or len(frames) < info.frames:
        raise VideoError(f"{info.path}: has changed since it was probed")
    pending = iter(wanted.tolist())
    target = next(pending, None)
    for index, canvas in enumerate(_draw(info.path, height, width, frames)):
        if index == target:
            yield index, over_white(canvas)
            target = next(pending, None)
        if target is None:
            return


def _frames(path: Path) -> tuple[int, int, list[_Frame], bool]:
    """Return the height and width of the canvas, the frames, and whether the file is truncated."""
    with open_input(path, VideoError) as file:
        end = file.seek(0, 2)
        header = _at(file, 0, 30)
        if len(header) < 30:
            raise VideoError(f"{path}: the file is truncated; no frame is left")
        width, height = (1 + int.from_bytes(header[i : i + 3], "little") for i in (24, 27))
        check_pixels(path, height, width)
        most = MAX_ANIMATION_PIXELS // (height * width)
        declared = 8 + int.from_bytes(header[4:8], "little")
        frames: list[_Frame] = []
        place = 12
        while place + 8 <= min(end, declared):
            name, size = struct.unpack("<4sI", _at(file, place, 8))
            fields = _at(file, place + 8, 16) if name == b"ANMF" else b""
            place += 8 + size + size % 2
            if not fields or place > end + 1:
                continue
            left, top, right, bottom, duration = (
                int.from_bytes(fields[i : i + 3], "little") for i in range(0, 15, 3)
            )
            offset = place - size - size % 2 + 16
            box = 2 * left, 2 * top, right + 1, bottom + 1
            frames.append(_Frame(offset, size - 16, *box, duration, fields[15]))
            if len(frames) > most:
                raise VideoError(
                    f"{path}: has more than {most:,} frames of {width}x{height} pixels; make it "
                    "smaller, or convert it to a video"
                )
    if not frames:
        raise VideoError(f"{path}: none of its frames can be decoded; the file is damaged or empty")
    return height, width, frames, declared > end + 1


def _draw(path: Path, height: int, width: int, frames: list[_Frame]) -> Iterator[Frames]:
    """Yield the canvas after each frame, uint8 RGBA [H, W, 4]; it is changed for the next."""
    canvas = np.zeros((height, width, 4), np.uint8)
    with open_input(path, VideoError) as file:
        for number, frame in enumerate(frames):
            where = f"{path}: frame {number}"
            rows = slice(frame.top, frame.top + frame.height)
            columns = slice(frame.left, frame.left + frame.width)
            part = canvas[rows, columns]
            if part.shape[:2] != (frame.height, frame.width) or frame.size > MAX_IMAGE_BYTES:
                raise VideoError(f"{where} is larger than its canvas; the file is damaged")
            image = _decode(where, _at(file, frame.offset, frame.size), frame)
            if frame.flags & _REPLACE or image[..., 3].min() == 255:
                part[...] = image
            else:
                _blend(image, part)
            yield canvas
            if frame.flags & _CLEAR:
                part[...] = 0


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(max(size, 0))


def _decode(where: str, chunks: bytes, frame: _Frame) -> Frames:
    """Decode the image of a frame, which is a WebP without its header, to RGBA."""
    extended = b""
    if chunks.startswith(b"ALPH"):
        size = struct.pack("<II", frame.width - 1, frame.height - 1)
        fields = bytes([_ALPHA, 0, 0, 0]) + size[:3] + size[4:7]
        extended = b"VP8X" + struct.pack("<I", len(fields)) + fields
    body = b"WEBP" + extended + chunks
    try:
        decoder: Any = av.CodecContext.create("webp", "r")
        decoder.options = {"max_pixels": DECODER_PIXELS}
        packet = av.Packet(b"RIFF" + struct.pack("<I", len(body)) + body)
        image = next(iter([*decoder.decode(packet), *decoder.decode(None)]), None)
        if image is None or (image.height, image.width) != (frame.height, frame.width):
            raise VideoError(f"{where} is damaged")
        pixels: Any = VideoReformatter().reformat(image, format="rgba").to_ndarray()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(f"{where} is damaged: {reason(error)}") from error
    return np.asarray(pixels, dtype=np.uint8)


def _blend(image: Frames, canvas: Frames) -> None:
    """Draw RGBA over the RGBA of a canvas."""
    for row, below in zip(image, canvas, strict=True):
        above, under = row[:, 3:].astype(np.float32), below[:, 3:].astype(np.float32)
        under *= (255 - above) / 255
        alpha = above + under
        colours = row[:, :3] * above + below[:, :3] * under
        below[:, :3] = np.rint(colours / np.maximum(alpha, 1))
        below[:, 3:] = np.rint(alpha)
