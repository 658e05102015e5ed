"""PyTorch files: both containers, training checkpoints, and files that try to run code."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.hostile import Call

from i3dzoo import formats
from i3dzoo.errors import FormatError, UnsafeFileError
from i3dzoo.formats import torch_write

STATE = {"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_read(tmp_path: Path, zipped: bool, wrap: str | None) -> None:
    """The state dict is read from both containers, alone or inside a checkpoint."""
    path = tmp_path / "x.pt"
    content: Any = STATE if wrap is None else {wrap: STATE, "epoch": 3, "optimizer": {"lr": 0.1}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    container = formats.read(path)
    assert container.format == "torch"
    assert container.tensors.keys() == STATE.keys()
    np.testing.assert_array_equal(container.tensors["a"], STATE["a"].numpy())


def test_write_is_a_bare_state_dict(tmp_path: Path) -> None:
    """torch.load gives exactly the tensors by name, including bfloat16."""
    path = tmp_path / "x.pt"
    half = formats.read(_saved(tmp_path / "h.pt", {"h": torch.ones(2, dtype=torch.bfloat16)}))
    torch_write.write(path, {"a": np.ones((2, 3), "f4").T, **half.tensors}, {})
    state = torch.load(path, weights_only=True)
    assert state["a"].shape == (3, 2)
    assert state["h"].dtype is torch.bfloat16


def _saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_not_run(tmp_path: Path, zipped: bool) -> None:
    """A file that would create a folder is refused, and does not create it."""
    path = tmp_path / "x.pt"
    trap = tmp_path / "trap"
    torch.save({"a": Call(os.mkdir, str(trap))}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeFileError, match=r"contains more than tensors .*mkdir"):
        formats.read(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "contains list; expected a state dict"),
        ({}, "expected a state dict"),
        ({"a": 3}, "contains int under 'a'"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "more than tensors .*_rebuild_sparse"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "a is not a dense tensor .*ComplexFloat"),
    ],
)
def test_other_content(tmp_path: Path, content: Any, message: str) -> None:
    """Content other than a state dict is an error that names it."""
    with pytest.raises(FormatError, match=message):
        formats.read(_saved(tmp_path / "x.pt", content))


def test_expanded_tensors(tmp_path: Path) -> None:
    """Expanded tensors of moderate size are read."""
    torch.save({"a": torch.ones(1).expand(1024), "b": torch.ones(2)}, tmp_path / "x.pt")
    tensors = formats.read(tmp_path / "x.pt").tensors
    assert tensors["a"].tolist() == [1.0] * 1024
    assert tensors["b"].shape == (2,)


def test_zip_bomb(tmp_path: Path) -> None:
    """A compressed archive is refused before it is unpacked."""
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(50_000_000))
    with pytest.raises(UnsafeFileError, match="unpacks to 50000000 bytes from"):
        formats.read(path)
