"""Read the classes of the videos of a multi-label dataset, from a table as Charades has it."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from i3dzoo.errors import DatasetError, VideoError
from i3dzoo.files import missing_error, read_text
from i3dzoo.progress import SILENT, Progress
from i3dzoo.text import shorten
from i3dzoo.video.decode import probe
from i3dzoo.video.index import Entry, Index, make_entry
from i3dzoo.video.index_file import INDEX_NAME, read_index

_COLUMNS: Final = ("id", "actions")
_NUMBER: Final = re.compile(r"c(\d{3})")  # Charades' name of the class of this number


def read_annotations(path: Path, classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read the classes of each video from a CSV file with the columns `id` and `actions`.

    `id` is the name of a video file without its suffix. `actions` are separated by `;`, each the
    name of a class, or `c` and its number in three digits. What follows a number, such as Charades'
    start and end in seconds, and other columns are ignored.

    Args:
        path: The file, such as `Charades_v1_test.csv`.
        classes: Names of the classes, in the order of the logits.

    Raises:
        MissingFileError: There is no such file.
        DatasetError: A column is missing, a class is unknown, or a video occurs twice.
    """
    try:
        return _read(path, csv.DictReader(io.StringIO(read_text(path, DatasetError))), classes)
    except csv.Error as error:
        raise DatasetError(f"{path}: is not a table: {error}") from error


def _read(
    path: Path, table: "csv.DictReader[str]", classes: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    if not set(_COLUMNS) <= set(table.fieldnames or ()):
        raise DatasetError(
            f"{path}: expected a CSV table with the columns id and actions, found "
            f"{', '.join(table.fieldnames or ()) or 'an empty file'}"
        )
    names, videos = set(classes), dict[str, tuple[str, ...]]()
    for row in table:
        video = row["id"]
        if video in videos:
            raise DatasetError(f"{path}, line {table.line_num}: {video} occurs twice")
        if not video or set(video) & {"/", "\\", "\0"} or video in (".", ".."):
            raise DatasetError(
                f"{path}, line {table.line_num}: expected the name of a video file without its "
                f"suffix as id, found {shorten(repr(video), 80)}"
            )
        found = [action.strip() for action in (row["actions"] or "").split(";") if action.strip()]
        videos[video] = tuple(dict.fromkeys(_class_of(action, classes, names) for action in found))
        if "" in videos[video]:
            unknown = next(a for a in found if not _class_of(a, classes, names))
            raise DatasetError(
                f"{path}, line {table.line_num}: {unknown!r} is none of the {len(classes)} classes "
                f"({', '.join(classes[:3])}, …), nor c000 to c{len(classes) - 1:03}"
            )
    return videos


def _class_of(action: str, classes: Sequence[str], names: set[str]) -> str:
    """Return the name of a class; an empty text if there is none."""
    if action in names:
        return action
    match = _NUMBER.fullmatch(action.split()[0])
    return classes[int(match[1])] if match and int(match[1]) < len(classes) else ""


def annotated_index(
    data: Path,
    annotations: Mapping[str, tuple[str, ...]],
    classes: Sequence[str],
    progress: Progress = SILENT,
) -> Index:
    """Return an index of the annotated videos in a folder, or of those in an index.

    Videos without a class are left out. A video that is missing or cannot be read has an entry
    with an error.

    Raises:
        MissingFileError: There is no such folder.
        DatasetError: Two files have the same name without suffix.
    """
    if data.name == INDEX_NAME:
        data = data.parent
    if not data.is_dir():
        raise missing_error(data, "no such folder")
    wanted = {name: labels for name, labels in annotations.items() if labels}
    if (data / INDEX_NAME).is_file():
        index = read_index(data)
        entries = {Path(entry.file).stem: entry for entry in index.entries}
        chosen = tuple(
            _labelled(entries.get(name) or _missing(name), labels)
            for name, labels in wanted.items()
        )
        return Index(
            data,
            index.dataset,
            index.layout,
            tuple(classes),
            chosen,
            index.fps,
            index.short_side,
            index.flow,
        )
    files: dict[str, Path] = {}
    for path in sorted(data.rglob("*")):
        if path.stem in wanted and path.is_file():
            if path.stem in files:
                raise DatasetError(
                    f"{path}: {files[path.stem]} has the same name; keep one of the two in {data}"
                )
            files[path.stem] = path
    progress.start("reading videos", len(wanted), "items")
    probed = []
    for number, (name, labels) in enumerate(wanted.items(), 1):
        entry = _probe(data, files[name]) if name in files else _missing(name)
        probed.append(_labelled(entry, labels))
        progress.update(number)
    return Index(data, data.resolve().name, "videos", tuple(classes), tuple(probed))


def _probe(root: Path, path: Path) -> Entry:
    file = path.relative_to(root).as_posix()
    try:
        return make_entry(probe(path), file, "", (None, None, None), path.stat().st_size)
    except (VideoError, OSError) as error:
        return Entry(file, "", error=str(error))


def _missing(name: str) -> Entry:
    return Entry(name, "", error="there is no video of this name")


def _labelled(entry: Entry, labels: tuple[str, ...]) -> Entry:
    return entry.replace(label="", labels=labels)
