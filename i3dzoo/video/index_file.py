"""Read and write the index of a prepared dataset, in JSON lines, or make one of folders.

The first line of `index.jsonl` describes the dataset, and every other line describes one video.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal
from unicodedata import normalize

import msgspec
from msgspec import Meta

from i3dzoo.errors import DatasetError, MissingFileError
from i3dzoo.files import atomic_write, open_input
from i3dzoo.records import Record, parse_json
from i3dzoo.video.decode import probe
from i3dzoo.video.index import (
    Entry,
    FlowEntry,
    FlowSettings,
    Index,
    Layout,
    Rate,
    SplitSettings,
    make_entry,
)

INDEX_NAME: Final = "index.jsonl"

_MAX_LINE: Final = 256 << 20  # bytes; times of 10 million frames
_NO_FRAMES: Final = "holds no frames: it has neither rgb/ nor u/ and v/"


class _Header(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The first line of an index."""

    format: Literal["i3dzoo-index"]
    version: Annotated[Literal[1], Meta(description="1; update i3dzoo, or prepare the data again")]
    dataset: str
    layout: Layout
    classes: tuple[str, ...]
    fps: Rate | None
    short_side: Annotated[int, Meta(ge=1)] | None
    flow: FlowSettings | None
    videos: str | None = None
    split: SplitSettings | None = None


def write_index(index: Index) -> Path:
    """Write `index.jsonl` to the folder of the index and return its path.

    Raises:
        OutputError: It cannot be written.
    """
    header = _Header(
        format="i3dzoo-index",
        version=1,
        dataset=index.dataset,
        layout=index.layout,
        classes=index.classes,
        fps=index.fps,
        short_side=index.short_side,
        flow=index.flow,
        videos=None if index.videos is None else str(index.videos),
        split=index.split,
    )
    path = index.root / INDEX_NAME
    with atomic_write(path) as file:
        for line in (header, *index.entries):
            file.write(msgspec.json.encode(line) + b"\n")
    return path


def read_index(path: str | Path) -> Index:
    """Read an index, or make one for a folder in TAO's layout that has none.

    Args:
        path: `index.jsonl`, its folder, or a folder `<class>/<video>/{rgb,u,v}/`.

    Raises:
        MissingFileError: The path does not exist.
        DatasetError: The index is malformed or has another version, a path in it leads out of its
            folder, or the folder has neither an index nor folders of frames.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / INDEX_NAME).exists():
            return scan_folders(path)
        path = path / INDEX_NAME
    if not path.exists():
        raise MissingFileError(
            f"{path}: no such file or folder; expected a folder <class>/<video>, a list of videos, "
            "or an index, which i3dzoo prepare makes"
        )
    lines = _lines(path)
    header = parse_json(next(lines, b""), _Header, f"{path}, line 1", error=DatasetError)
    entries = tuple(
        parse_json(line, Entry, f"{path}, line {number}", error=DatasetError, limit=_MAX_LINE)
        for number, line in enumerate(lines, 2)
    )
    return Index(
        path.parent,
        header.dataset,
        header.layout,
        header.classes,
        entries,
        header.fps,
        header.short_side,
        header.flow,
        None if header.videos is None else path.parent / header.videos,
        header.split,
    )


def video_folder(path: Path) -> Path:
    """Return the folder that the files of an index are relative to; without an index, `path`."""
    index = path / INDEX_NAME if path.is_dir() else path
    if not index.is_file():
        return path
    line = next(_lines(index), b"")
    header = parse_json(line, _Header, f"{index}, line 1", error=DatasetError)
    return index.parent / (header.videos or "")


def is_prepared(path: str | Path) -> bool:
    """Return whether `read_index` reads a path: an index, its folder, or TAO's layout."""
    path = Path(path)
    if not path.exists():
        return True  # read_index says so
    if path.is_dir():
        return (path / INDEX_NAME).exists() or any(
            next(path.glob(f"[!.]*/[!.]*/{name}/"), None) for name in ("rgb", "u")
        )
    if path.suffix.lower() != ".jsonl":
        return False
    with open_input(path, DatasetError) as file:
        return b"i3dzoo-index" in file.read(200)


def _lines(path: Path) -> Iterator[bytes]:
    """Yield lines; of a line that is too long, one byte more than the limit."""
    try:
        with open_input(path, DatasetError) as file:
            while line := file.readline(_MAX_LINE + 1):
                yield line
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error


def scan_folders(root: Path) -> Index:
    """Make an index of `<root>/<class>/<video>/{rgb,u,v}/`, NVIDIA TAO's layout.

    A folder that holds no frames, or unreadable ones, becomes an entry with an error.
    """
    entries, classes = [], []
    for group in _folders(root):
        videos = _folders(group)
        label = normalize("NFC", group.name)
        if videos and label not in classes:
            classes.append(label)
        entries += [_scan(root, video) for video in videos]
    if all(entry.error == _NO_FRAMES for entry in entries):
        raise DatasetError(
            f"{root}: holds neither {INDEX_NAME} nor folders <class>/<video>/rgb; "
            "run i3dzoo prepare first, such as i3dzoo prepare videos for folders of videos"
        )
    return Index(root, root.name, "tao", tuple(classes), tuple(entries))


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _scan(root: Path, video: Path) -> Entry:
    file, label = video.relative_to(root).as_posix(), normalize("NFC", video.parent.name)
    flow = entry = None
    try:
        if (video / "u").is_dir():
            info = probe(video, "xy")
            flow = FlowEntry(file, info.frames, info.height, info.width)
            entry = Entry(
                file, label, frames=info.frames, height=info.height, width=info.width, flow=flow
            )
        if (video / "rgb").is_dir():
            rgb = make_entry(probe(video), file, label, (None, None, None), 0)
            entry = msgspec.structs.replace(rgb, flow=flow)
    except ValueError as error:
        return Entry(file, label, error=str(error))
    return entry or Entry(file, label, error=_NO_FRAMES)
