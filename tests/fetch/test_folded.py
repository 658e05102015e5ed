"""ONNX exports of i3dzoo as checkpoints, and those whose BatchNorm is folded."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.checkpoints import assert_equal
from helpers.cli import run
from helpers.exported import noisy
from onnx import numpy_helper

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.errors import ChecksumError, FormatError, MappingError
from i3dzoo.fetch.find import open_checkpoint
from i3dzoo.fetch.folded import read_folded
from i3dzoo.onnx.model import build_model
from i3dzoo.onnx.options import ExportOptions
from i3dzoo.verify import verify

Capture = pytest.CaptureFixture[str]


def _export(path: Path, *checkpoints: Checkpoint, **options: Any) -> Path:
    onnx.save(build_model(checkpoints, ExportOptions(**options)), path)
    return path


@pytest.fixture
def folded(genuine: Checkpoint, tmp_path: Path) -> Path:
    """rgb_scratch as i3dzoo exports it."""
    return _export(tmp_path / "x.onnx", genuine)


@pytest.fixture
def cached(rgb_scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rgb_scratch is in the cache."""
    monkeypatch.setenv("I3DZOO_CACHE", str(rgb_scratch.parents[1]))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_kept_batch_norm(rgb: Checkpoint, tmp_path: Path, precision: Any) -> None:
    """An export with --keep-bn is the checkpoint, rounded if its precision is lower."""
    path = _export(tmp_path / "x.onnx", rgb, keep_bn=True, precision=precision)
    checkpoint = open_checkpoint(path)
    if precision == "fp32":
        assert_equal(checkpoint.tensors, rgb.tensors)
        assert checkpoint.metadata == rgb.metadata
        return
    (step,) = checkpoint.metadata.history
    assert (step.operation, step.before, step.after) == ("dtype", "float32", "float16")
    assert checkpoint.metadata.labels == rgb.metadata.labels


def test_both_streams(rgb: Checkpoint, tmp_path: Path) -> None:
    """Each stream of a joint export has its own description."""
    flow = noisy("flow", 5)
    path = _export(tmp_path / "x.onnx", rgb, flow, keep_bn=True)
    for checkpoint in (rgb, flow):
        back = open_checkpoint(path, stream=checkpoint.metadata.stream)
        assert back.metadata == checkpoint.metadata
        assert_equal(back.tensors, checkpoint.tensors)
    networks = read_folded(_export(tmp_path / "y.onnx", rgb, flow))
    assert [network.metadata for network in networks] == [rgb.metadata, flow.metadata]
    assert [len(network.tensors) for network in networks] == [116, 116]


@pytest.mark.usefixtures("cached")
def test_folded_on_the_command_line(capsys: Capture, folded: Path) -> None:
    """Commands name the checkpoint of a folded export; convert says what to use instead."""
    code, out, _ = run(capsys, "identify", folded)
    assert code == 0
    assert "onnx, rgb, 400 classes: an ONNX export in fp32, BatchNorm folded, of rgb_scratch" in out
    assert "all weights are equal" in out
    (document,) = json.loads(run(capsys, "identify", "--json", folded)[1])
    assert (document["published"], document["dtype"]) == ("rgb_scratch", "fp32")
    code, out, err = run(capsys, "info", folded)
    assert code == 0
    assert "BatchNorm folded" in out
    assert "rgb_scratch" in out
    assert "convert" not in err
    code, out, _ = run(capsys, "verify", folded)
    assert code == 0
    assert "all weights are equal" in out
    code, _, err = run(capsys, "convert", folded, folded.with_name("y.safetensors"))
    assert code == 1
    for fact in (str(folded), "BatchNorm is folded", "(rgb, rgb_scratch)", "--keep-bn"):
        assert fact in err
    assert not folded.with_name("y.safetensors").exists()


@pytest.mark.usefixtures("cached")
def test_a_changed_export(folded: Path) -> None:
    """A folded export whose weights are not those of its description is refused by name."""
    model = onnx.load(folded)
    for at, damage in ((5, 1.5), (7, np.nan)):
        tensor = model.graph.initializer[at]
        array = numpy_helper.to_array(tensor).copy()
        array.flat[0] = damage
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        onnx.save(model, folded)
        if damage == 1.5:
            with pytest.raises(ChecksumError, match=rf"x\.onnx: {tensor.name} differs from"):
                verify(folded)
    with pytest.raises(FormatError, match="values that are NaN or infinite"):
        verify(folded)


def test_not_compared(
    genuine: Checkpoint, folded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the cached checkpoint, or in another precision, the summary says so."""
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path / "empty"))
    (network,) = read_folded(folded)
    assert not network.verified
    assert "to compare them, run i3dzoo pull rgb_scratch" in network.summary
    (network,) = read_folded(_export(tmp_path / "y.onnx", genuine, precision="bf16", opset=22))
    assert "rounded weights are not compared" in network.summary
    metadata = genuine.metadata.replace(zoo=None, base="rgb_scratch")
    made = dataclasses.replace(genuine, metadata=metadata)
    (network,) = read_folded(_export(tmp_path / "z.onnx", made))
    assert "of a checkpoint made from rgb_scratch" in network.summary


def test_a_foreign_model_with_folded_batch_norm(rgb: Checkpoint, tmp_path: Path) -> None:
    """A model of another program is called folded too, without a description."""
    model = build_model([rgb], ExportOptions())
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "x.onnx")
    message = (
        r"x\.onnx: is an ONNX model whose BatchNorm is folded .* use the checkpoint that it was"
    )
    with pytest.raises(MappingError, match=message):
        open_checkpoint(tmp_path / "x.onnx")
    assert read_folded(tmp_path / "x.onnx") == ()
