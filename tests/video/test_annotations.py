"""The classes of multi-label videos, from tables as Charades has them."""

from pathlib import Path

import pytest
from helpers.video_data import small_prepared

from i3dzoo.errors import DatasetError, MissingFileError
from i3dzoo.video.annotations import annotated_index, read_annotations

CLASSES = ("Holding some clothes", "Putting clothes somewhere", "Taking some clothes")
TABLE = """id,subject,quality,actions,length
46GP8,HR43,6,c002 11.90 21.20;c000 0.00 12.60;c002 0.00 3.00,24.83
N11GT,0KZ7,5,,18.33
0IH69,6RE8,6,Putting clothes somewhere; c000 1.0 2.0,30.46
"""


def table(folder: Path, text: str = TABLE, encoding: str = "utf-8") -> Path:
    """Write a table."""
    path = folder / "test.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_charades(tmp_path: Path, encoding: str) -> None:
    """Numbers and names are classes; times, repetitions and other columns do not matter."""
    assert read_annotations(table(tmp_path, encoding=encoding), CLASSES) == {
        "46GP8": (CLASSES[2], CLASSES[0]),
        "N11GT": (),
        "0IH69": (CLASSES[1], CLASSES[0]),
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("actions", "labels", "expected .* id and actions, found id, subject, quality, labels"),
        (TABLE, "", "id and actions, found an empty file"),
        ("c000 0.00", "c003 0.00", "line 2: 'c003 0.00 12.60' is none of the 3 .*c000 to c002"),
        ("Putting clothes somewhere", "dancing", "line 4: 'dancing' is none of the 3 classes"),
        ("N11GT", "46GP8", "line 3: 46GP8 occurs twice"),
        ("N11GT", "../N11GT", "line 3: expected the name of a video file .* '../N11GT'"),
        ("N11GT", "/etc/passwd", "line 3: expected the name of a video"),
        ("N11GT", "", "line 3: expected the name of a video"),
        ("N11GT", "x" * 200_000, "is not a table: field larger than field limit"),
    ],
)
def test_refused_tables(tmp_path: Path, old: str, new: str, message: str) -> None:
    """The error has the file, the line, and what was expected."""
    path = table(tmp_path, TABLE.replace(old, new, 1))
    with pytest.raises(DatasetError, match=message) as caught:
        read_annotations(path, CLASSES)
    assert str(path) in str(caught.value)


def test_index(tmp_path: Path) -> None:
    """Videos are found by their names in a folder or its index; missing ones are entries."""
    prepared = small_prepared(tmp_path, per_class=1)
    names = sorted(Path(entry.file).stem for entry in prepared.index.entries)
    wanted = {names[0]: CLASSES[:2], names[1]: (), "gone": CLASSES[2:]}
    for data in (tmp_path / "out", tmp_path / "source"):
        index = annotated_index(data, wanted, CLASSES)
        assert [entry.labels for entry in index.entries] == [CLASSES[:2], CLASSES[2:]]
        assert index.entries[0].frames == prepared.index.entries[0].frames
        assert index.entries[1].error == "there is no video of this name"
        assert index.classes == CLASSES
    with pytest.raises(MissingFileError, match="no such folder"):
        annotated_index(tmp_path / "nothing", wanted, CLASSES)
    twin = tmp_path / "source" / f"{names[0]}.mkv"
    twin.write_bytes(b"")
    with pytest.raises(DatasetError, match="has the same name"):
        annotated_index(tmp_path / "source", wanted, CLASSES)
