"""Checkpoints of format V1, which TensorFlow itself writes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.hostile import block, table
from helpers.lazy import tensorflow as tf
from helpers.mutations import read_mutants

from i3dzoo import formats
from i3dzoo.errors import ChecksumError, FormatError

pytestmark = pytest.mark.tensorflow

ARRAYS: dict[str, Any] = {
    "InceptionV1/a/weights": np.random.default_rng(0).standard_normal((3, 3, 5, 7)).astype("f4"),
    "InceptionV1/b": np.zeros((200, 30), "f4"),
    "double": np.array([0.1, 1e300]),
    "global_step": np.array(-12345678901, "i8"),
    "step": np.array(7, "i4"),
}


def write_v1(path: Path, arrays: dict[str, Any]) -> Path:
    """Write a file with TensorFlow's own operator."""
    values = [tf.constant(np.ascontiguousarray(array)) for array in arrays.values()]
    tf.raw_ops.Save(filename=str(path), tensor_names=list(arrays), data=values)
    return path


def test_tensors(tmp_path: Path) -> None:
    """Names, shapes, types and numbers are those that TensorFlow wrote, also compressed ones."""
    container = formats.read(write_v1(tmp_path / "x.ckpt", ARRAYS))
    assert container.checked
    assert container.tensors.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(container.tensors[name], array.reshape(array.shape))
        assert container.tensors[name].dtype == array.dtype


def test_damage(tmp_path: Path) -> None:
    """A changed byte is found by a checksum, a truncated file by its end, and no mutant crashes."""
    path = write_v1(tmp_path / "x.ckpt", ARRAYS)
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    with pytest.raises(ChecksumError, match="the block at byte 0"):
        formats.read(path)
    path.write_bytes(content[:-20])
    with pytest.raises(FormatError, match="unknown format"):
        formats.read(path)
    write_v1(path, ARRAYS)
    read_mutants(tmp_path, path, path, 200)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(b"", b"")], "has no tensors"),
        ([(b"", b""), (b"k", b"\x12\x03\x0a\x01w")], "w has no shape"),
        ([(b"", b"\x0a\x05\x0a\x03\x0a\x01w"), (b"k", b"")], "has no tensors"),
        ([(b"", b"\x0a\x05\x0a\x03\x0a\x01w"), (b"k", b"\x12\x03\x0a\x01w")], "has 0 numbers"),
    ],
)
def test_contradictions(tmp_path: Path, pairs: list[tuple[bytes, bytes]], message: str) -> None:
    """Shapes without numbers, and numbers without shapes, are refused."""
    path = tmp_path / "x.ckpt"
    path.write_bytes(table(block(*pairs)))
    with pytest.raises(FormatError, match=message):
        formats.read(path)
