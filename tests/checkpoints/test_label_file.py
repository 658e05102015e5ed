"""Class names from the files that people have."""

import os
from pathlib import Path

import pytest

from i3dzoo.checkpoints.label_file import read_labels
from i3dzoo.checkpoints.labels import find_labels, labels
from i3dzoo.errors import FormatError

NAMES = ("YoYo", "climb stairs", "Übung, leicht")


def test_labels_of_a_file(tmp_path: Path) -> None:
    """Spaces, carriage returns and a byte order mark are removed from labels."""
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffjump\r\n  climb stairs \r\nübung".encode())
    assert read_labels(path) == ("jump", "climb stairs", "übung")
    assert find_labels(path) == read_labels(path)
    assert find_labels("hmdb51") == labels("hmdb51")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\nb\n", r"names.txt: line 2 is blank"),
        (b"a\nb\n \n", r"line 3 is blank"),
        (b"a\nb\na \n", r"line 3 repeats 'a' of line 1; expected a different name"),
        (b"", r"names.txt: is empty"),
        (b"\xff\xfe\xfa", r"names.txt: expected text in UTF-8, found other bytes"),
    ],
)
def test_bad_files_of_labels(tmp_path: Path, content: bytes, message: str) -> None:
    """The error for a bad label file has the file and the line."""
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_labels(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "YoYo\r\nclimb stairs\r\nÜbung, leicht\r\n"),
        ("classInd.txt", "1 YoYo\r\n2 climb stairs\r\n3 Übung, leicht\r\n"),
        ("from_0.txt", "0 YoYo\n1 climb stairs\n2 Übung, leicht"),
        ("shuffled.txt", "3 Übung, leicht\n1 YoYo\n2 climb stairs\n"),
        ("tabs.tsv", "0\tYoYo\n1\tclimb stairs\n2\tÜbung, leicht\n"),
        ("dots.txt", "1. YoYo\n2. climb stairs\n3. Übung, leicht\n"),
        ("kinetics.csv", 'id,name\n0,YoYo\n1,climb stairs\n2,"Übung, leicht"\n'),
        ("no_heading.txt", '0,YoYo\n1,climb stairs\n2,"Übung, leicht"\n'),
        ("excel.csv", "id;name\n1;YoYo\n2;climb stairs\n3;Übung, leicht\n"),
        ("one_column.csv", 'name\nYoYo\nclimb stairs\n"Übung, leicht"\n'),
        ("list.json", '["YoYo", "climb stairs", "Übung, leicht"]'),
        ("no_suffix", ' ["YoYo", "climb stairs", "Übung, leicht"]'),
        ("id2label.json", '{"0": "YoYo", "2": "Übung, leicht", "1": "climb stairs"}'),
        ("label2id.json", '{"YoYo": 0, "Übung, leicht": 2, "climb stairs": 1}'),
    ],
)
def test_every_form_of_a_list_of_classes(
    tmp_path: Path, name: str, content: str, encoding: str
) -> None:
    """The names are in the order of their numbers, or of their lines."""
    (tmp_path / name).write_bytes(content.encode(encoding))
    assert read_labels(tmp_path / name) == NAMES


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"a": "b"}', "a.json: holds other JSON; expected a list of names"),
        ("a.json", '["a", 1]', "holds other JSON"),
        ("a.json", "[]", "has no names"),
        ("a.json", "a", "is not valid JSON"),
        ("a.json", "[" * 1000, "nested more than 64"),
        ("a.json", '{"0": "a", "0": "b"}', "the key '0' twice"),
        ("a.json", '["\\ud800"]', "half of a surrogate pair"),
        ("a.json", '{"0": "a", "2": "b"}', "expected keys from 0 or 1 .*, found 2 after 0"),
        ("a.json", '{"a": 1, "b": 1}', "expected values from 0 or 1 .*, found 1 after 1"),
        ("a.json", f'{{"{"9" * 5000}": "a"}}', "holds other JSON"),
        ("a.txt", "[YoYo\nArchery", "is not valid JSON"),
        ("a.txt", "1 a\n3 b\n", "numbers before the names .*found 3 after 1"),
        ("a.txt", "2 a\n3 b\n", "numbers before the names from 0 or 1 .*found 2;"),
        ("a.txt", "1 a\n2 b\nc\n", "line 3 has no number, but most lines do"),
        ("a.csv", "0,a\n1,b,c\n", "rows of 2 and 3 columns; expected an index and a name"),
        ("a.csv", "a,0\nb,1\n", "expected an index in the first column, found 'b'"),
        ("a.csv", '0,"a\n', "is not valid CSV"),
        ("a.csv", "0,a\n1,a\n", "number 1 repeats 'a' of number 0"),
        ("a.yaml", "- a", "is a .yaml file; expected one name per line"),
        ("a.txt", "Ü", "expected text in UTF-8, found other bytes"),
        ("a.txt", "\n\n", "is empty"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    """A file that is not a list of classes is never taken for one class a line."""
    encoding = "latin-1" if content == "Ü" else "utf-8"
    (tmp_path / name).write_bytes(content.encode(encoding))
    with pytest.raises(FormatError, match=message):
        read_labels(tmp_path / name)


def test_a_pipe_is_not_a_file_of_labels(tmp_path: Path) -> None:
    """`--labels` does not wait for a writer."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="pipe: expected a regular file, found a pipe"):
        find_labels(tmp_path / "pipe")
