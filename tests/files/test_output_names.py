"""Names of outputs: no two inputs have the same."""

import os
from pathlib import Path

import pytest

from i3dzoo.files.output_names import drop_suffixes, name_outputs, without_repeats


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x.mp4", "y.avi"], ["x", "y"]),
        (["a/x.mp4", "b/x.mp4"], ["a/x", "b/x"]),
        (["x.mp4", "x.avi", "y.avi"], ["x.mp4", "x.avi", "y"]),
        (["x.mp4", "X.avi"], ["x.mp4", "X.avi"]),  # one folder on systems that ignore case
        (["e\u0301.mp4", "\u00e9.avi"], ["e\u0301.mp4", "\u00e9.avi"]),  # one folder on macOS
        (["x.avi", "x.mp4", "x.avi.mp4"], ["x.avi", "x.mp4", "x.avi.mp4"]),
        (["x.mp4", "X.mp4"], ["x.mp4", "X.mp4"]),
        ([".mp4", "v1.5"], [".mp4", "v1"]),
    ],
)
def test_suffixes(names: list[str], expected: list[str]) -> None:
    """Suffixes are dropped where the names then still differ."""
    assert drop_suffixes(names) == expected


def test_folders() -> None:
    """Folders are kept where they are needed or wanted, and lead into the output's folder."""
    assert name_outputs(["a/x.mp4", "b/y.mp4"]) == ["x", "y"]
    assert name_outputs(["a/x.mp4", "b/x.avi", "b/y.mp4"]) == ["a/x", "b/x", "b/y"]
    assert name_outputs(["a/x.mp4", "a/x.avi"]) == ["x.mp4", "x.avi"]
    assert name_outputs(["a/x.mp4", "/b/./x.mp4"], keep_folders=True) == ["a/x", "b/x"]
    above = os.path.abspath("../x")  # noqa: PTH100
    assert name_outputs(["../x.mp4"], keep_folders=True) == [above.lstrip("/")]
    assert name_outputs(["."]) == [Path.cwd().stem]


def test_repeats() -> None:
    """A path that is written in another way is the same; the first one stays."""
    assert without_repeats(["b", "./a/../b", "a", "b"]) == ["b", "a"]
