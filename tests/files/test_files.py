"""Opening the files that users and servers name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from i3dzoo.errors import DatasetError, FormatError, MissingFileError
from i3dzoo.files import open_input, read_text, split_lines


@pytest.mark.parametrize("read", [open_input, read_text])
def test_only_regular_files_are_opened(tmp_path: Path, read: Callable[..., Any]) -> None:
    """A pipe nobody writes to is refused at once, as devices and folders are."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path, found in {
        tmp_path / "pipe": "a pipe or a device",
        tmp_path / "link": "a pipe or a device",
        Path("/dev/zero"): "a pipe or a device",
        Path("/dev/tty"): "a pipe or a device|cannot be read",
        tmp_path: "a folder",
        tmp_path / ("n" * 300): "cannot be read: File name too long",
    }.items():
        with pytest.raises(DatasetError, match=rf"^{path}: .*({found})"):
            read(path, DatasetError)
    with pytest.raises(MissingFileError, match="nothing: the file does not exist"):
        read(tmp_path / "nothing")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails to read")
def test_an_error_while_reading_names_the_file() -> None:
    """A file that opens and then cannot be read, as on a damaged disk, is named."""
    path = Path("/proc/self/mem")  # its first page is not mapped
    for read in (lambda file: file.read(), lambda file: file.read(4), lambda file: list(file)):
        with (
            open_input(path, DatasetError) as file,
            pytest.raises(DatasetError, match=r"^/proc/self/mem: .*read: Input/output"),
        ):
            read(file)
    with pytest.raises(FormatError, match=r"^/proc/self/mem: the file cannot"):
        read_text(path)


def test_a_text_file_has_a_limit_and_an_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too large or not Unicode is one sentence that names the file."""
    monkeypatch.setattr("i3dzoo.files.TEXT_BYTES", 10)
    (tmp_path / "large").write_text("x" * 11)
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(FormatError, match="large: expected at most 10 bytes of text"):
        read_text(tmp_path / "large")
    with pytest.raises(FormatError, match=r"latin: expected text in UTF-8, .*; save it as"):
        read_text(tmp_path / "latin")


def test_only_a_line_feed_ends_a_line() -> None:
    """Line ends of Windows are removed, and other separators stay in a name."""
    name = "b\x85c\u2028d\x0b.avi"
    assert split_lines(f"\ta.avi \r\n\r\n{name}") == ["a.avi", "", name]
    assert split_lines("a\n") == ["a"]
