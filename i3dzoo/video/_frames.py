"""Frames without a container: folders of images, and NumPy arrays."""

import hashlib
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from i3dzoo.errors import VideoError
from i3dzoo.video._container import MAX_PIXELS, to_array
from i3dzoo.video.records import Channels, Frames, VideoInfo

__all__ = ["frames_digest", "is_frames", "probe_array", "probe_folder", "read_array", "read_folder"]

FLOW_HELP = "a .npy array uint8 [T, H, W, 2], or a folder with u/ and v/ images"

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
_CODECS = ((b"\x89PNG", "png"), (b"\xff\xd8", "mjpeg"), (b"BM", "bmp"), (b"RIFF", "webp"))


def is_frames(folder: Path) -> bool:
    """Whether a folder is a video itself: of images, or of TAO's rgb/, or u/ and v/."""
    return any((folder / name).is_dir() for name in ("rgb", "u")) or bool(_images(folder))


def frames_digest(folder: Path) -> str:
    """Return a digest of a folder's files by name and size, which is quick and tells it apart."""
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    text = "\n".join(f"{each.name} {each.stat().st_size}" for each in files)
    return hashlib.sha256(text.encode()).hexdigest()


def probe_folder(path: Path, channels: Channels) -> VideoInfo:
    """Look at a folder of images: its own, or those of rgb/, or of u/ and v/ (TAO's layout).

    Raises:
        VideoError: There are no such images, u/ and v/ differ, or the first is unreadable.
    """
    folders = _stream_folders(path, channels)
    names = [_images(folder) for folder in folders]
    if not names[0]:
        raise VideoError(f"{folders[0]}: holds no images ({', '.join(sorted(_SUFFIXES))})")
    if len(names) == 2 and [p.stem for p in names[0]] != [p.stem for p in names[1]]:
        raise VideoError(
            f"{path}: u/ holds {len(names[0])} images and v/ {len(names[1])}; "
            "expected the same names in both"
        )
    height, width = _read_image(names[0][0], channels == "xy").shape[:2]
    return VideoInfo(path, "folder", channels, len(names[0]), height, width)


def read_folder(info: VideoInfo, wanted: npt.NDArray[np.int64]) -> Iterator[tuple[int, Frames]]:
    """Yield (index, uint8 [H, W, C]) of the wanted images.

    Raises:
        VideoError: An image is unreadable or is of another size than the first.
    """
    names = [_images(folder) for folder in _stream_folders(info.path, info.channels)]
    for index in wanted.tolist():
        planes = []
        for files in names:
            if index >= len(files):
                raise VideoError(f"{info.path}: image {index} is gone; the folder changed")
            plane = _read_image(files[index], info.channels == "xy")
            if plane.shape[:2] != (info.height, info.width):
                raise VideoError(
                    f"{files[index]}: is {plane.shape[1]}x{plane.shape[0]} pixels; the first "
                    f"image is {info.width}x{info.height}"
                )
            planes.append(plane)
        yield index, planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)


def probe_array(path: Path, channels: Channels) -> VideoInfo:
    """Look at the header of a .npy array uint8 [T, H, W, 3], or [T, H, W, 2] for optical flow.

    Raises:
        VideoError: It is no such array, is shorter than its header says, or holds Python objects.
    """
    array = _map(path)
    shape = list(array.shape)
    expected = 3 if channels == "rgb" else 2
    if array.dtype != np.uint8 or array.ndim != 4 or shape[3] not in (2, 3):
        raise VideoError(
            f"{path}: holds {array.dtype} {shape}; expected uint8 [T, H, W, {expected}]"
        )
    if shape[3] != expected:
        found, needed = ("flow", "RGB") if expected == 3 else ("RGB", "flow")
        raise VideoError(
            f"{path}: holds {found} frames {shape} and the model takes {needed}: "
            f"expected uint8 [T, H, W, {expected}]"
        )
    return VideoInfo(path, "npy", channels, shape[0], shape[1], shape[2])


def read_array(info: VideoInfo, wanted: npt.NDArray[np.int64]) -> Iterator[tuple[int, Frames]]:
    """Yield (index, uint8 [H, W, C]) of the wanted frames; the array stays on the disk."""
    array = _map(info.path)
    for index in wanted.tolist():
        yield index, np.array(array[index], dtype=np.uint8)


def _map(path: Path) -> npt.NDArray[np.generic]:
    try:
        # A memory map takes no room for what the header claims and refuses a file that is shorter.
        array: npt.NDArray[np.generic] = np.lib.format.open_memmap(path, mode="r")
    except (
        ValueError,
        TypeError,
        OSError,
        EOFError,
        OverflowError,
        SyntaxError,
        tokenize.TokenError,  # NumPy reads the header as Python
    ) as error:
        reason = str(error).strip().rstrip(".")
        if "Python objects" in reason:
            reason = "it holds pickled Python objects, which can run code and are never read"
        raise VideoError(f"{path}: is no readable .npy array: {reason}") from error
    return array


def _stream_folders(path: Path, channels: Channels) -> list[Path]:
    if channels == "xy":
        flow = [path / "u", path / "v"]
        if not all(folder.is_dir() for folder in flow):
            raise VideoError(f"{path}: holds no optical flow, which the model takes: {FLOW_HELP}")
        return flow
    if (path / "rgb").is_dir() and not _images(path):
        return [path / "rgb"]
    if (path / "u").is_dir() and not _images(path):
        raise VideoError(f"{path}: holds optical flow (u/ and v/), and the model takes RGB")
    return [path]


def _images(folder: Path) -> list[Path]:
    """Return the images in order of their names, 2 before 10; hidden files are left out."""
    try:
        files = [
            file
            for file in folder.iterdir()
            if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
        ]
    except OSError as error:
        raise VideoError(f"{folder}: cannot be listed: {error.strerror}") from error
    return sorted(files, key=_natural)


def _natural(file: Path) -> list[tuple[int, str]]:
    parts = re.findall(r"(\d+)|(\D+)", file.stem)
    return [(int(digits) if digits else -1, text) for digits, text in parts]


def _read_image(file: Path, grey: bool) -> Frames:
    try:
        data = file.read_bytes()
        codec = next((name for magic, name in _CODECS if data.startswith(magic)), None)
        if codec is None:
            raise VideoError(f"{file}: is no PNG, JPEG, BMP or WebP image")
        decoder: Any = av.CodecContext.create(codec, "r")
        decoder.options = {"max_pixels": str(MAX_PIXELS)}
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except OSError as error:
        raise VideoError(f"{file}: cannot be read: {error.strerror}") from error
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(f"{file}: is a damaged image: {error}") from error
    if not frames or frames[0].is_corrupt:
        raise VideoError(f"{file}: is a damaged image")
    if grey:
        plane = VideoReformatter().reformat(frames[0], format="gray").to_ndarray()
        return np.asarray(plane, dtype=np.uint8)[..., None]
    return to_array(frames[0], VideoReformatter(), None)
