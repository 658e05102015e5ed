"""The index of a prepared dataset: JSON lines, so that no video is probed twice.

The first line describes the dataset, every other line is one clip. Paths are relative to the
index's folder, so the whole can be moved.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

import numpy as np

from i3dzoo._files import atomic_write
from i3dzoo.errors import DatasetError, MissingFileError
from i3dzoo.video.decode import probe
from i3dzoo.video.records import Channels, VideoInfo
from i3dzoo.video.splits import Role

__all__ = [
    "INDEX_NAME",
    "Entry",
    "FlowEntry",
    "Index",
    "Layout",
    "describe",
    "read_index",
    "scan_folders",
    "write_index",
]

INDEX_NAME = "index.jsonl"
VERSION = 1

_NO_FRAMES = "holds no frames: it has neither rgb/ nor u/ and v/"

Layout = Literal["videos", "frames", "tao"]
Roles = tuple[Role | None, Role | None, Role | None]


@dataclass(frozen=True)
class FlowEntry:
    """The optical flow of a clip: `frames` fields, one fewer than the clip has frames.

    Attributes:
        file: A folder with u/ and v/, or a .npy array uint8 [frames, height, width, 2].
        frames: How many fields.
        height: Pixels.
        width: Pixels.
        fps: Fields a second, where they were computed at another rate than the clip's own.
    """

    file: str
    frames: int
    height: int
    width: int
    fps: float | None = None


@dataclass(frozen=True)
class Entry:
    """A clip of the index.

    Attributes:
        file: Video file or folder of images, relative to the index's folder, `/` between parts.
        label: Name of its class.
        roles: Its role in splits 1, 2 and 3; None where the split leaves it out.
        frames: Frames that decode; 0 where `error` is set.
        height: Pixels.
        width: Pixels.
        fps: Frames a second; None without a rate.
        times: Seconds of each frame where they are not evenly spaced.
        bytes: Of the video file, or of the images together.
        keyframes: As in `VideoInfo`; empty where decoding must start at the first frame.
        truncated: The source ends before its own header says.
        warnings: One sentence each.
        error: Why the clip cannot be used; None if it can.
        flow: Its optical flow, where there is one.
    """

    file: str
    label: str
    roles: Roles = (None, None, None)
    frames: int = 0
    height: int = 0
    width: int = 0
    fps: float | None = None
    times: tuple[float, ...] | None = None
    bytes: int = 0
    keyframes: tuple[tuple[int, int], ...] = ()
    truncated: bool = False
    warnings: tuple[str, ...] = ()
    error: str | None = None
    flow: FlowEntry | None = None

    def to_json(self) -> str:
        """Return the entry as one line; what is default is left out."""
        fields = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                fields[field.name] = dataclasses.asdict(value) if field.name == "flow" else value
        return json.dumps(fields, ensure_ascii=True)


@dataclass(frozen=True)
class Index:
    """A dataset on disk.

    Attributes:
        root: The folder that the entries' paths start from.
        dataset: `hmdb51`, `ucf101`, or another name.
        layout: `videos`: video files; `frames`: folders of images; `tao`: folders that hold rgb/,
            u/ and v/.
        classes: Names in the order of the logits.
        entries: The clips.
        fps: The rate that frames were extracted at; None for each video's own.
        short_side: Of extracted frames in pixels; None for their own size.
        flow: How flow was computed, in a few words; None without flow.
    """

    root: Path
    dataset: str
    layout: Layout
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    fps: float | None = None
    short_side: int | None = None
    flow: str | None = None

    def __post_init__(self) -> None:
        known = set(self.classes)
        for entry in self.entries:
            if entry.label not in known:
                raise DatasetError(
                    f"{self.root / entry.file}: its class {entry.label!r} is not among the "
                    f"{len(known)} classes of the dataset"
                )

    def select(self, split: int | None, role: Role | None) -> tuple[Entry, ...]:
        """Return the clips of a role in split 1, 2 or 3; all clips if both are None.

        Raises:
            DatasetError: There is no such split, or it has no such clips.
        """
        if not self.entries:
            raise DatasetError(f"{self.root}: the index lists no clip; run i3dzoo prepare again")
        if split is None and role is None:
            return self.entries
        if split not in (1, 2, 3) or role not in ("train", "test"):
            raise DatasetError(
                f"split {split}, role {role} is wanted; expected split 1, 2 or 3 "
                "with role 'train' or 'test'"
            )
        chosen = tuple(entry for entry in self.entries if entry.roles[split - 1] == role)
        if not chosen:
            raise DatasetError(f"{self.root}: no clip is in the {role} half of split {split}")
        return chosen

    def info(self, entry: Entry, channels: Channels = "rgb") -> VideoInfo:
        """Return what `probe` would return for a clip, without touching the disk.

        Raises:
            DatasetError: The clip is unusable, or has no flow and flow is wanted.
        """
        if entry.error is not None:
            raise DatasetError(f"{self.root / entry.file}: {entry.error}")
        if channels == "xy":
            flow = entry.flow
            if flow is None:
                raise DatasetError(
                    f"{self.root / entry.file}: has no optical flow; "
                    "run i3dzoo prepare again with --flow tvl1"
                )
            kind: Literal["npy", "folder"] = "npy" if flow.file.endswith(".npy") else "folder"
            size = flow.frames, flow.height, flow.width
            timed = entry if flow.fps is None else Entry("", "", fps=flow.fps)
            return VideoInfo(self.root / flow.file, kind, "xy", *size, *_times(timed, flow.frames))
        kind_rgb: Literal["file", "folder"] = "file" if self.layout == "videos" else "folder"
        size = entry.frames, entry.height, entry.width
        fps, times = _times(entry, entry.frames)
        path = self.root / entry.file
        return VideoInfo(
            path,
            kind_rgb,
            "rgb",
            *size,
            fps,
            times,
            entry.truncated,
            entry.warnings,
            entry.keyframes,
        )


def _times(entry: Entry, count: int) -> tuple[float | None, Any]:
    if entry.fps is None:
        return None, None
    if entry.times is not None:
        return entry.fps, np.asarray(entry.times[:count], dtype=np.float64)
    return entry.fps, np.arange(count, dtype=np.float64) / entry.fps


def describe(info: VideoInfo, file: str, label: str, roles: Roles, size: int) -> Entry:
    """Make an entry of what `probe` found."""
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
        # The first alone is where decoding starts anyway.
        keyframes=info.keyframes if len(info.keyframes) > 1 else (),
        truncated=info.truncated,
        warnings=info.warnings,
    )


def write_index(index: Index) -> Path:
    """Write `index.jsonl` into the index's folder and return its path.

    Raises:
        OutputError: It cannot be written.
    """
    header = {
        "format": "i3dzoo-index",
        "version": VERSION,
        "dataset": index.dataset,
        "layout": index.layout,
        "classes": index.classes,
        "fps": index.fps,
        "short_side": index.short_side,
        "flow": index.flow,
    }
    path = index.root / INDEX_NAME
    with atomic_write(path) as file:
        file.write(json.dumps(header).encode() + b"\n")
        for entry in index.entries:
            file.write(entry.to_json().encode() + b"\n")
    return path


def read_index(path: str | Path) -> Index:
    """Read an index, or make one of a folder in TAO's layout that has none.

    Args:
        path: `index.jsonl`, the folder that holds it, or a folder `<class>/<video>/{rgb,u,v}/`.

    Raises:
        MissingFileError: There is nothing at this path.
        DatasetError: The index is malformed, of a newer version, or leads out of its folder; or
            the folder holds neither an index nor folders of frames.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / INDEX_NAME).exists():
            return scan_folders(path)
        path = path / INDEX_NAME
    if not path.is_file():
        raise MissingFileError(f"{path}: no such index; i3dzoo prepare makes one")
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as an index: {error}") from error
    number = 1
    try:
        header = json.loads(lines[0])
        if header["format"] != "i3dzoo-index" or header["version"] != VERSION:
            raise DatasetError(
                f"{path}: is {header['format']} of version {header['version']}; this i3dzoo reads "
                f"i3dzoo-index of version {VERSION}"
            )
        entries: list[Entry] = []
        while number < len(lines):
            number += 1
            entries.append(read_entry(lines[number - 1]))
        return Index(
            path.parent,
            header["dataset"],
            header["layout"],
            tuple(header["classes"]),
            tuple(entries),
            header["fps"],
            header["short_side"],
            header["flow"],
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, DatasetError) and str(path) in str(error):
            raise
        raise DatasetError(f"{path}, line {number}: is malformed: {error}") from error


