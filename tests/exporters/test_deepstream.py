"""The files of DeepStream, and the trtexec command."""

import configparser
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.errors import MetadataError, OutputError
from i3dzoo.exporters.deepstream import trtexec_command, write_deepstream
from i3dzoo.exporters.job import Export


@pytest.fixture
def export(rgb: Checkpoint, tmp_path: Path) -> Export:
    """Return the record of an export to ONNX."""
    metadata = rgb.metadata.replace(
        input=rgb.metadata.input.replace(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    )
    path = tmp_path / "a b.onnx"
    return Export(path, "onnx", metadata, None, 1, (), runs_here=True, takes_clips=True)


def read(path: Path) -> configparser.ConfigParser:
    """Read a file as GLib's key files are read."""
    parser = configparser.ConfigParser(delimiters="=", comment_prefixes="#", interpolation=None)
    parser.read(path)
    return parser


def test_trtexec(export: Export) -> None:
    """The command has the names and shapes of the file, and is quoted for a shell."""
    assert trtexec_command(dataclasses.replace(export, path=Path("my i3d.onnx"))) == (
        "trtexec '--onnx=my i3d.onnx' --minShapes=input_rgb:1x3x16x32x32 "
        "--optShapes=input_rgb:4x3x16x32x32 --maxShapes=input_rgb:8x3x16x32x32 --fp16 "
        "'--saveEngine=my i3d.engine'"
    )


def test_files(export: Export, tmp_path: Path) -> None:
    """The files name the model, its input and its classes, and normalise as the model expects."""
    folder = tmp_path / "deepstream"
    infer, preprocess, labels = write_deepstream(folder, export)
    properties = read(infer)["property"]
    assert (folder / properties["onnx-file"]).resolve() == export.path.resolve()
    assert properties["labelfile-path"] == labels.name
    assert labels.read_text() == "action 0;action 1;action 2;action 3;action 4\n"
    config = read(preprocess)
    shape = [int(n) for n in config["property"]["network-input-shape"].split(";")]
    assert shape == [int(properties["batch-size"]), 3, 16, 32, 32]
    assert config["property"]["tensor-name"] == "input_rgb"
    user = config["user-configs"]
    scale, offset = (
        np.array(user[f"channel-{name}"].split(";"), "f8")
        for name in ("scale-factors", "mean-offsets")
    )
    spec, pixel = export.metadata.input, np.array([0, 100, 255])
    expected = (pixel / 255 - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose((pixel - offset) * scale, expected, rtol=1e-6)
    with pytest.raises(OutputError, match="config_infer_primary_3d_action"):
        write_deepstream(folder, export)
    write_deepstream(folder, export, force=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "needs names of the classes"),
        ({"sampling": "interval"}, "passes consecutive frames"),
    ],
)
def test_models_that_deepstream_cannot_run(
    export: Export, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    """A model without names, or with another input, is refused, and nothing is written."""
    metadata = export.metadata
    if "labels" in changes:
        metadata = metadata.replace(labels=None)
    else:
        metadata = metadata.replace(input=metadata.input.replace(**changes))
    with pytest.raises(MetadataError, match=message):
        write_deepstream(tmp_path / "d", dataclasses.replace(export, metadata=metadata))
    assert not (tmp_path / "d").exists()
