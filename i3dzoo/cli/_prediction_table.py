"""The results of `i3dzoo predict` as a file: CSV, JSON lines or JSON."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from i3dzoo.errors import OutputError
from i3dzoo.files import atomic_write, check_output

SUFFIXES: Final = (".csv", ".jsonl", ".json")

_COLUMNS: Final = ("path", "start", "end", "rank", "label", "index", "probability", "error")


def check_table(path: Path, force: bool = False) -> None:
    """Check before long work that a table can be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f"{path}: expected the suffix of a table, one of {', '.join(SUFFIXES)}; found "
            f"{path.suffix or 'none'}"
        )
    check_output(path, force)


def write_table(path: Path, documents: Sequence[Mapping[str, Any]]) -> None:
    """Write the documents of the videos.

    JSON lines has one document per line. CSV has a line for each class of a video, best first; with
    a timeline, for each segment, with its start and end; and one line for a video that failed.
    """
    if path.suffix.lower() == ".csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, _COLUMNS)
        writer.writeheader()
        writer.writerows(row for document in documents for row in _rows(document))
        data = text.getvalue()
    elif path.suffix.lower() == ".jsonl":
        data = "".join(f"{json.dumps(document)}\n" for document in documents)
    else:
        data = json.dumps(list(documents), indent=1) + "\n"
    with atomic_write(path) as file:
        file.write(data.encode("utf-8", "surrogateescape"))


def _rows(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    path = document["path"]
    if "error" in document:
        yield {"path": path, "error": document["error"]}
    elif "timeline" in document:
        for segment in document["timeline"]["segments"]:
            yield {"path": path, **segment}
    else:
        for rank, score in enumerate(document["top"], 1):
            keys = ("label", "index", "probability")
            yield {"path": path, "rank": rank, **{key: score[key] for key in keys}}
