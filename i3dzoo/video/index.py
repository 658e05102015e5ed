"""The index of a prepared dataset, so that videos are probed only once.

Paths are relative to the folder of the index, so the folder can be moved, or to the folder of the
videos, if these are elsewhere.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from i3dzoo.errors import DatasetError
from i3dzoo.limits import MAX_FRAMES, MAX_PIXELS, MAX_SECONDS_A_FRAME
from i3dzoo.records import Record
from i3dzoo.video.flow import FlowMethod, FlowStore
from i3dzoo.video.info import Channels, VideoInfo
from i3dzoo.video.splits import Role

Layout = Literal["videos", "frames", "tao"]
Roles = tuple[Role | None, Role | None, Role | None]
Count = Annotated[int, Meta(ge=0, le=MAX_FRAMES)]
Size = Annotated[int, Meta(ge=0, le=MAX_PIXELS)]
Rate = Annotated[float, Meta(ge=1 / MAX_SECONDS_A_FRAME, le=1e6)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Timestamp = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


def _check(file: str, frames: int, height: int, width: int) -> None:
    """Raise a ValueError if a path leads out of the dataset, or no frame has such a size."""
    path = PureWindowsPath(file)  # knows both separators, and drives
    if path.drive or path.root or ".." in path.parts or not path.parts:
        raise ValueError(f"{file!r} leads out of the dataset's folder; expected a path inside it")
    if not 1 <= height * width <= MAX_PIXELS or not frames:
        raise ValueError(
            f"{file!r} has {frames} frames of {width}x{height} pixels; expected 1 frame or more "
            f"and 1 to {MAX_PIXELS:,} pixels"
        )


class FlowEntry(Record, frozen=True, omit_defaults=True):
    """The optical flow of a video: a folder with u/ and v/, or a .npy array uint8 [T, H, W, 2].

    It has one frame less than the video; `fps` is set if it differs from that of the video.
    """

    file: str
    frames: Count
    height: Size
    width: Size
    fps: Rate | None = None

    def __post_init__(self) -> None:
        _check(self.file, self.frames, self.height, self.width)


class Entry(Record, frozen=True, omit_defaults=True):
    """A video of the index.

    Attributes:
        file: Video file or folder of images, relative to the folder of the videos, with `/`.
        label: Name of its class; empty if it has several.
        labels: Names of its classes in a multi-label dataset.
        roles: Its role in splits 1, 2 and 3; None in a split that leaves it out.
        start: Second at which the sample starts; None for the start of the video.
        end: Second at which the sample ends; None for the end of the video.
        frames: Number of frames that can be decoded; 0 if `error` is set.
        height: Height in pixels.
        width: Width in pixels.
        fps: Frames per second; None without a rate.
        times: Seconds of each frame, if the frames are not evenly spaced.
        bytes: Size of the video file, or of all images.
        keyframes: As in `VideoInfo`; empty if decoding must start at the first frame.
        truncated: Whether the source ends before its header says.
        warnings: Problems of the source, one sentence each.
        error: Why the video cannot be used; None if it can.
        flow: Its optical flow, if there is any.
    """

    file: str
    label: str
    roles: Roles = (None, None, None)
    frames: Count = 0
    height: Size = 0
    width: Size = 0
    fps: Rate | None = None
    times: tuple[float, ...] | None = None
    bytes: Annotated[int, Meta(ge=0)] = 0
    keyframes: tuple[tuple[Count, Timestamp], ...] = ()
    truncated: bool = False
    warnings: tuple[str, ...] = ()
    error: str | None = None
    flow: FlowEntry | None = None
    labels: tuple[str, ...] = ()
    start: Seconds | None = None
    end: Seconds | None = None

    @property
    def name(self) -> str:
        """The file and, for a segment of a video, its seconds: `x.mp4#t=3,7.5`."""
        if self.start is None and self.end is None:
            return self.file
        end = "" if self.end is None else f",{self.end:g}"
        return f"{self.file}#t={self.start or 0:g}{end}"

    def __post_init__(self) -> None:
        if self.end is not None and self.end <= (self.start or 0):
            raise ValueError(
                f"{self.file!r} ends at {self.end:g} s; expected an end after the start at "
                f"{self.start or 0:g} s"
            )
        if self.error is not None:
            _check(self.file, 1, 1, 1)
            return
        _check(self.file, self.frames, self.height, self.width)
        times = self.times
        if times is not None and len(times) != self.frames:
            raise ValueError(
                f"{self.file!r} has {len(times)} times; expected one for each of "
                f"its {self.frames} frames"
            )
        if times and (times[0] != 0 or any(a > b for a, b in itertools.pairwise(times))):
            raise ValueError(f"the times of {self.file!r} do not start at 0 or decrease")
        indices = [index for index, _ in self.keyframes]
        if indices and (
            indices[0] != 0
            or indices[-1] >= self.frames
            or any(a >= b for a, b in itertools.pairwise(indices))
        ):
            raise ValueError(
                f"the keyframes of {self.file!r} are not increasing frame numbers from 0 "
                f"to {self.frames - 1}"
            )


class SplitSettings(Record, frozen=True, kw_only=True):
    """How videos without parts of their own were split into training and validation.

    Attributes:
        val_fraction: Share of each class that is for validation.
        seed: Draws the videos.
        group_by: Regular expression; videos in whose path it matches the same text are on one side.
    """

    val_fraction: Annotated[float, Meta(ge=0, lt=1)]
    seed: Annotated[int, Meta(ge=0)]
    group_by: str | None = None


class FlowSettings(Record, frozen=True, kw_only=True):
    """How the optical flow of a dataset is computed.

    `fps` and `short_side` are of the frames it is computed on; None keeps those of each video.
    Displacements are clipped to ±bound pixels.
    """

    method: FlowMethod
    fps: Rate | None
    short_side: Annotated[int, Meta(ge=1)] | None
    bound: Annotated[float, Meta(gt=0)]
    store: FlowStore


@dataclass(frozen=True)
class Index:
    """A dataset on disk.

    Attributes:
        root: The folder of the index.
        dataset: `hmdb51`, `ucf101`, or another name.
        layout: `videos`: video files; `frames`: folders of images; `tao`: folders with rgb/, u/ and
            v/.
        classes: Names of the classes, in the order of the logits.
        entries: The videos.
        fps: Frame rate of extracted frames; None for each video's own.
        short_side: Short side of extracted frames in pixels; None for their own size.
        flow: How optical flow is computed; None without flow.
        videos: The folder that the files of the entries are relative to; None for `root`. Files of
            optical flow are always relative to `root`.
        split: How the videos were split; None if the dataset defines their roles.
    """

    root: Path
    dataset: str
    layout: Layout
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    fps: float | None = None
    short_side: int | None = None
    flow: FlowSettings | None = None
    videos: Path | None = None
    split: SplitSettings | None = None

    def __post_init__(self) -> None:
        known = set(self.classes)
        for entry in self.entries:
            for label in entry.labels or (entry.label,):
                if label not in known:
                    raise DatasetError(
                        f"{self.path(entry)}: its class {label!r} is not among the "
                        f"{len(known)} classes of the dataset"
                    )

    def path(self, entry: Entry) -> Path:
        """Return the video file or the folder of images of an entry."""
        return (self.videos or self.root) / entry.file

    def has_role(self, split: int, role: Role) -> bool:
        """Return whether a video has a role in split 1, 2 or 3."""
        return any(entry.roles[split - 1] == role for entry in self.entries)

    def held_out(self, split: int, *, training: bool) -> Role:
        """Return the role that is evaluated: in training, `val` if there are such videos."""
        roles: tuple[Role, Role] = ("val", "test") if training else ("test", "val")
        return next((role for role in roles if self.has_role(split, role)), "test")

    @property
    def has_splits(self) -> bool:
        """Whether any video has a role."""
        return any(role for entry in self.entries for role in entry.roles)

    def select(self, split: int | None, role: Role | None) -> tuple[Entry, ...]:
        """Return the videos of a role in split 1, 2 or 3, or all videos if both are None.

        Raises:
            DatasetError: The split does not exist, or has no such videos.
        """
        if not self.entries:
            raise DatasetError(f"{self.root}: the index lists no videos; run i3dzoo prepare again")
        if split is None and role is None:
            return self.entries
        if split not in (1, 2, 3) or role not in ("train", "val", "test"):
            raise DatasetError(
                f"expected split 1, 2 or 3 with the role 'train', 'val' or 'test', "
                f"found split {split} with the role {role!r}"
            )
        chosen = tuple(entry for entry in self.entries if entry.roles[split - 1] == role)
        if not chosen:
            raise DatasetError(f"{self.root}: split {split} has no {role} videos")
        return chosen

    def info(self, entry: Entry, channels: Channels = "rgb") -> VideoInfo:
        """Return the description that `probe` would return for a video, without reading the disk.

        Raises:
            DatasetError: The video cannot be used, or `channels` is `xy` and it has no flow.
        """
        if entry.error is not None:
            raise DatasetError(f"{self.path(entry)}: {entry.error}")
        if channels == "rgb":
            return VideoInfo(
                self.path(entry),
                self._kind(entry.file),
                "rgb",
                entry.frames,
                entry.height,
                entry.width,
                entry.fps,
                _times(entry.fps, entry.frames, entry.times),
                entry.truncated,
                entry.warnings,
                entry.keyframes,
            )
        flow = entry.flow
        if flow is None:
            raise DatasetError(
                f"{self.path(entry)}: has no optical flow; "
                "run i3dzoo prepare again with --flow tvl1"
            )
        fps, times = (entry.fps, entry.times) if flow.fps is None else (flow.fps, None)
        return VideoInfo(
            self.root / flow.file,
            "npy" if flow.file.endswith(".npy") else "folder",
            "xy",
            flow.frames,
            flow.height,
            flow.width,
            fps,
            _times(fps, flow.frames, times),
        )

    def _kind(self, file: str) -> Literal["file", "folder", "npy"]:
        if self.layout != "videos":
            return "folder"
        return "npy" if file.lower().endswith(".npy") else "file"


def _times(
    fps: float | None, count: int, times: tuple[float, ...] | None
) -> npt.NDArray[np.float64] | None:
    if fps is None:
        return None
    if times is not None:
        return np.asarray(times[:count], dtype=np.float64)
    return np.arange(count, dtype=np.float64) / fps


def make_entry(info: VideoInfo, file: str, label: str, roles: Roles, size: int) -> Entry:
    """Make the entry of a probed video."""
    times = None
    if info.times is not None and info.fps is not None:
        even = np.arange(info.frames) / info.fps
        if float(np.abs(info.times - even).max()) > 1e-3 / info.fps:
            times = tuple(round(float(time), 6) for time in info.times)
    return Entry(
        file=file,
        label=label,
        roles=roles,
        frames=info.frames,
        height=info.height,
        width=info.width,
        fps=info.fps,
        times=times,
        bytes=size,
        # A single keyframe is where decoding starts in any case.
        keyframes=info.keyframes if len(info.keyframes) > 1 else (),
        truncated=info.truncated,
        warnings=info.warnings,
    )
