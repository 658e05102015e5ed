"""Read lists of videos: CSV, TSV, JSON lines, parquet, and lines `path label`.

Columns are found by their usual names; a list without a heading has a path and a label. Every value
becomes text, and `i3dzoo.video.sources` finds the files and the classes.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from i3dzoo.errors import DatasetError, DependencyError
from i3dzoo.files import TEXT_BYTES, open_input, read_text, split_lines
from i3dzoo.records import parse_json
from i3dzoo.text import listing, shorten
from i3dzoo.video.series import VIDEO_SUFFIXES

LIST_SUFFIXES: Final = (".csv", ".tsv", ".txt", ".list", ".lst", ".jsonl", ".ndjson", ".json")
PARQUET: Final = ".parquet"

_NAMES: Final = {
    "path": "path video_path file_path filepath video file_name filename file video_file "
    "video_name clip clip_path clip_name youtube_id video_id vid id name",
    "label": "label class class_name label_name classname category action activity target "
    "label_id class_id label_idx class_idx labels classes actions y",
    "split": "split subset partition set part",
    "start": "start start_time time_start start_sec start_seconds start_s t_start begin",
    "end": "end end_time time_end end_sec end_seconds end_s t_end stop",
}
_KEYS: Final = {key: tuple(names.split()) for key, names in _NAMES.items()}
_FRAMES: Final = ("start_frame", "end_frame", "frame_start", "frame_end", "stop_frame")
_SUFFIXES: Final = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
_PATH_FIRST: Final = re.compile(rf"(.*\.(?:{_SUFFIXES}))[ \t]+(\S.*)", re.IGNORECASE)
_CLOCK: Final = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)", re.ASCII)

_MAX_ROWS: Final = 5_000_000

Table = Iterable[tuple[str, dict[str, str]]]  # where a row is, and its values by column


@dataclass(frozen=True)
class Row:
    """A row of a list; the texts are as written, and empty where there is nothing.

    `where` names the list and the line. `is_id` is whether `path` is the identifier of a video, as
    in Kinetics' lists, and not a path.
    """

    where: str
    path: str
    label: str
    split: str = ""
    start: float | None = None
    end: float | None = None
    is_id: bool = False


def read_table(path: Path) -> tuple[list[Row], tuple[str, ...]]:
    """Read a list of videos; return its rows, and remarks on how it was read.

    Raises:
        MissingFileError: There is no such file.
        DatasetError: It has no path or label column, or a line is malformed.
        DependencyError: It is parquet, and pyarrow is not installed.
    """
    columns, table = _open(path)
    if not columns:
        raise DatasetError(f"{path}: is empty; expected a list of videos and their classes")
    chosen, notes = _choose(path, columns)
    rows = [_row(where, values, chosen) for where, values in table]
    if not rows:
        raise DatasetError(f"{path}: lists no videos; expected a line for each")
    return rows, tuple(notes)


def _open(path: Path) -> tuple[Sequence[str], Table]:
    """Return the names of the columns of a list, and its rows."""
    suffix = path.suffix.lower()
    if suffix == PARQUET:
        return _of_parquet(path)
    text = read_text(path, DatasetError)
    if suffix in (".json", ".jsonl", ".ndjson"):
        return _of_json(path, text, suffix == ".json")
    lines = split_lines(text)
    first = next(filter(None, lines), "")
    if not first:
        return (), ()
    delimiter = next((mark for mark in "\t,;" if mark in first), None)
    if delimiter is None:
        return ("path", "label"), _of_lines(path, lines)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        heading = [_key(cell) for cell in next(csv.reader([first], delimiter=delimiter))]
    except csv.Error as error:
        raise DatasetError(f"{path}: is not a table: {error}") from error
    if not _is_heading(heading):
        return ("path", "label"), _of_cells(path, reader, ("path", "label"), heading=False)
    return heading, _of_cells(path, reader, heading, heading=True)


def _key(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _is_heading(cells: Sequence[str]) -> bool:
    """Whether the cells of a first line are names of columns, and not a path and a label."""
    return any(cell in _KEYS["path"] for cell in cells) or not (
        len(cells) == 2 and Path(cells[0]).suffix in VIDEO_SUFFIXES
    )


def _of_cells(
    path: Path, reader: Iterator[list[str]], columns: Sequence[str], heading: bool
) -> Table:
    try:
        for number, cells in enumerate(reader):
            if not any(cells) or (heading and number == 0):
                continue
            if len(cells) != len(columns):
                raise DatasetError(
                    f"{path}, line {number + 1}: expected {len(columns)} columns "
                    f"({', '.join(columns)}), found {len(cells)}; quote a value that has the "
                    "separator in it"
                )
            yield f"{path}, line {number + 1}", dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise DatasetError(f"{path}: is not a table: {error}") from error


def _of_lines(path: Path, lines: Sequence[str]) -> Table:
    """Yield the rows of lines `path label`; the path may have spaces in it."""
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        match = _PATH_FIRST.fullmatch(line)
        video, _, label = line.rpartition(" ") if match is None else (match[1], "", match[2])
        if not video.strip():
            raise DatasetError(
                f"{path}, line {number}: expected a path and a class, found {shorten(line)!r}"
            )
        if match is None and (words := video.rsplit(" ", 1))[-1].isdecimal() and len(words) == 2:
            raise DatasetError(
                f"{path}, line {number}: expected a video and a class, found a folder, a number of "
                "frames and a class; list video files, as mmaction2's lists of videos do"
            )
        yield f"{path}, line {number}", {"path": video.strip(), "label": label}


def _of_json(path: Path, text: str, is_one: bool) -> tuple[Sequence[str], Table]:
    if is_one:
        rows: Any = parse_json(text, list[dict[str, Any]], str(path), error=DatasetError)
        places = [(f"{path}, entry {number}", row) for number, row in enumerate(rows, 1)]
    else:
        lines = ((number, line) for number, line in enumerate(split_lines(text), 1) if line)
        places = [
            (where := f"{path}, line {number}", parse_json(line, dict, where, error=DatasetError))
            for number, line in lines
        ]
    columns = dict.fromkeys(_key(key) for _, row in places for key in row)
    return tuple(columns), ((where, _texts(where, row)) for where, row in places)


def _of_parquet(path: Path) -> tuple[Sequence[str], Table]:
    try:
        import pyarrow
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DependencyError(
            f"{path}: reading parquet needs pyarrow: pip install 'i3dzoo[parquet]'"
        ) from error
    try:
        with open_input(path, DatasetError) as source, pq.ParquetFile(source) as file:
            fields = {name: _key(name) for name in file.schema_arrow.names if _key(name) in _KNOWN}
            _check_parquet(path, file, fields)
            # threads of pyarrow that have just started may abort a process that ends
            rows = file.read(columns=list(fields), use_threads=False).to_pylist()
    except DatasetError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # also text that is not UTF-8
        raise DatasetError(f"{path}: cannot be read as parquet: {error}") from error
    places = ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))
    return tuple(fields.values()), ((where, _texts(where, row)) for where, row in places)


def _check_parquet(path: Path, file: Any, names: Iterable[str]) -> None:
    """Raise a DatasetError for a list that holds the videos, or is too large, before it is read."""
    import pyarrow

    for name in names:
        kind = file.schema_arrow.field(name).type
        kinds = [kind, *(kind.field(part).type for part in range(kind.num_fields))]
        if any(
            pyarrow.types.is_binary(part) or pyarrow.types.is_large_binary(part) for part in kinds
        ):
            raise DatasetError(
                f"{path}: holds the videos themselves, in the column {name}; write them to files, "
                "and name a list of the files"
            )
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    size = sum(group.total_byte_size for group in groups)
    if size > TEXT_BYTES * 4 or file.metadata.num_rows > _MAX_ROWS:
        raise DatasetError(
            f"{path}: expected at most {_MAX_ROWS:,} rows in {TEXT_BYTES * 4:,} bytes, found "
            f"{file.metadata.num_rows:,} rows in {size:,} bytes"
        )


def _texts(where: str, row: dict[str, Any]) -> dict[str, str]:
    """Return the values of a row as text; a list of one value is the value."""
    texts = {}
    for key, value in row.items():
        if isinstance(value, dict) and isinstance(value.get("path"), str):
            value = value["path"]  # a video of the Hub's datasets
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if isinstance(value, list | tuple) and _key(key) in _KEYS["label"]:
            raise several_classes(where, str(listing([str(part) for part in value])))
        texts[_key(key)] = "" if value is None else str(value)
    return texts


def several_classes(where: str, classes: str) -> DatasetError:
    """Return the error for a video with several classes."""
    return DatasetError(
        f"{where}: expected one class, found several ({classes}); i3dzoo trains networks for one "
        "class a video. Evaluate a multi-label model with i3dzoo evaluate --annotations"
    )


_KNOWN: Final = {name for names in _KEYS.values() for name in names} | set(_FRAMES)


def _choose(path: Path, columns: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return which column has the path, the label and so on, and what is ignored."""
    chosen, notes = {}, []
    for key, names in _KEYS.items():
        present = [name for name in names if name in columns]
        if present:
            chosen[key] = present[0]
        if len(present) > 1 and key in ("path", "label"):
            others = ", ".join(present[1:])
            notes.append(f"{path}: reads the column {present[0]}, and not {others}")
    for key in ("path", "label"):
        if key not in chosen:
            raise DatasetError(
                f"{path}: expected a column with the {key} of each video, such as "
                f"{', '.join(_KEYS[key][:4])}; found {listing(list(columns), 12)}"
            )
    if "start" not in chosen and "end" not in chosen and set(_FRAMES) & set(columns):
        frames = next(name for name in _FRAMES if name in columns)
        raise DatasetError(
            f"{path}: has the column {frames}; expected segments in seconds, in columns start and "
            "end: divide the numbers of frames by the frame rate"
        )
    return chosen, notes


