"""Read clips from NumPy files: .npy and .npz, as uint8 frames or as the input of a network.

The second is how DeepMind's kinetics-i3d stores its sample clips: float32 [1, T, 224, 224, 3] in
[-1, 1], optical flow [1, T, 224, 224, 2].
"""

import contextlib
import math
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from i3dzoo.errors import VideoError
from i3dzoo.files import open_input
from i3dzoo.files.npy import READ_ERRORS, read_npy_header
from i3dzoo.limits import MAX_FRAMES
from i3dzoo.text import shorten
from i3dzoo.video._pixels import check_pixels
from i3dzoo.video.info import Channels, Frames, VideoInfo

SUFFIXES: Final = (".npy", ".npz")

Floats = npt.NDArray[np.float32]

_NAMES: Final[dict[Channels, tuple[str, ...]]] = {"rgb": ("rgb",), "xy": ("flow", "xy")}
_KINDS: Final[dict[int, str]] = {3: "RGB", 2: "flow"}

_MAX_MEMBERS: Final = 1000
_MAX_DIRECTORY: Final = 1 << 20
_ZIP_END: Final = 22  # bytes of the record at the end of a zip file without a comment


@dataclass(frozen=True)
class _Array:
    """The header of an array of frames: [T, H, W, C], or [1, T, H, W, C]."""

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    fortran: bool


def probe_array(path: Path, channels: Channels) -> VideoInfo:
    """Describe a .npy or .npz file of frames, and check the values of a float array."""
    with _open(path, channels) as (file, array):
        frames, height, width, depth = array.shape
        if depth != (3 if channels == "rgb" else 2):
            held, needed = _KINDS[depth], _KINDS[5 - depth]
            raise VideoError(
                f"{path}: holds {held} frames {list(array.shape)} but the model takes {needed}; "
                f"expected [T, H, W, {5 - depth}]"
            )
        if not math.prod(array.shape):
            raise VideoError(f"{path}: holds no frames: its shape is {list(array.shape)}")
        if frames > MAX_FRAMES:
            raise VideoError(f"{path}: has {frames:,} frames; expected at most {MAX_FRAMES:,}")
        check_pixels(path, height, width)
        floats = array.dtype.kind == "f"
        if floats:
            _check_range(path, _frames(path, file, array, np.arange(frames)))
    remarks = ("floats from -1 to 1; frames of the network's own size are taken without resizing",)
    return VideoInfo(
        path,
        "npy",
        channels,
        frames,
        height,
        width,
        remarks=remarks if floats else (),
        floats=floats,
    )


def _check_range(path: Path, frames: Iterator[tuple[int, npt.NDArray[Any]]]) -> None:
    """Check that floats are the input of a network, from -1 to 1."""
    low, high = math.inf, -math.inf
    for index, frame in frames:
        if not np.isfinite(frame).all():
            raise VideoError(f"{path}: frame {index} has values that are not finite numbers")
        low, high = min(low, float(frame.min())), max(high, float(frame.max()))
    if low >= -1 and high <= 1 and low < 0:
        return
    remedy = "scale them to this range, or save frames of 0 to 255 as uint8"
    if low >= 0 and high <= 1:
        remedy = "multiply values of 0 to 1 by 2 and subtract 1"
    elif low >= 0 and high <= 255:
        remedy = "save frames of 0 to 255 as uint8: array.round().astype('uint8')"
    raise VideoError(
        f"{path}: holds floats from {low:.4g} to {high:.4g}; expected the network's input, from "
        f"-1 to 1, with values below 0: {remedy}"
    )


def read_array(
    info: VideoInfo, wanted: npt.NDArray[np.int64]
) -> Iterator[tuple[int, Frames | Floats]]:
    """Yield (index, [H, W, C]) for each wanted frame: uint8, or float32 from -1 to 1."""
    with _open(info.path, info.channels) as (file, array):
        depth = 3 if info.channels == "rgb" else 2
        expected = (info.frames, info.height, info.width, depth)
        if array.shape != expected or (array.dtype.kind == "f") != info.floats:
            raise VideoError(
                f"{info.path}: holds {array.dtype} {list(array.shape)}; expected "
                f"{'floats' if info.floats else 'uint8'} {list(expected)}; the file has changed "
                "since it was probed"
            )
        yield from _frames(info.path, file, array, wanted)


