"""What PyTorch users save besides state dicts: models, TorchScript, checkpoints with baggage."""

import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from i3dzoo import convert, formats, tables
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.errors import ChecksumError, FormatError, UnsafeFileError


class Tree(nn.Module):
    """Modules within modules, made of names with dots; it computes nothing."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        super().__init__()
        below: dict[str, dict[str, Any]] = {}
        for name, array in tensors.items():
            head, _, rest = name.partition(".")
            if rest:
                below.setdefault(head, {})[rest] = array
            elif head in ("weight", "bias"):
                self.register_parameter(head, nn.Parameter(torch.from_numpy(array.copy())))
            else:
                self.register_buffer(head, torch.from_numpy(array.copy()))
        for head, rest in below.items():
            self.add_module(head, Tree(rest))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input."""
        return x


def _tree(checkpoint: Checkpoint, layout: str) -> Tree:
    return Tree(dict(convert.from_canonical("", checkpoint.tensors, tables.table(layout)).tensors))


def _read(path: Path) -> convert.Conversion:
    """Read and convert a file, without asking which published checkpoint it is."""
    container = formats.read(path)
    table = convert.detect(str(path), container.tensors, tables.likely(container.format))
    return convert.to_canonical(str(path), container.tensors, table)


def _equal(found: convert.Conversion, expected: Checkpoint) -> None:
    for name, array in expected.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], array)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("layout", ["piergiaj", "hassony2"])
def test_torchscript(random_checkpoint: Checkpoint, tmp_path: Path, layout: str) -> None:
    """A TorchScript archive gives its parameters, whatever the naming, and its code is not run."""
    path = tmp_path / "x.pt"
    torch.jit.save(torch.jit.script(_tree(random_checkpoint, layout)), path)
    assert formats.read(path).format == "torchscript"
    found = _read(path)
    assert found.layout == layout
    _equal(found, random_checkpoint)


@pytest.mark.parametrize(("zipped", "parallel"), [(True, True), (False, False)])
def test_whole_model(
    random_checkpoint: Checkpoint, tmp_path: Path, zipped: bool, parallel: bool
) -> None:
    """A pickled model, which torch.load would have to run, gives its parameters too."""
    model: nn.Module = _tree(random_checkpoint, "piergiaj")
    if parallel:
        model = nn.DataParallel(model)
    torch.save(model, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    _equal(_read(tmp_path / "x.pt"), random_checkpoint)


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoint_with_baggage(
    random_checkpoint: Checkpoint, tmp_path: Path, zipped: bool
) -> None:
    """Optimiser states and objects of any class beside the state dict are passed over, unmade."""
    model = _tree(random_checkpoint, "piergiaj")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    content = {
        "state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": SimpleNamespace(seed=1, sizes={1, 2}, when=(0.5, None, b"x")),
        "callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.5)}},
    }
    torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)
    found = _read(tmp_path / "x.ckpt")
    assert found.layout == "tao"
    _equal(found, random_checkpoint)


def test_views_of_one_storage(tmp_path: Path) -> None:
    """Tensors that share a storage, start within it or run through it in another order are read."""
    base = torch.arange(24.0)
    state = {"a": base[4:10].reshape(2, 3), "b": base.reshape(4, 6).T, "c": base[2]}
    for zipped in (True, False):
        torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        tensors = formats.read(tmp_path / "x.pt").tensors
        for name, tensor in state.items():
            np.testing.assert_array_equal(tensors[name], tensor.numpy())


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float16", "bfloat16", "float64", "int64", "int32", "int8", "uint8", "bool"],
)
def test_dtypes(tmp_path: Path, dtype: str) -> None:
    """Every dtype of a dense tensor is read as numpy's."""
    tensor = torch.tensor([[0, 1], [2, 3]]).to(getattr(torch, dtype))
    torch.save({"a": tensor}, tmp_path / "x.pt")
    found = formats.read(tmp_path / "x.pt").tensors["a"]
    assert found.dtype.name == dtype
    np.testing.assert_array_equal(found.astype("f8"), tensor.double().numpy())


def test_flipped_bit(tmp_path: Path) -> None:
    """A flipped bit in a storage does not match the archive's own CRC32."""
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(1000).numpy().tobytes()) + 77] ^= 4
    path.write_bytes(content)
    with pytest.raises(ChecksumError, match=r"data/0 has CRC32 .*, expected .*fetch it again"):
        formats.read(path)


def test_tensor_past_its_storage(tmp_path: Path) -> None:
    """A shape that runs past its storage is refused, however the pickle claims it."""
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(7)}, path)
    claim = b"K\x07\x85"  # the shape (7,), which becomes (200,)
    _replace(path, claim, b"K\xc8\x85")
    with pytest.raises(FormatError, match=r"a of shape \(200,\) runs past its storage of 28 bytes"):
        formats.read(path)


def _replace(path: Path, old: bytes, new: bytes) -> None:
    """Rewrite an archive with other bytes in its pickle and right checksums."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            changed = content.replace(old, new) if name.endswith("data.pkl") else content
            archive.writestr(name, changed)


def test_other_archives(tmp_path: Path) -> None:
    """Zip archives of others are refused with what was expected."""
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    message = r"but neither PyTorch's \(no data.pkl\) nor that of Keras .*; name a file that torch"
    with pytest.raises(FormatError, match=message):
        formats.read(tmp_path / "x.npz")


def test_a_compressed_keras_file(tmp_path: Path) -> None:
    """Weights that somebody packed tighter than Keras does are not unpacked."""
    with zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(1 << 20))
    with pytest.raises(UnsafeFileError, match=r"model.weights.h5 unpacks to 1048576 bytes from"):
        formats.read(tmp_path / "x.keras")


@pytest.mark.parametrize("key", ["network", "ema", "weights"])
def test_the_only_state_dict(tmp_path: Path, key: str) -> None:
    """A state dict under any name is read where it is the only one; of two none is guessed."""
    state = {"a": torch.ones(2)}
    torch.save({key: state, "epoch": 3, "best": {"loss": 0.5}}, tmp_path / "x.pt")
    assert list(formats.read(tmp_path / "x.pt").tensors) == ["a"]
    torch.save({key: state, "other": state}, tmp_path / "y.pt")
    with pytest.raises(FormatError, match=f"holds dict under '{key}'; expected a state dict"):
        formats.read(tmp_path / "y.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "run git lfs pull"),
        (b"<!doctype html><html>", "is a web page and no checkpoint; fetch the file that"),
        (b"\x1f\x8b\x08" + bytes(20), "is a compressed archive; unpack it, and name the file"),
        (b"", r"no format that i3dzoo reads \(its first bytes: none\)"),
    ],
)
def test_what_people_take_for_a_checkpoint(tmp_path: Path, content: bytes, message: str) -> None:
    """Pointers, web pages and packed folders are called what they are, with the way out."""
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        formats.read(tmp_path / "x.pt")


def test_too_many_opcodes(tmp_path: Path) -> None:
    """A pickle of millions of opcodes is no checkpoint, and does not fill the memory."""
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x04" + b"}" * 310_000 + b".")
    with pytest.raises(UnsafeFileError, match="more than 300000 opcodes"):
        formats.read(path)


def test_old_python_2_pickle(tmp_path: Path) -> None:
    """State dicts with byte strings for names, as Python 2 wrote them, are read."""
    path = tmp_path / "x.pt"
    torch.save({"abc": torch.ones(2)}, path)
    _replace(path, b"X\x03\0\0\0abc", b"U\x03abc")
    assert list(formats.read(path).tensors) == ["abc"]
