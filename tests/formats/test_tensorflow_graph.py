"""Frozen TensorFlow graphs: of the genuine weights, and damaged and hostile ones."""

from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoints import to_layout
from helpers.foreign import constant, tensor_proto, write_graph
from helpers.lazy import tensorflow as tf

from i3dzoo import formats
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.errors import FormatError
from i3dzoo.fetch.find import open_checkpoint
from i3dzoo.formats._protobuf import encode_bytes


def _floats(*numbers: float) -> bytes:
    return encode_bytes(5, np.array(numbers, "<f4").tobytes())


@pytest.mark.tensorflow
def test_the_genuine_weights_frozen_by_tensorflow(genuine: Checkpoint, tmp_path: Path) -> None:
    """A graph of DeepMind's variables that TensorFlow froze is rgb_scratch."""
    v1 = tf.compat.v1
    arrays = to_layout(genuine.tensors)
    with tf.Graph().as_default(), v1.Session() as session:
        variables = [
            v1.get_variable(name, array.shape, initializer=v1.zeros_initializer())
            for name, array in arrays.items()
        ]
        total = v1.add_n([tf.reduce_sum(variable) for variable in variables], name="total")
        for variable, array in zip(variables, arrays.values(), strict=True):
            variable.load(array, session)
        frozen = v1.graph_util.convert_variables_to_constants(
            session, session.graph_def, [total.op.name]
        )
    path = tmp_path / "i3d-rgb.pb"
    path.write_bytes(frozen.SerializeToString())
    checkpoint = open_checkpoint(path)
    assert checkpoint.metadata.zoo == "rgb_scratch"
    assert not checkpoint.checked


@pytest.mark.tensorflow
def test_constants_as_tensorflow_stores_them(tmp_path: Path) -> None:
    """Scalars, repeated numbers, half precision and integers are read or left out."""
    arrays = {
        "scalar": np.array(2.5, "f4"),
        "one": np.array([3.0], "f4"),
        "same": np.full((2, 3), 7, "f4"),
        "half": np.arange(4, dtype="f2"),
        "double": np.arange(3, dtype="f8"),
        "empty": np.zeros((0, 2), "f4"),
    }
    with tf.Graph().as_default() as graph:
        for name, array in arrays.items():
            tf.constant(array, name=name)
        tf.constant([1, 2], name="axes")
    (tmp_path / "x.pb").write_bytes(graph.as_graph_def().SerializeToString())
    tensors = formats.read(tmp_path / "x.pb").tensors
    assert list(tensors) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name], array)


def test_repeated_numbers(tmp_path: Path) -> None:
    """The last number stands for all that follow."""
    path = tmp_path / "x.pb"
    path.write_bytes(constant("a", tensor_proto(1, (2, 2), _floats(1, 2))))
    np.testing.assert_array_equal(formats.read(path).tensors["a"], [[1, 2], [2, 2]])


A = np.ones(3, "f4")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (constant("a", tensor_proto(1, (1 << 40,), _floats(1))), "has 1 numbers; expected 1099"),
        (constant("a", tensor_proto(1, (2,), _floats(1, 2, 3))), "has 3 numbers; expected 2"),
        (constant("a", tensor_proto(1, (2,), b"")), "has 0 numbers; expected 2"),
        (constant("a", tensor_proto(1, (4,), encode_bytes(4, bytes(8)))), "8 bytes; expected 16"),
        (constant("a", tensor_proto(1, (1,) * 33, b"")), "more than 32 axes"),
        (constant("a", tensor_proto(1, (1 << 62,), b"")), "a has an impossible shape"),
        (constant("a", tensor_proto(9, (1,), b"")), "a TensorFlow graph without weights; freeze"),
        (constant("a", tensor_proto(1, (3,), encode_bytes(4, bytes(12)))) * 2, "is not unique"),
        (constant("a", tensor_proto(1, (1,), _floats(1) * 2)), "stores numbers one by one"),
    ],
)
def test_hostile_graphs(tmp_path: Path, content: bytes, message: str) -> None:
    """Shapes beyond the numbers, and graphs without weights, are errors."""
    path = tmp_path / "x.pb"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=rf"x\.pb: .*{message}"):
        formats.read(path)


def test_truncated(tmp_path: Path) -> None:
    """A truncated graph is an error that names the file."""
    path = write_graph(tmp_path / "x.pb", {"a": A, "b": A})
    content = path.read_bytes()
    for size in range(3, len(content) - 1):
        if size != len(content) // 2:  # the end of the first node
            path.write_bytes(content[:size])
            with pytest.raises(FormatError, match=r"x\.pb"):
                formats.read(path)
