"""Metadata embedded in exported models."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.exported import onnx_engine

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.engines.onnxruntime import OnnxEngine
from i3dzoo.errors import FormatError, MetadataError, MissingFileError, UnsafeFileError
from i3dzoo.onnx.description import describe, read_description, weights_digest, weights_digests
from i3dzoo.onnx.model import build_model
from i3dzoo.onnx.options import AXES, ExportOptions


def test_round_trip(rgb: Checkpoint) -> None:
    """A description is read back as it was written; labels for others have one line each."""
    options = ExportOptions(dynamic=AXES)
    texts = describe([rgb], options)
    assert read_description("x", texts) == ([rgb.metadata], options)
    assert weights_digests("x", texts) == {"rgb": weights_digest(rgb)}
    labels = ("a\nb", "c\r\nd", "e", "f", "g")
    metadata = rgb.metadata.replace(labels=labels)
    texts = describe([dataclasses.replace(rgb, metadata=metadata)], options)
    assert texts["labels"] == "a b\nc d\ne\nf\ng"
    assert read_description("x", texts)[0][0].labels == labels


def test_embedded_in_a_model(rgb: Checkpoint) -> None:
    """Labels, input and origin can be read by i3dzoo and by other programs."""
    options = ExportOptions(dynamic=("frames",), steps=True, pixels=(90, 120))
    engine = onnx_engine([rgb], options)
    assert engine.metadata == rgb.metadata
    assert engine.labels == rgb.metadata.labels
    assert engine.options == options
    texts = {p.key: p.value for p in build_model([rgb], options).metadata_props}
    assert texts["labels"].splitlines()[4] == "action 4"
    assert texts["source_sha256"] == "0" * 64
    assert texts["input"] == str(rgb.metadata.input)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "int8"}, r"options\.precision: .*found 'int8'"),
        ({"opset": 12}, "expected 13 or newer, found 12"),
        ({"color": True}, "color"),
    ],
)
def test_malformed(rgb: Checkpoint, changes: dict[str, object], message: str) -> None:
    """A description with wrong values is refused with the file and the key."""
    texts = describe([rgb], ExportOptions())
    document = json.loads(texts["i3dzoo.export"])
    document["options"] |= changes
    texts["i3dzoo.export"] = json.dumps(document)
    with pytest.raises(MetadataError, match=rf"x\.onnx: i3dzoo\.export: .*{message}"):
        read_description("x.onnx", texts)
    texts["i3dzoo.rgb"] = "{}"
    with pytest.raises(MetadataError, match=r"x\.onnx: "):
        read_description("x.onnx", texts)


def test_foreign_model(tmp_path: Path) -> None:
    """A model without a description is refused, since its input is unknown."""
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    opsets = [onnx.helper.make_opsetid("", 13)]
    path = tmp_path / "foreign.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with pytest.raises(MetadataError, match=r"foreign\.onnx: the model has no description"):
        OnnxEngine(path)


def test_not_a_model(tmp_path: Path) -> None:
    """A missing file and a file that is not a model have different errors."""
    with pytest.raises(MissingFileError, match=r"gone\.onnx"):
        OnnxEngine(tmp_path / "gone.onnx")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(FormatError, match=r"x\.onnx: is truncated or not an ONNX file"):
        OnnxEngine(tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        ("ConstantOfShape", "has the operator 'ConstantOfShape', which i3dzoo export does not"),
        ("Concat", "Concat computes a constant, which i3dzoo export does not write"),
    ],
)
def test_a_model_that_computes_constants(
    rgb: Checkpoint, tmp_path: Path, operator: str, message: str
) -> None:
    """A model that onnxruntime would fill the memory for when it loads it is refused before."""
    model = build_model([rgb], ExportOptions())
    size = onnx.numpy_helper.from_array(np.array([20_000, 20_000]), "size")
    attributes = {"axis": 0} if operator == "Concat" else {}
    node = onnx.helper.make_node(operator, ["size"], ["huge"], **attributes)
    model.graph.initializer.append(size)
    model.graph.node.append(node)
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(UnsafeFileError, match=rf"x\.onnx: {message}"):
        OnnxEngine(tmp_path / "x.onnx")


def test_labels_of_another_model(rgb: Checkpoint) -> None:
    """A number of labels other than the number of logits is refused."""
    model = build_model([rgb], ExportOptions())
    metadata = rgb.metadata.replace(num_classes=2, labels=("a", "b"))
    for prop in model.metadata_props:
        if prop.key == "i3dzoo.rgb":
            prop.value = metadata.to_json()
    with pytest.raises(MetadataError, match=r"'batch', 5\]; its description has 2 classes"):
        OnnxEngine(model.SerializeToString())


@pytest.mark.parametrize("name", ["steps", "features"])
def test_outputs_of_another_model(rgb: Checkpoint, name: str) -> None:
    """A description of an output that the graph does not have is refused."""
    model = build_model([rgb], ExportOptions())
    texts = describe([rgb], ExportOptions(**{name: True}))  # type: ignore[arg-type] # of a dict
    for prop in model.metadata_props:
        prop.value = texts[prop.key]
    with pytest.raises(MetadataError, match=f"fc_pred; its description has .*{name}"):
        OnnxEngine(model.SerializeToString())
