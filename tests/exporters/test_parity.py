"""The comparison with PyTorch, and what happens if it fails."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from helpers.exported import compare, onnx_engine
from helpers.video_files import numbered, write_video

import i3dzoo
from i3dzoo.arrays import Array
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.errors import FormatError, OutputError
from i3dzoo.onnx.options import ExportOptions


def test_a_large_difference(rgb: Checkpoint, tmp_path: Path) -> None:
    """An export that differs by more than --atol is an error with both numbers, and no file."""
    with pytest.raises(FormatError, match=r"was not written: .* expected at most 1e-12"):
        i3dzoo.export(rgb, tmp_path / "x.onnx", "onnx", atol=1e-12)
    assert list(tmp_path.iterdir()) == []


def test_altered_weights(rgb: Checkpoint) -> None:
    """An export of other weights fails."""
    tensors = dict(rgb.tensors)
    name = "Mixed_5c.Branch_1.Conv3d_0b_3x3.bn.bias"
    tensors[name] = tensors[name] + np.float32(0.5)
    engine = onnx_engine([dataclasses.replace(rgb, tensors=tensors)], ExportOptions())
    with pytest.raises(FormatError, match="onnxruntime differs from PyTorch by"):
        compare(engine.run, [rgb], ExportOptions())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite(rgb: Checkpoint, value: float) -> None:
    """They never pass, with any tolerance and however exact the other outputs are."""
    options = ExportOptions(features=True)
    engine = onnx_engine([rgb], options)

    def broken(inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = engine.run(inputs)
        return outputs | {"fc_pred": np.full_like(outputs["fc_pred"], value)}

    with pytest.raises(FormatError, match="returns fc_pred with values that are not finite"):
        compare(broken, [rgb], options, atol=np.inf)


def test_a_video_of_another_size(rgb: Checkpoint, tmp_path: Path) -> None:
    """With --pixels, the frames of --clip must have that size."""
    video = write_video(tmp_path / "a.mov", numbered(30, 40, 56))
    path = tmp_path / "x.onnx"
    with pytest.raises(FormatError, match=r"a\.mov: expected frames of 64x64 .* found 56x40"):
        i3dzoo.export(rgb, path, "onnx", pixels=(64, 64), clip=video)
    parity = i3dzoo.export(rgb, path, "onnx", pixels=(40, 56), clip=video).parity
    assert parity is not None
    assert parity.clip == str(video)


def test_files_that_cannot_be_written(rgb: Checkpoint, tmp_path: Path) -> None:
    """An existing file and a missing folder are refused before any work."""
    path = tmp_path / "x.onnx"
    path.write_text("precious")
    with pytest.raises(OutputError, match="--force"):
        i3dzoo.export(rgb, path, "onnx")
    assert path.read_text() == "precious"
    with pytest.raises(OutputError, match="does not exist; create it first"):
        i3dzoo.export(rgb, tmp_path / "no" / "x.onnx", "onnx")
