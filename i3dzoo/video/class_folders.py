"""Find the videos of a folder of class folders, and the lists in it."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from i3dzoo.errors import DatasetError
from i3dzoo.text import listing
from i3dzoo.video.series import IMAGE_SUFFIXES, SYSTEM_FILES, VIDEO_SUFFIXES
from i3dzoo.video.splits import Role
from i3dzoo.video.tables import LIST_SUFFIXES, PARQUET
from i3dzoo.video.walk import walk_files

PARTS: Final[dict[str, Role]] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Names of the parts of a dataset, and their roles."""


@dataclass
class FolderContents:
    """What a folder holds: videos with their class and role, lists with their role, remarks."""

    videos: list[tuple[Path, str, Role | None]] = field(default_factory=list)
    lists: list[tuple[Path, Role | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def scan_folder(root: Path) -> FolderContents:
    """Return the lists in a folder, or else the videos in its class folders.

    Lists are `metadata.csv` and so on, or one for each part, such as `train.csv`. With folders
    `train/`, `val/` or `validation/`, and `test/`, the class folders are in those.

    Raises:
        DatasetError: It has no videos, or videos but no class folders.
    """
    contents = FolderContents()
    folders, files = _list(root)
    parts = {folder: PARTS[folder.name.lower()] for folder in folders if _is_part(folder)}
    if len(parts) < len(folders):  # the others are classes, so these are too
        parts = {}
    metadata = [(path, role) for path, role in _metadata(parts)] + [
        (path, None) for path in files if _is_list(path, "metadata")
    ]
    if lists := metadata or [
        (path, PARTS[path.stem.lower()]) for path in files if _is_list(path, *PARTS)
    ]:
        contents.lists = lists
        return contents
    groups: dict[Path, Role | None] = dict(parts) if parts else {root: None}
    for group, role in groups.items():
        _scan_classes(group, role, contents)
    if not contents.videos:
        raise DatasetError(_nothing(root, folders, files))
    return contents


def _scan_classes(group: Path, role: Role | None, contents: FolderContents) -> None:
    """Add the videos of the class folders of a part."""
    folders, files = _list(group)
    loose = [path for path in files if _is_video(path)]
    empty = []
    others: Counter[str] = Counter()
    for folder in folders:
        before = len(contents.videos)
        for path in walk_files(folder, broken=True):
            if _is_video(path):
                contents.videos.append((path, folder.name, role))
            elif path.name.lower() not in SYSTEM_FILES:
                others[path.suffix.lower() or path.name] += 1
        if len(contents.videos) == before:
            empty.append(folder.name)
    if loose:
        contents.notes.append(
            f"{group}: {_count(loose)} in no class folder, such as {loose[0].name}, left out"
        )
    if empty:
        contents.notes.append(
            f"{group}: class folders without videos, left out: {listing(empty, 10)}"
        )
    if others:
        kinds = [f"{count:,} {kind}" for kind, count in others.most_common()]
        contents.notes.append(f"{group}: files that are not videos, left out: {listing(kinds, 8)}")


def _count(videos: list[Path]) -> str:
    return "1 video is" if len(videos) == 1 else f"{len(videos):,} videos are"


def _list(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the files in a folder, without hidden ones."""
    folders: list[Path] = []
    files: list[Path] = []
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names, to be sorted
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be listed: {error.strerror}") from error
    for name in names:
        path = folder / name
        if not name.startswith("."):
            (folders if path.is_dir() else files).append(path)
    return folders, files


def _is_part(folder: Path) -> bool:
    return folder.name.lower() in PARTS


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _is_list(path: Path, *stems: str) -> bool:
    return path.stem.lower() in stems and path.suffix.lower() in (*LIST_SUFFIXES, PARQUET)


def _metadata(parts: dict[Path, Role]) -> Iterable[tuple[Path, Role | None]]:
    for folder, role in parts.items():
        yield from ((path, role) for path in _list(folder)[1] if _is_list(path, "metadata"))


def _nothing(root: Path, folders: list[Path], files: list[Path]) -> str:
    """Return why a folder without class folders of videos cannot be used."""
    everything = list(walk_files(root))
    videos = [path for path in everything if _is_video(path)]
    images = [path for path in everything if path.suffix.lower() in IMAGE_SUFFIXES]
    expected = f"expected videos in class folders, {root}/<class>/<video>, or a list"
    if videos and not folders:
        return f"{root}: holds {len(videos):,} videos, but no class folders; {expected}"
    if videos:
        return f"{root}: holds videos in {videos[0].parent}, but no class folders there; {expected}"
    if images:
        return (
            f"{root}: holds {len(images):,} images, such as {images[0]}, and no videos; {expected}"
            "or frames <class>/<video>/rgb/"
        )
    names = listing([path.name for path in (*folders, *files)])
    return f"{root}: holds no videos ({names or 'it is empty'}); {expected}"
