"""TorchScript and torch.export archives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.exported import noisy

import i3dzoo
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.checkpoints.streams import change_dtype
from i3dzoo.errors import FormatError
from i3dzoo.exporters.job import Export
from i3dzoo.onnx.options import AXES


def _exact(export: Export) -> list[bool]:
    assert export.parity is not None
    return [case.error < 1e-4 * case.largest for case in export.parity.cases]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_torchscript(rgb: Checkpoint, dtype: Any, tmp_path: Path) -> None:
    """A scripted network pads correctly at sizes that it was not exported for."""
    checkpoint = change_dtype(rgb, dtype)
    export = i3dzoo.export(checkpoint, tmp_path / "x.ts", "torchscript", dynamic=AXES)
    assert _exact(export) == [True] * 3
    back = read_checkpoint(export.path)
    assert back.described
    assert back.metadata == checkpoint.metadata
    assert back.conversion is not None
    assert back.conversion.layout == "torchscript"
    for name, array in checkpoint.tensors.items():
        np.testing.assert_array_equal(back.tensors[name], array)


def test_pt2(rgb: Checkpoint, tmp_path: Path) -> None:
    """A torch.export archive takes any batch."""
    export = i3dzoo.export(rgb, tmp_path / "x.pt2", "pt2")
    assert _exact(export) == [True] * 2
    with pytest.raises(FormatError, match=r"x\.pt2: is an archive of torch\.export, .*; convert"):
        read_checkpoint(export.path)


@pytest.mark.parametrize("target", ["torchscript", pytest.param("pt2", marks=pytest.mark.slow)])
def test_without_a_head(tmp_path: Path, target: Any) -> None:
    """A network without a head returns its features."""
    assert i3dzoo.export(noisy("rgb", 0), tmp_path / "x", target).parity is not None