def _row(where: str, values: dict[str, str], chosen: dict[str, str]) -> Row:
    texts = {key: values.get(column, "").strip() for key, column in chosen.items()}
    for key in ("path", "label"):
        if not texts[key]:
            raise DatasetError(f"{where}: has no {key}; expected a {key} in each line")
    label = texts["label"]
    parts = label.split(";") if ";" in label else label.split("|")
    if len(parts) == 1 and len(label.split()) > 1 and label.replace(" ", "").isdecimal():
        parts = label.split()
    if len(parts) > 1:
        raise several_classes(where, shorten(label))
    start, end = (_seconds(where, key, texts.get(key, "")) for key in ("start", "end"))
    if end is not None and end <= (start or 0):
        raise DatasetError(
            f"{where}: the segment ends at {end:g} s; expected an end after its start at "
            f"{start or 0:g} s"
        )
    is_id = chosen["path"] in ("youtube_id", "video_id", "vid", "id")
    return Row(where, texts["path"], label, texts.get("split", ""), start, end, is_id)


def _seconds(where: str, key: str, text: str) -> float | None:
    if not text or text.lower() in ("nan", "none", "null"):
        return None
    match = _CLOCK.fullmatch(text)
    try:
        if match:
            return int(match[1] or 0) * 3600 + int(match[2]) * 60 + float(match[3])
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e9:
        raise DatasetError(f"{where}: {key} is {shorten(text)!r}; expected seconds from 0")
    return seconds
