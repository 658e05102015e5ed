"""ONNX files: initializers by name, as PyTorch's exporter and the onnx package write them."""

from pathlib import Path

import numpy as np
import pytest

from i3dzoo import convert, formats, tables
from i3dzoo.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.errors import FormatError, MappingError, UnsafeFileError

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")


def _model(checkpoint: Checkpoint, layout: str, copies: tuple[str, ...] = ()) -> "onnx.ModelProto":
    """Make a model whose initializers are a checkpoint's; some are Identity of the first scale."""
    helper = onnx.helper
    tensors = convert.from_canonical("", checkpoint.tensors, tables.table(layout)).tensors
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
    """Names that a layout knows are read, those that stand for an equal tensor too."""
    path = tmp_path / "x.onnx"
    onnx.save(_model(random_checkpoint, "piergiaj", copies), path)
    container = formats.read(path)
    table = convert.detect("x", container.tensors, tables.likely(container.format))
    found = convert.to_canonical("x", container.tensors, table)
    assert found.layout == "piergiaj"
    for name, array in random_checkpoint.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], array)


def _in_two_files(checkpoint: Checkpoint, folder: Path) -> Path:
    path = folder / "x.onnx"
    onnx.save(
        _model(checkpoint, "piergiaj"), path, save_as_external_data=True, location="x.onnx.data"
    )
    return path


def test_weights_in_a_second_file(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Weights in a file beside the model's are read as those in the model are."""
    path = _in_two_files(random_checkpoint, tmp_path)
    assert path.stat().st_size < 1 << 20
    back = read_checkpoint(path)
    for name, array in random_checkpoint.tensors.items():
        np.testing.assert_array_equal(back.tensors[name], array)


def test_a_second_file_that_is_not_right(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A second file that is cut, missing or a link somewhere is refused."""
    path = _in_two_files(random_checkpoint, tmp_path)
    data = tmp_path / "x.onnx.data"
    moved = data.rename(tmp_path / "elsewhere")
    message = r"lies in another file, x\.onnx\.data; put that file itself beside this one"
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


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "a/b", "..", "", "C:x", "a\\b"])
def test_a_second_file_elsewhere(tmp_path: Path, location: str) -> None:
    """A path is not followed, wherever it leads."""
    folder = tmp_path / "model"
    (folder / "a").mkdir(parents=True)
    for name in ("secret", "model/a/b", "model/C:x", "model/a\\b"):
        (tmp_path / name).write_bytes(bytes(8))
    tensor = onnx.TensorProto(name="w", dims=[2], data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    (folder / "x.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(UnsafeFileError, match=r"w lies in another file, .*; put that file itself"):
        formats.read(folder / "x.onnx")


def test_a_window_outside_the_second_file(tmp_path: Path) -> None:
    """Offsets and lengths before the beginning and of terabytes are refused."""
    (tmp_path / "d").write_bytes(bytes(8))
    for offset, length in (("-8", "8"), ("0", "-8"), (str(1 << 42), "8"), ("0", str(1 << 42))):
        tensor = onnx.TensorProto(name="w", dims=[2], data_type=onnx.TensorProto.FLOAT)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "d"), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=value)
        graph = onnx.helper.make_graph([], "g", [], [], [tensor])
        (tmp_path / "x.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
        with pytest.raises(FormatError, match=r"w ends at byte .* of d, which has 8; it is trunc"):
            formats.read(tmp_path / "x.onnx")


def test_other_ways_to_keep_numbers(tmp_path: Path) -> None:
    """Packed floats are read; a graph of other names and one without weights are refused."""
    helper = onnx.helper
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = helper.make_node("Relu", ["x"], ["y"])
    packed = helper.make_tensor("w", onnx.TensorProto.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0])
    graph = helper.make_graph([node], "g", [x], [], [packed])
    onnx.save(helper.make_model(graph), tmp_path / "x.onnx")
    np.testing.assert_array_equal(
        formats.read(tmp_path / "x.onnx").tensors["w"], [[1.0, 2.0], [3.0, 4.0]]
    )
    with pytest.raises(MappingError, match=r"tensors \(w, …\) have no names of any layout"):
        read_checkpoint(tmp_path / "x.onnx")
    onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [])), tmp_path / "y.onnx")
    with pytest.raises(FormatError, match="holds no ONNX graph with weights"):
        formats.read(tmp_path / "y.onnx")


def test_truncated(tmp_path: Path, random_checkpoint: Checkpoint) -> None:
    """A cut file is refused."""
    path = tmp_path / "x.onnx"
    onnx.save(_model(random_checkpoint, "hassony2"), path)
    with path.open("r+b") as file:
        file.truncate(1_000_000)
    with pytest.raises(FormatError, match="is truncated or no ONNX file"):
        formats.read(path)
