"""The pickle reader reads arrays and does not run code."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.hostile import Call

from i3dzoo import formats
from i3dzoo.arrays import Tensors
from i3dzoo.errors import FormatError, OutputError, UnsafeFileError


def _write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nested_arrays(tmp_path: Path, protocol: int) -> None:
    """Nested dicts of arrays are read in every binary protocol; slashes join their keys."""
    arrays = {
        "params": {"a": {"kernel": np.arange(24, dtype="f4").reshape(2, 3, 4)}},
        "batch_stats": {"b": np.asfortranarray(np.arange(6, dtype="f8").reshape(2, 3))},
    }
    container = formats.read(_write(tmp_path / "x.pkl", arrays, protocol))
    assert container.format == "flax"
    np.testing.assert_array_equal(
        container.tensors["params/a/kernel"], arrays["params"]["a"]["kernel"]
    )
    np.testing.assert_array_equal(container.tensors["batch_stats/b"], arrays["batch_stats"]["b"])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_code_is_not_run(tmp_path: Path, protocol: int) -> None:
    """A pickle that would create a folder is refused, and does not create it."""
    trap = tmp_path / "trap"
    path = _write(tmp_path / "x.pkl", {"params": Call(os.mkdir, str(trap))}, protocol)
    with pytest.raises(UnsafeFileError, match=r"x\.pkl: the pickle calls .*mkdir"):
        formats.read(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": [1, 2]}, "holds list at a"),
        ({"a": "text"}, "holds str at a"),
        ({1: np.zeros(2)}, "a dict key that is not a string"),
        ({"a": np.array(["x"], dtype=object)}, "dtype 'O8'"),
        ({"a": np.ones(1, "f4").__reduce__}, "calls .*getattr"),
        (np.zeros(3), "holds .* at its root"),
        ({"a": np.zeros(2, "c8")}, "dtype 'c8'"),
        ({"a": np.zeros(2, ">f4")}, "byte order '>'"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    """Content other than dicts of little-endian numbers is an error that names it."""
    with pytest.raises(FormatError, match=message):
        formats.read(_write(tmp_path / "x.pkl", content))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": np.zeros(2, ">f4")}, "a has dtype >f4, .* float32"),
        ({"a": np.zeros(2), "a/b": np.zeros(2)}, "a/b conflicts with the name of another"),
        ({"a/b": np.zeros(2), "a": np.zeros(2)}, "a conflicts with the name of another"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, tensors: Tensors, message: str) -> None:
    """Big-endian numbers and conflicting names are errors that name the tensor."""
    with pytest.raises(OutputError, match=message):
        formats.write("flax", tmp_path / "x.pkl", tensors, {})
    assert list(tmp_path.iterdir()) == []


def test_endless_nesting(tmp_path: Path) -> None:
    """Dicts that contain themselves, or one another exponentially often, are errors."""
    node: dict[str, Any] = {}
    for _ in range(18):
        node = {"a": node, "b": node}
    with pytest.raises(UnsafeFileError, match="nested too deeply or has too many items"):
        formats.read(_write(tmp_path / "x.pkl", node))
    node["self"] = node
    with pytest.raises(UnsafeFileError, match="nested too deeply or has too many items"):
        formats.read(_write(tmp_path / "y.pkl", node))
