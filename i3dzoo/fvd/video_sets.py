"""Sets of videos: a folder, an array of videos in a file, or one in memory."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from i3dzoo.errors import DatasetError, InputTypeError, OptionError, ShapeError
from i3dzoo.fvd.array_file import ArrayFile
from i3dzoo.text import listing
from i3dzoo.video import frames_digest, probe
from i3dzoo.video.decode import stream_exact
from i3dzoo.video.series import IMAGE_SUFFIXES, SYSTEM_FILES, VIDEO_SUFFIXES
from i3dzoo.video.walk import walk_files

ValueRange = Literal["0..1", "-1..1", "0..255"]
Layout = Literal["NTHWC", "NCTHW", "NTCHW"]

_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "0..1": (0, 1),
    "-1..1": (-1, 1),
    "0..255": (0, 255),
}
_IDENTITY_BYTES: Final = 1 << 20
_VIDEO_SUFFIXES: Final = VIDEO_SUFFIXES | {".npz"}


@dataclass(frozen=True)
class OpenVideo:
    """A video whose frames can be read.

    Attributes:
        name: What messages call it.
        frames: Number of frames.
        fps: Frames a second, if it is known.
        read: Returns the frames of increasing indices one by one, each [3, H, W] in 0..255.
    """

    name: str
    frames: int
    fps: float | None
    read: Callable[[Sequence[int]], Iterator[Tensor]]


class VideoSet(Protocol):
    """Videos, which are opened one at a time."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """How it was read, where more than one reading is possible."""

    def __len__(self) -> int: ...

    def open(self, number: int) -> OpenVideo:
        """Open one video."""

    def digest(self) -> str:
        """Return a quick digest, by which statistics are recognised."""


class FolderOfVideos:
    """All videos in a folder and in its folders: video files, .npy arrays, folders of images."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self.folder = folder
        self.files, others = _find(folder)
        if not self.files:
            held = f"; it holds {listing(sorted(others))}" if others else ""
            raise DatasetError(
                f"{folder}: holds no videos and no folders of images{held}; expected a folder with "
                "a file or a folder of images for each video"
            )
        if folder in self.files:
            raise DatasetError(
                f"{folder}: holds the images of one video; expected a folder of such folders, or "
                "of video files: give the folder above it"
            )
        self.notes: tuple[str, ...] = ()
        if others:
            self.notes = (f"{folder}: skipped what is not a video: {listing(sorted(others))}",)

    def __len__(self) -> int:
        return len(self.files)

    def open(self, number: int) -> OpenVideo:
        """Open one video."""
        info = probe(self.files[number])

        def read(indices: Sequence[int]) -> Iterator[Tensor]:
            for _, frame in stream_exact(info, indices):
                pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1)
                yield (pixels + 1) * 127.5 if info.floats else pixels

        return OpenVideo(str(info.path), info.frames, info.fps, read)

    def digest(self) -> str:
        """Return the SHA-256 of the names and the sizes of the videos."""
        lines = []
        for file in self.files:
            size = frames_digest(file) if file.is_dir() else file.stat().st_size
            lines.append(f"{file.relative_to(self.folder).as_posix()} {size}")
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