def _frames(
    path: Path, file: Any, array: _Array, wanted: npt.NDArray[np.int64]
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield frames, whose indices are increasing; only one is in memory."""
    shape, kind = array.shape[1:], np.float32 if array.dtype.kind == "f" else np.uint8
    if array.fortran:
        mapped = np.memmap(path, array.dtype, "r", file.tell(), array.shape, order="F")
        for index in wanted.tolist():
            yield index, np.array(mapped[index], dtype=kind)
        return
    size = math.prod(shape) * array.dtype.itemsize
    begin = file.tell()
    for index in wanted.tolist():
        try:
            file.seek(begin + index * size)
            data = file.read(size)
        except READ_ERRORS as error:
            raise VideoError(f"{path}: frame {index} is damaged: {error}") from error
        if len(data) < size:
            raise VideoError(f"{path}: the file is truncated; frame {index} is incomplete")
        yield index, np.frombuffer(data, array.dtype).reshape(shape).astype(kind)


@contextlib.contextmanager
def _open(path: Path, channels: Channels) -> Iterator[tuple[Any, _Array]]:
    """Open an array at its first value."""
    with open_input(path, VideoError) as file:
        if path.suffix.lower() == ".npy":
            array = _header(path, file)
            begin = file.tell()
            _check_length(path, array, file.seek(0, 2) - begin)
            file.seek(begin)
            yield file, array
            return
        member = _member(path, file, channels)
        with contextlib.ExitStack() as stack:
            try:
                archive = stack.enter_context(zipfile.ZipFile(file))
                opened = stack.enter_context(archive.open(member))
                length = archive.getinfo(member).file_size
            except READ_ERRORS as error:
                raise VideoError(f"{path}: {member} cannot be read: {error}") from error
            array = _header(path, opened)
            _check_length(path, array, length - opened.tell())
            if array.fortran:
                raise VideoError(
                    f"{path}: its array is in Fortran order; save np.ascontiguousarray(array)"
                )
            yield opened, array


def _check_length(path: Path, array: _Array, length: int) -> None:
    if length < math.prod(array.shape) * array.dtype.itemsize:
        raise VideoError(
            f"{path}: is not a readable {path.suffix} array: its header says {array.dtype} "
            f"{list(array.shape)}, but {length:,} bytes follow; the file is truncated"
        )


def _header(path: Path, file: Any) -> _Array:
    """Read a header up to the first value, and check type and shape."""
    try:
        shape, fortran, dtype = read_npy_header(file)
    except READ_ERRORS as error:
        problem = str(error).strip().rstrip(".")
        raise VideoError(f"{path}: is not a readable {path.suffix} array: {problem}") from error
    if dtype.hasobject:
        raise VideoError(
            f"{path}: is not a readable {path.suffix} array: it holds pickled Python objects, "
            "which can run code and are never loaded"
        )
    return _Array(_checked_shape(path, shape, dtype), dtype, fortran)


def _checked_shape(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[int, int, int, int]:
    """Return [T, H, W, C]; a batch of one loses its first axis."""
    held = f"holds {dtype} {list(shape)}"
    expected = "uint8 or float32 [T, H, W, C] or [1, T, H, W, C], with C = 3 for RGB or 2 for flow"
    remedy = ""
    frames = shape[1:] if len(shape) == 5 else shape
    if len(shape) == 5 and shape[0] != 1 and shape[-1] in _KINDS:
        remedy = "; save each clip as a file of its own"
    elif len(frames) == 4 and frames[-1] not in _KINDS:
        for axis, order in ((1, (0, 2, 3, 1)), (0, (1, 2, 3, 0))):
            if frames[axis] in _KINDS:
                axes = (0, *(n + 1 for n in order)) if len(shape) == 5 else order
                remedy = f"; move the channels to the end: array.transpose{axes}"
                break
    elif len(frames) == 4:
        if dtype == np.uint8 or (dtype.kind == "f" and dtype.itemsize <= 8):
            t, h, w, c = frames
            return t, h, w, c
        remedy = "; save frames of 0 to 255 as uint8: array.astype('uint8')"
    raise VideoError(f"{path}: {held}; expected {expected}{remedy}")


def _member(path: Path, file: BinaryIO, channels: Channels) -> str:
    """Return the name of the array for the channels: the only one, or the one of their name."""
    _check_directory(path, file)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except READ_ERRORS as error:
        raise VideoError(f"{path}: is not a readable .npz file: {error}") from error
    names = [member.filename for member in members if member.filename.endswith(".npy")]
    wanted = [f"{name}.npy" for name in _NAMES[channels]]
    chosen = names if len(names) == 1 else [name for name in names if name in wanted]
    if len(chosen) != 1:
        held = ", ".join(shorten(name.removesuffix(".npy")) for name in names[:5]) or "none"
        raise VideoError(
            f"{path}: holds {len(names)} arrays ({held}{', …' if names[5:] else ''}); expected "
            f"one, or one with the name {wanted[0].removesuffix('.npy')}"
        )
    if archive.getinfo(chosen[0]).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise VideoError(
            f"{path}: {shorten(chosen[0])} is compressed in another way than NumPy does; save it "
            "with np.savez_compressed"
        )
    return chosen[0]


def _check_directory(path: Path, file: BinaryIO) -> None:
    """Check the size of the table of members, which zipfile reads as a whole, before it is read."""
    size = file.seek(0, 2)
    file.seek(max(size - _ZIP_END - 0xFFFF, 0))
    tail = file.read()
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or place + _ZIP_END > len(tail):
        raise VideoError(f"{path}: is not a readable .npz file: it is truncated, or no ZIP file")
    count, length, offset = struct.unpack("<10xHII", tail[place : place + 20])
    if 0xFFFFFFFF in (length, offset) or tail[:place].endswith(b"PK\x06\x07", -20, -16):
        raise VideoError(
            f"{path}: is a ZIP64 file, as those above 4 GB are; save the array as .npy instead"
        )
    if count > _MAX_MEMBERS or length > _MAX_DIRECTORY:
        raise VideoError(
            f"{path}: lists {count:,} members in {length:,} bytes; expected at most "
            f"{_MAX_MEMBERS:,}, one of which is the clip"
        )
