"""Find the videos that a user names: a folder of class folders, or a list; nothing is opened."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Final
from unicodedata import normalize

from i3dzoo.checkpoints.labels import find_labels
from i3dzoo.errors import DatasetError, MissingFileError
from i3dzoo.files import missing_error
from i3dzoo.files.output_names import name_key
from i3dzoo.text import listing
from i3dzoo.video.class_folders import PARTS, scan_folder
from i3dzoo.video.series import VIDEO_SUFFIXES
from i3dzoo.video.splits import Role
from i3dzoo.video.tables import LIST_SUFFIXES, PARQUET, Row, read_table, several_classes
from i3dzoo.video.walk import walk_files

_CLASS_FILES: Final = (
    *("classes.txt", "labels.txt", "class_names.txt", "label_map.txt", "classInd.txt"),
    *("classes.json", "labels.json", "class_names.json"),
)

_ARCHIVES: Final = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst")

DATASET_SUFFIXES: Final = VIDEO_SUFFIXES | {*LIST_SUFFIXES, PARQUET}
"""Suffixes of the files that a source may consist of."""


@dataclass(frozen=True)
class ListedVideo:
    """A video that a user names, or a segment of it.

    Attributes:
        path: The file, absolute; it does not exist if `error` is set.
        label: Name of its class.
        role: Its part of the dataset; None if the source does not say.
        start: Second at which the segment starts; None for the start of the video.
        end: Second at which the segment ends; None for the end of the video.
        may_be_cut: Whether the file may hold the segment alone, as downloaded Kinetics clips do.
        error: Why there is no video.
    """

    path: Path
    label: str
    role: Role | None = None
    start: float | None = None
    end: float | None = None
    may_be_cut: bool = False
    error: str | None = None


@dataclass(frozen=True)
class VideoList:
    """The videos of a source, the names of their classes in order, and remarks."""

    videos: tuple[ListedVideo, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def read_source(
    source: str | Path,
    *,
    labels: str | Path | Sequence[str] | None = None,
    root: str | Path | None = None,
) -> VideoList:
    """Find the videos of a folder or of a list, and their classes.

    Args:
        source: A folder `<class>/<video>`, with `train/`, `val/` or `validation/` and `test/` above
            the classes if there are parts; a folder with `metadata.csv`, `metadata.jsonl` or lists
            such as `train.csv`; or a list: see `i3dzoo.video.tables`.
        labels: Names of the classes in the order of the logits: a label set, a file, or the names.
            None takes a file such as `classes.txt` beside a list of numbers, and else the names
            that occur, in alphabetical order.
        root: The folder of the videos of a list; None for the folder of the list.

    Raises:
        MissingFileError: The source does not exist, or none of its videos does.
        DatasetError: It has no videos, a line is malformed, a class is unknown, or a video has
            several classes.
    """
    if not Path(source).expanduser().exists():
        raise missing_error(source)
    _check_kind(Path(source))
    source = Path(os.path.abspath(Path(source).expanduser()))  # noqa: PTH100 - keeps links
    notes: list[str] = []
    if source.is_dir():
        contents = scan_folder(source)
        notes += contents.notes
        videos = [
            ListedVideo(path, normalize("NFC", label), role)
            for path, label, role in contents.videos
        ]
        lists = contents.lists
    else:
        videos, lists = [], [(source, None)]
    for path, role in lists:
        finder = _Finder(path.parent if root is None else Path(root).expanduser().absolute())
        rows, remarks = read_table(path)
        notes += remarks
        videos += [_listed(row, role, finder) for row in rows]
    videos = _without_unusable_names(videos, notes)
    given = _class_names(labels, lists, videos, notes)
    named, classes = _name_classes(source, videos, given, notes)
    named = _without_repeats(source, named, notes)
    missing = [video for video in named if video.error]
    if len(missing) == len(named):
        raise MissingFileError(
            f"{source}: lists {len(named):,} videos, and none exists, such as {missing[0].path}; "
            "name the folder of the videos with --root"
        )
    return VideoList(tuple(named), classes, tuple(notes))


def _check_kind(source: Path) -> None:
    """Raise a DatasetError for a file that is not a list: a video or an archive."""
    suffix = source.suffix.lower()
    if source.is_dir() or suffix in (*LIST_SUFFIXES, PARQUET):
        return
    what, remedy = f"a file with the suffix {suffix or 'none'}", "name one of these"
    if suffix in VIDEO_SUFFIXES:
        what, remedy = "a video", "name the folder of its class folder"
    elif suffix in _ARCHIVES:
        what, remedy = "an archive", "extract it, and name the folder"
    raise DatasetError(
        f"{source}: expected a folder of class folders, or a list "
        f"({', '.join((*LIST_SUFFIXES, PARQUET))}); found {what}: {remedy}"
    )


def _listed(row: Row, role: Role | None, finder: "_Finder") -> ListedVideo:
    """Return the video of a row of a list, whose class may be a number yet."""
    if row.split:
        if row.split.lower() not in PARTS:
            raise DatasetError(
                f"{row.where}: the split is {row.split!r}; expected train, val or test"
            )
        role = PARTS[row.split.lower()]
    start, end, cut = row.start, row.end, False
    path = None
    if row.is_id and start is not None and end is not None:
        path = finder.find(*(f"{row.path}_{_number(start)}_{_number(end)}",), row.where)
        path = path or finder.find(f"{row.path}_{start:g}_{end:g}", row.where)
        if path:  # a file that holds the segment alone
            return ListedVideo(path, row.label, role)
        cut = True
    path = finder.find(row.path, row.where)
    if path is None:
        place = Path(os.path.abspath(finder.root / row.path))  # noqa: PTH100 - keeps links
        return ListedVideo(place, row.label, role, start, end, error="there is no such file")
    if role is None and not row.split and len(PurePath(row.path).parts) > 1:
        role = PARTS.get(PurePath(row.path).parts[0].lower())
    return ListedVideo(path, row.label, role, start, end, cut)


def _number(seconds: float) -> str:
    return f"{int(seconds):06d}"


class _Finder:
    """Finds the files of a list: at their paths, or else anywhere below a folder by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[str, list[Path]] | None = None

    def find(self, text: str, where: str) -> Path | None:
        """Return the absolute path of a file; a name without a suffix stands for any video."""
        path = Path(os.path.abspath(self.root / Path(text).expanduser()))  # noqa: PTH100 - keeps links
        if path.is_file():
            return path
        name = name_key(text.replace("\\", "/").rsplit("/", 1)[-1])
        places = self._below().get(name, [])
        if len(places) > 1:
            raise DatasetError(
                f"{where}: {text!r} may be {places[0]} or {places[1]}; write its path from "
                f"{self.root}"
            )
        return places[0] if places else None

    def _below(self) -> dict[str, list[Path]]:
        """Return the videos below the folder by name, with and without suffix."""
        if self._files is None:
            self._files = {}
            for path in walk_files(self.root):
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    for name in {name_key(path.name), name_key(path.stem)}:
                        self._files.setdefault(name, []).append(path)
        return self._files


