"""What a user names as videos: files, folders of videos, and patterns."""

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from i3dzoo.errors import MissingFileError
from i3dzoo.video.series import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from i3dzoo.video.walk import walk_files


def expand_videos(names: Iterable[str]) -> tuple[str, ...]:
    """Return the videos that names stand for, in order.

    A folder of videos stands for those in it, at any depth; a folder of images is one video. A
    pattern with `*`, `?` or `[` stands for the files that match it, unless a file has this name.

    Raises:
        MissingFileError: A pattern matches nothing.
    """
    return tuple(video for name in names for video in _expand(name))


def _expand(name: str) -> Iterator[str]:
    path = Path(name)
    if path.is_dir():
        videos = [] if _is_clip(path) else _videos_in(path)
        yield from videos or [name]  # a folder without videos is refused when it is read
    elif glob.has_magic(name) and not path.exists():
        matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - an absolute pattern too
        if not matches:
            raise MissingFileError(f"{name}: no file matches this pattern")
        for match in matches:
            yield from _expand(match) if Path(match).is_dir() else [match]
    else:
        yield name


def _is_clip(folder: Path) -> bool:
    """Whether a folder holds images, or the folders of frames of one clip."""
    return any(
        path.suffix.lower() in IMAGE_SUFFIXES or (path.is_dir() and path.name in ("rgb", "u", "v"))
        for path in folder.iterdir()
        if not path.name.startswith(".")
    )


def _videos_in(folder: Path) -> list[str]:
    return [str(path) for path in walk_files(folder) if path.suffix.lower() in VIDEO_SUFFIXES]