def read_entry(line: str) -> Entry:
    """Read one line of an index.

    Raises:
        DatasetError: A path leads out of the dataset, or numbers are no numbers of a video.
        TypeError, ValueError: It is no entry.
    """
    fields = json.loads(line)
    for key in ("roles", "times", "warnings"):
        if fields.get(key) is not None:
            fields[key] = tuple(fields[key])
    if "keyframes" in fields:
        fields["keyframes"] = tuple((int(index), int(pts)) for index, pts in fields["keyframes"])
    if fields.get("flow") is not None:
        fields["flow"] = FlowEntry(**fields["flow"])
    entry = Entry(**fields)
    for file in (entry.file, *([entry.flow.file] if entry.flow else [])):
        parts = PureWindowsPath(file)  # which knows `/` and drives too
        if parts.drive or parts.root or ".." in parts.parts or not parts.parts:
            raise DatasetError(f"{file!r} leads out of the dataset's folder")
    if len(entry.roles) != 3 or not set(entry.roles) <= {"train", "test", None}:
        raise DatasetError(f"the roles of {entry.file!r} are {list(entry.roles)}")
    if entry.error is None:
        rate = entry.fps is None or (entry.fps > 0 and math.isfinite(entry.fps))
        if min(entry.frames, entry.height, entry.width) < 1 or not rate:
            raise DatasetError(f"{entry.file!r} has no frames, no size or no sound frame rate")
        if entry.times is not None and len(entry.times) != entry.frames:
            raise DatasetError(
                f"{entry.file!r} has {entry.frames} frames and {len(entry.times)} times"
            )
    return entry


