"""The index file of a dataset: what it refuses, and what it keeps."""

import json
from pathlib import Path

import pytest

from i3dzoo.errors import DatasetError, MissingFileError
from i3dzoo.video import read_index


def write(folder: Path, **fields: object) -> Path:
    """Write an index of one entry."""
    header = {"format": "i3dzoo-index", "version": 1, "dataset": "x", "layout": "videos"}
    header |= {"classes": ["wave"], "fps": None, "short_side": None, "flow": None}
    entry = {"file": "a.avi", "label": "wave", "frames": 3, "height": 8, "width": 8, **fields}
    path = folder / "index.jsonl"
    path.write_text(json.dumps(header) + "\n" + json.dumps(entry) + "\n")
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"file": "../a.avi"}, r"line 2: '\.\./a\.avi' leads out of the dataset's folder"),
        ({"file": "/a.avi"}, "leads out of the dataset"),
        ({"file": "C:/a.avi"}, "leads out of the dataset"),
        ({"frames": 0}, "has 0 frames of 8x8 pixels; expected 1"),
        ({"frames": 10**12}, "line 2: frames: expected an integer from 0 to 2592000, found 1"),
        ({"frames": -1}, "frames: expected an integer from 0"),
        ({"height": 1 << 20, "width": 1 << 20}, "1048576x1048576 pixels; expected"),
        ({"fps": float("nan")}, "expected finite numbers, found NaN"),
        ({"fps": 0}, "fps: expected null or a number from 0.05 to"),
        ({"times": [0.0]}, "has 1 times; expected one for each of its 3 frames"),
        ({"times": [0.0, 2.0, 1.0]}, "the times .* decrease"),
        ({"keyframes": [[0, 0], [3, 9]]}, "keyframes .* not increasing frame numbers"),
        ({"keyframes": [[0, 1 << 63]]}, r"keyframes\[0\]\[1\]: expected an integer"),
        ({"roles": ["train", "dev", None]}, r"roles\[1\]: expected null or .*found 'dev'"),
        ({"flow": {"file": "../x", "frames": 2, "height": 8, "width": 8}}, "flow: .*leads out"),
        ({"colour": 1}, "colour: unknown key"),
        ({"label": "walk"}, "its class 'walk' is not among the 1 classes"),
    ],
)
def test_malformed(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    """An entry with impossible values is refused, and nothing is allocated for it."""
    with pytest.raises(DatasetError, match=message):
        read_index(write(tmp_path, **fields))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"version": 1', b'"version": 2', r"line 1: version: expected 1; update i3dzoo.*found 2"),
        (b"{", b"\xff{", r"index\.jsonl, line 1: expected JSON in UTF-8"),
    ],
)
def test_malformed_header(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    """An index of another version, and bytes that are not text, are refused."""
    path = write(tmp_path)
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(DatasetError, match=message):
        read_index(tmp_path)


def test_no_clips(tmp_path: Path) -> None:
    """An index without videos is an error."""
    path = write(tmp_path)
    path.write_text(path.read_text().partition("\n")[0] + "\n")
    with pytest.raises(DatasetError, match="the index lists no videos"):
        read_index(path).select(None, None)


def test_neither_index_nor_folders(tmp_path: Path) -> None:
    """Empty and missing folders are errors that say what is expected."""
    with pytest.raises(DatasetError, match=r"holds neither index\.jsonl nor folders"):
        read_index(tmp_path)
    with pytest.raises(
        MissingFileError, match=r"gone: no such file.*an index, which i3dzoo prepare"
    ):
        read_index(tmp_path / "gone")


def test_no_such_split(tmp_path: Path) -> None:
    """A split that does not exist, or is empty, is an error."""
    index = read_index(write(tmp_path))
    with pytest.raises(DatasetError, match="expected split 1, 2 or 3"):
        index.select(4, "train")
    with pytest.raises(DatasetError, match="split 1 has no train videos"):
        index.select(1, "train")


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    """A variable frame rate survives the index."""
    index = read_index(write(tmp_path, fps=2.0, times=[0.0, 0.1, 1.0]))
    times = index.info(index.entries[0]).times
    assert times is not None
    assert times.tolist() == [0.0, 0.1, 1.0]