def _without_unusable_names(videos: Iterable[ListedVideo], notes: list[str]) -> list[ListedVideo]:
    """Leave out files whose names are not text, because an index is text."""
    usable = []
    for video in videos:
        try:
            str(video.path).encode()
            usable.append(video)
        except UnicodeEncodeError:
            notes.append(f"{video.path}: its name is not UTF-8; left out, rename it")
    return usable


def _class_names(
    labels: str | Path | Sequence[str] | None,
    lists: Sequence[tuple[Path, Role | None]],
    videos: Sequence[ListedVideo],
    notes: list[str],
) -> tuple[str, ...] | None:
    """Return the names of the classes that the user gives, or None."""
    if isinstance(labels, str | Path):
        return find_labels(labels)
    if labels is not None:
        return tuple(labels)
    if not lists or not all(video.label.isdecimal() for video in videos):
        return None
    folder = lists[0][0].parent
    path = next((folder / name for name in _CLASS_FILES if (folder / name).is_file()), None)
    if path is None:
        notes.append(
            f"{lists[0][0]}: the classes have numbers and no names; name them with --labels"
        )
        return None
    notes.append(f"the names of the classes are those of {path}")
    return find_labels(path)


def _name_classes(
    source: Path,
    videos: Sequence[ListedVideo],
    given: tuple[str, ...] | None,
    notes: list[str],
) -> tuple[list[ListedVideo], tuple[str, ...]]:
    """Return the videos with the names of their classes, and all names in order."""
    labels = {video.label for video in videos}
    if given is None:
        return list(videos), tuple(sorted(labels, key=_order))
    known = {normalize("NFC", name): name for name in given}
    names = {label: known.get(normalize("NFC", label)) for label in labels}
    unknown = sorted(label for label, name in names.items() if name is None)
    if unknown and all(label.isdecimal() for label in labels):  # numbers, and not names
        numbers = {int(label) for label in labels}
        if max(numbers) >= len(given):
            first = " (numbers start at 0)" if min(numbers) == 1 else ""
            raise DatasetError(
                f"{source}: has class number {max(numbers)}; expected 0 to {len(given) - 1} for "
                f"{len(given)} names of classes{first}"
            )
        names = {label: given[int(label)] for label in labels}
    elif unknown:
        raise DatasetError(
            f"{source}: has the class {unknown[0]!r}, which is not among the {len(given)} given "
            f"classes ({listing(given)})"
        )
    used = {str(name) for name in names.values()}
    if without := [name for name in given if name not in used]:
        notes.append(
            f"{len(without):,} of the {len(given):,} classes have no videos: {listing(without, 5)}"
        )
    return [replace(video, label=str(names[video.label])) for video in videos], given


def _order(label: str) -> tuple[int, str]:
    """Return the key that sorts numbers by value, before names."""
    return (int(label), label) if re.fullmatch("[0-9]{1,9}", label) else (1 << 62, label)


def _without_repeats(
    source: Path, videos: Sequence[ListedVideo], notes: list[str]
) -> list[ListedVideo]:
    """Leave out repeated samples; a sample with two classes is an error, with two parts too."""
    first: dict[tuple[Path, float | None, float | None], ListedVideo] = {}
    repeated = 0
    for video in videos:
        earlier = first.setdefault((video.path, video.start, video.end), video)
        if earlier.label != video.label:
            raise several_classes(f"{source}: {video.path}", f"{earlier.label} and {video.label}")
        if earlier.role != video.role:
            raise DatasetError(
                f"{source}: {video.path} is in {earlier.role or 'no part'} and in "
                f"{video.role or 'no part'}; expected each video in one part"
            )
        repeated += earlier is not video
    if repeated:
        notes.append(f"{source}: {repeated:,} repeated lines, left out")
    return list(first.values())
