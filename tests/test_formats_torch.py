"""PyTorch files: both containers, training checkpoints, and files that try to run code."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i3dzoo import formats
from i3dzoo.errors import FormatError, UnsafeFileError
from i3dzoo.formats import torch_write

STATE = {"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_read(tmp_path: Path, zipped: bool, wrap: str | None) -> None:
    """Both containers and the usual wrappings give the state dict."""
    path = tmp_path / "x.pt"
    content: Any = STATE if wrap is None else {wrap: STATE, "epoch": 3, "optimizer": {"lr": 0.1}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    container = formats.read(path)
    assert container.format == "torch"
    assert container.tensors.keys() == STATE.keys()
    np.testing.assert_array_equal(container.tensors["a"], STATE["a"].numpy())


def test_write_is_a_bare_state_dict(tmp_path: Path) -> None:
    """torch.load gives tensors under their names and nothing else, bfloat16 included."""
    path = tmp_path / "x.pt"
    half = formats.read(_saved(tmp_path / "h.pt", {"h": torch.ones(2, dtype=torch.bfloat16)}))
    torch_write.write(path, {"a": np.ones((2, 3), "f4").T, **half.tensors}, {})
    state = torch.load(path, weights_only=True)
    assert state["a"].shape == (3, 2)
    assert state["h"].dtype is torch.bfloat16


def _saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


class _Trap:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.folder),))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_not_run(tmp_path: Path, zipped: bool) -> None:
    """A file that tries to make a folder is refused, and there is no folder."""
    path = tmp_path / "x.pt"
    trap = tmp_path / "trap"
    torch.save({"a": _Trap(trap)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeFileError, match=r"holds more than tensors .*mkdir"):
        formats.read(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds list; expected a state dict"),
        ({}, "expected a state dict"),
        ({"a": 3}, "holds int under 'a'"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "more than tensors .*_rebuild_sparse"),
        (
            {"a": torch.zeros(2, dtype=torch.complex64)},
            r"a is no plain .*ComplexFloat",
        ),
    ],
)
def test_other_content(tmp_path: Path, content: Any, message: str) -> None:
    """Anything but a state dict is refused by what it is."""
    with pytest.raises(FormatError, match=message):
        formats.read(_saved(tmp_path / "x.pt", content))


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated(tmp_path: Path, zipped: bool) -> None:
    """A cut file is refused."""
    path = tmp_path / "x.pt"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for size in (20, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:size])
        with pytest.raises(FormatError, match=r"x\.pt"):
            formats.read(path)


def test_expanded_tensors(tmp_path: Path) -> None:
    """Tensors that repeat a few numbers are read, as long as they are no more than a network's."""
    torch.save({"a": torch.ones(1).expand(1024), "b": torch.ones(2)}, tmp_path / "x.pt")
    found = formats.read(tmp_path / "x.pt").tensors
    assert found["a"].tolist() == [1.0] * 1024
    assert found["b"].shape == (2,)


def test_zip_bomb(tmp_path: Path) -> None:
    """An archive that unpacks to more than its size is refused unopened."""
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(50_000_000))
    with pytest.raises(UnsafeFileError, match="unpacks to 50000000 bytes from"):
        formats.read(path)
