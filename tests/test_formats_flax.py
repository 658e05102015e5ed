"""The pickle reader: it reads arrays and runs nothing."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from i3dzoo import formats
from i3dzoo.arrays import Tensors
from i3dzoo.errors import FormatError, OutputError, UnsafeFileError


def _write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nested_arrays(tmp_path: Path, protocol: int) -> None:
    """Nested dicts of arrays are read, names joined by slashes, in every binary protocol."""
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


class _Call:
    """A pickle of this calls a function when a careless reader loads it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_code_is_not_run(tmp_path: Path, protocol: int) -> None:
    """A pickle that tries to make a folder is refused, and there is no folder."""
    trap = tmp_path / "trap"
    path = _write(tmp_path / "x.pkl", {"params": _Call(os.mkdir, str(trap))}, protocol)
    with pytest.raises(UnsafeFileError, match=r"x\.pkl: the pickle asks for .*mkdir; i3dzoo"):
        formats.read(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": [1, 2]}, "holds list at a"),
        ({"a": "text"}, "holds str at a"),
        ({1: np.zeros(2)}, "a dict key that is no text"),
        ({"a": np.array(["x"], dtype=object)}, "dtype 'O8'"),
        ({"a": np.ones(1, "f4").__reduce__}, "asks for .*getattr"),
        (np.zeros(3), "holds .* at its root"),
        ({"a": np.zeros(2, "c8")}, "dtype 'c8'"),
        ({"a": np.zeros(2, ">f4")}, "byte order '>'"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    """Anything but dicts of little-endian numbers is refused and named."""
    with pytest.raises(FormatError, match=message):
        formats.read(_write(tmp_path / "x.pkl", content))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": np.zeros(2, ">f4")}, "a has dtype >f4, which this layout's readers do not know"),
        ({"a": np.zeros(2, "f4"), "a/b": np.zeros(2, "f4")}, "a/b and another tensor cannot both"),
        ({"a/b": np.zeros(2, "f4"), "a": np.zeros(2, "f4")}, "a and another tensor cannot both be"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, tensors: Tensors, message: str) -> None:
    """Big-endian numbers, and tensors that are dicts of others, are refused and named."""
    with pytest.raises(OutputError, match=message):
        formats.write("flax", tmp_path / "x.pkl", tensors, {})
    assert list(tmp_path.iterdir()) == []


def test_endless_nesting(tmp_path: Path) -> None:
    """Dicts that contain one another exponentially often, or themselves, end in an error."""
    node: dict[str, Any] = {}
    for _ in range(18):
        node = {"a": node, "b": node}
    with pytest.raises(UnsafeFileError, match="nests without end"):
        formats.read(_write(tmp_path / "x.pkl", node))
    node["self"] = node
    with pytest.raises(UnsafeFileError, match="nests without end"):
        formats.read(_write(tmp_path / "y.pkl", node))


@pytest.mark.parametrize("size", [1, 5, 60, 300])
def test_truncated(tmp_path: Path, size: int) -> None:
    """A cut pickle is refused."""
    path = _write(tmp_path / "x.pkl", {"a": np.zeros(100, "f4")}, 4)
    path.write_bytes(path.read_bytes()[:size].ljust(9, b"\0"))
    with pytest.raises(FormatError, match=r"x\.pkl"):
        formats.read(path)


def test_terabytes_are_not_allocated(tmp_path: Path) -> None:
    """A length that claims terabytes is refused against the file's own end."""
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x04\x8e" + (1 << 42).to_bytes(8, "little") + b"abc.")
    with pytest.raises(FormatError, match="truncated or corrupt"):
        formats.read(path)
