"""Reading initializers from ONNX files."""

from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoints import read_foreign

from i3dzoo import formats
from i3dzoo.checkpoints import convert, converter
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.errors import FormatError, MappingError, UnsafeFileError

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")


def _model(checkpoint: Checkpoint, layout: str, copies: tuple[str, ...] = ()) -> "onnx.ModelProto":
    """Make a model with the tensors of a checkpoint; copies are Identity nodes of one scale."""
    helper = onnx.helper
    tensors = convert.from_canonical("", checkpoint.tensors, converter.table(layout)).tensors
    initializers = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        for name, array in tensors.items()
        if name not in copies
    ]
    nodes = [helper.make_node("Identity", ["Conv3d_1a_7x7.bn.weight"], [name]) for name in copies]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    nodes.append(helper.make_node("Relu", ["x"], ["y"]))
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], initializers))


@pytest.mark.parametrize("copies", [(), ("Conv3d_2b_1x1.bn.weight",)])
def test_initializers_are_read(
    random_checkpoint: Checkpoint, tmp_path: Path, copies: tuple[str, ...]
) -> None:
    """Initializers are read by name, including names of Identity nodes."""
    path = tmp_path / "x.onnx"
    onnx.save(_model(random_checkpoint, "piergiaj", copies), path)
    conversion = read_foreign(path)
    assert conversion.layout == "piergiaj"
    for name, array in random_checkpoint.tensors.items():
        np.testing.assert_array_equal(conversion.tensors[name], array)


def test_weights_in_a_second_file(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Weights in a second file are read, unless it is truncated, missing or a link."""
    path, data = tmp_path / "x.onnx", tmp_path / "x.onnx.data"
    model = _model(random_checkpoint, "piergiaj")
    onnx.save(model, path, save_as_external_data=True, location=data.name)
    assert path.stat().st_size < 1 << 20
    back = read_checkpoint(path)
    for name, array in random_checkpoint.tensors.items():
        np.testing.assert_array_equal(back.tensors[name], array)
    moved = data.rename(tmp_path / "elsewhere")
    message = r"is in another file, x\.onnx\.data; put that file .* in the same folder"
    with pytest.raises(UnsafeFileError, match=message):
        formats.read(path)
    data.symlink_to(moved)
    with pytest.raises(UnsafeFileError, match=message):
        formats.read(path)
    data.unlink()
    moved.rename(data)
    with data.open("r+b") as file:
        file.truncate(1_000_000)
    with pytest.raises(FormatError, match=r"ends at byte \d+ of x\.onnx\.data, which has 1000000;"):
        formats.read(path)


def test_other_ways_to_keep_numbers(tmp_path: Path) -> None:
    """Packed floats are read; unknown names and a graph without weights are errors."""
    helper = onnx.helper
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = helper.make_node("Relu", ["x"], ["y"])
    packed = helper.make_tensor("w", onnx.TensorProto.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0])
    graph = helper.make_graph([node], "g", [x], [], [packed])
    onnx.save(helper.make_model(graph), tmp_path / "x.onnx")
    np.testing.assert_array_equal(
        formats.read(tmp_path / "x.onnx").tensors["w"], [[1.0, 2.0], [3.0, 4.0]]
    )
    with pytest.raises(MappingError, match=r"names of a known layout, found w, …"):
        read_checkpoint(tmp_path / "x.onnx")
    onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [])), tmp_path / "y.onnx")
    with pytest.raises(FormatError, match="has no ONNX graph with weights"):
        formats.read(tmp_path / "y.onnx")