def scan_folders(root: Path) -> Index:
    """Make an index of `<root>/<class>/<video>/{rgb,u,v}/`, NVIDIA TAO's layout.

    Classes are in alphabetical order. Nothing is written. A folder that cannot be read as frames,
    or that holds none, becomes an entry with an error.

    Raises:
        DatasetError: There are no such folders.
    """
    entries, classes = [], []
    for group in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        videos = sorted(p for p in group.iterdir() if p.is_dir() and not p.name.startswith("."))
        if videos:
            classes.append(group.name)
        entries += [_scan(root, video) for video in videos]
    if all(entry.error == _NO_FRAMES for entry in entries):
        raise DatasetError(
            f"{root}: holds neither {INDEX_NAME} nor folders <class>/<video>/rgb; "
            "run i3dzoo prepare first"
        )
    return Index(root, root.name, "tao", tuple(classes), tuple(entries))


def _scan(root: Path, video: Path) -> Entry:
    file, label = video.relative_to(root).as_posix(), video.parent.name
    entry, flow = Entry(file, label), None
    if not any((video / kind).is_dir() for kind in ("rgb", "u")):
        return Entry(file, label, error=_NO_FRAMES)
    try:
        if (video / "u").is_dir():
            found = probe(video, "xy")
            flow = FlowEntry(file, found.frames, found.height, found.width)
            entry = dataclasses.replace(entry, frames=flow.frames, height=flow.height)
            entry = dataclasses.replace(entry, width=flow.width, flow=flow)
        if (video / "rgb").is_dir():
            info = probe(video)
            entry = dataclasses.replace(describe(info, file, label, (None,) * 3, 0), flow=flow)
    except ValueError as error:
        return Entry(file, label, error=str(error))
    return entry
