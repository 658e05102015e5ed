"""Read frames from folders of images."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from i3dzoo.errors import VideoError
from i3dzoo.files import open_input
from i3dzoo.limits import MAX_FRAMES, MAX_IMAGE_BYTES
from i3dzoo.video._pixels import DECODER_PIXELS, to_array
from i3dzoo.video.info import Channels, Frames, VideoInfo
from i3dzoo.video.series import find_images

_CODECS = ((b"\x89PNG", "png"), (b"\xff\xd8", "mjpeg"), (b"BM", "bmp"), (b"RIFF", "webp"))


def frames_digest(folder: Path) -> str:
    """Return a quick digest of a folder: SHA-256 of the names and sizes of its files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    text = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def probe_folder(path: Path, channels: Channels) -> VideoInfo:
    """Describe a folder of images, which has one of the layouts of `i3dzoo.video.series`."""
    images = find_images(path, channels)
    count = len(images.planes[0])
    if count > MAX_FRAMES:
        raise VideoError(f"{path}: holds {count:,} images; expected at most {MAX_FRAMES:,}")
    first, last = images.planes[0][0], images.planes[-1][-1]
    height, width = _read_image(first, channels == "xy").shape[:2]
    info = VideoInfo(path, "folder", channels, count, height, width, warnings=images.notes)
    _check_size(info, last, _read_image(last, channels == "xy"))
    return info


def read_folder(info: VideoInfo, wanted: npt.NDArray[np.int64]) -> Iterator[tuple[int, Frames]]:
    """Yield (index, uint8 [H, W, C]) for each wanted image; all have the size of the first."""
    names = find_images(info.path, info.channels).planes
    for index in wanted.tolist():
        planes = []
        for files in names:
            if index >= len(files):
                raise VideoError(f"{info.path}: image {index} is missing; the folder has changed")
            plane = _read_image(files[index], info.channels == "xy")
            _check_size(info, files[index], plane)
            planes.append(plane)
        yield index, planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)


def _check_size(info: VideoInfo, file: Path, image: Frames) -> None:
    if image.shape[:2] != (info.height, info.width):
        raise VideoError(
            f"{file}: has {image.shape[1]}x{image.shape[0]} pixels; expected "
            f"{info.width}x{info.height}, as in the first image"
        )


def _read_image(file: Path, grey: bool) -> Frames:
    with open_input(file, VideoError) as opened:
        data = opened.read(MAX_IMAGE_BYTES + 1)
    if len(data) > MAX_IMAGE_BYTES:
        raise VideoError(f"{file}: has more than {MAX_IMAGE_BYTES:,} bytes; make it smaller first")
    try:
        codec = next((name for magic, name in _CODECS if data.startswith(magic)), None)
        if codec is None:
            raise VideoError(f"{file}: is not a PNG, JPEG, BMP or WebP image")
        decoder: Any = av.CodecContext.create(codec, "r")
        decoder.options = {"max_pixels": DECODER_PIXELS}
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(f"{file}: is a damaged image: {error}") from error
    if not frames or frames[0].is_corrupt:
        raise VideoError(f"{file}: is a damaged image")
    if grey:
        plane = VideoReformatter().reformat(frames[0], format="gray").to_ndarray()
        return np.asarray(plane, dtype=np.uint8)[..., None]
    return to_array(frames[0], VideoReformatter(), file)