class ArrayOfVideos:
    """Videos of one size in an array [N, ...] of 5 axes, of a file or in memory.

    Args:
        name: What messages call it.
        array: An `ArrayFile`, or an array or a tensor in memory.
        layout: Order of the axes; None finds the axis of 3.
        value_range: What the smallest and the largest value of floats stand for; None finds it out
            if the values leave no doubt.
    """

    def __init__(
        self,
        name: str,
        array: Any,
        layout: Layout | None = None,
        value_range: ValueRange | None = None,
    ) -> None:
        self.name, self._array = name, array
        self._row: Callable[[int], Any] = (
            array.row if isinstance(array, ArrayFile) else array.__getitem__
        )
        shape = tuple(array.shape)
        self.layout = _layout(name, shape, layout)
        self.frames = shape[self.layout.index("T")]
        kind = str(array.dtype).removeprefix("torch.")
        self.notes: tuple[str, ...] = ()
        self.value_range: ValueRange = "0..255"
        if kind.startswith(("float", "bfloat")) or kind[1:] in ("f2", "f4", "f8"):
            extremes = _extremes(name, map(self._row, range(len(self))))
            self.value_range = _value_range(name, *extremes, value_range)
            stated = "as stated" if value_range else "as its values show"
            self.notes = (f"{name}: floats of {self.value_range}, {stated}",)
        elif kind != "uint8":
            raise InputTypeError(
                f"{name}: holds {kind}; expected uint8 of 0..255, or floats: convert it with "
                "astype('uint8')"
            )
        elif value_range not in (None, "0..255"):
            raise OptionError(
                f"{name}: holds uint8, which is 0..255; leave out --range {value_range}"
            )

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def open(self, number: int) -> OpenVideo:
        """Open one video."""
        axes = [self.layout.index(axis) - 1 for axis in "TCHW"]

        def read(indices: Sequence[int]) -> Iterator[Tensor]:
            frames = _to_tensor(self._row(number)).permute(axes)
            for index in indices:
                yield _to_pixels(frames[index], self.value_range)

        return OpenVideo(f"{self.name}: video {number}", self.frames, None, read)

    def digest(self) -> str:
        """Return the SHA-256 of the shape, the range and the first and last video's start."""
        text = f"{tuple(self._array.shape)} {self._array.dtype} {self.layout} {self.value_range}"
        digest = hashlib.sha256(text.encode())
        for number in (0, len(self) - 1):
            row = _to_tensor(self._row(number)).contiguous().cpu().numpy()
            digest.update(row.reshape(-1)[:_IDENTITY_BYTES].tobytes())
        return digest.hexdigest()


def _to_tensor(row: Any) -> Tensor:
    if isinstance(row, Tensor):
        return row
    return torch.from_numpy(np.array(row, dtype=row.dtype.newbyteorder("=")))


def _to_pixels(frame: Tensor, value_range: ValueRange) -> Tensor:
    """Return a frame in 0..255."""
    if value_range == "0..255":
        return frame
    values = frame.to(torch.float32)
    return values * 255 if value_range == "0..1" else (values + 1) * 127.5


def _layout(name: str, shape: tuple[int, ...], layout: Layout | None) -> Layout:
    """Return the order of the axes, which the axis of 3 channels decides."""
    if len(shape) != 5 or 0 in shape:
        raise ShapeError(
            f"{name}: has shape {list(shape)}; expected [N, T, H, W, 3] or [N, 3, T, H, W]"
        )
    possible = [order for order in get_args(Layout) if shape[order.index("C")] == 3]
    if layout is not None:
        if layout not in possible:
            raise ShapeError(
                f"{name}: has shape {list(shape)}, which is not {layout} with 3 channels"
            )
        return layout
    if len(possible) != 1:
        reason = f"it can be {' or '.join(possible)}; say which with --layout"
        if not possible:
            reason = "no axis has the 3 channels of RGB: repeat grey frames three times"
        raise ShapeError(f"{name}: has shape {list(shape)}; {reason}")
    order: Layout = possible[0]
    return order


def _extremes(name: str, rows: Iterator[npt.NDArray[Any] | Tensor]) -> tuple[float, float]:
    low, high = math.inf, -math.inf
    for number, row in enumerate(rows):
        smallest, largest = float(row.min()), float(row.max())
        if not (math.isfinite(smallest) and math.isfinite(largest)):
            raise ShapeError(f"{name}: video {number} has values that are not finite numbers")
        low, high = min(low, smallest), max(high, largest)
    return low, high


def _value_range(name: str, low: float, high: float, stated: ValueRange | None) -> ValueRange:
    """Return the range of floats, which is stated or clear."""
    held = f"{name}: holds floats from {low:.4g} to {high:.4g}"
    if stated is not None:
        least, most = _BOUNDS[stated]
        if not least <= low <= high <= most:
            raise OptionError(f"{held}, which is outside of --range {stated}")
        return stated
    if -1 <= low < 0 and high <= 1:
        return "-1..1"
    if low >= 0 and 1 < high <= 255:
        return "0..255"
    if low >= 0 and high <= 1:
        raise OptionError(
            f"{held}, which can be of 0..1 or of -1..1; say which with --range 0..1 or "
            "--range -1..1"
        )
    raise OptionError(f"{held}; expected 0..1, -1..1 or 0..255: scale them to one of these")


def _find(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the videos in a folder, and the names of other files.

    A folder with images is one video.
    """
    videos: dict[Path, None] = {}
    others: list[str] = []
    for file in walk_files(folder):
        suffix = file.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            videos[file.parent] = None
        elif suffix in _VIDEO_SUFFIXES:
            videos[file] = None
        elif file.name.lower() not in SYSTEM_FILES:
            others.append(file.name)
    return list(videos), others
