"""PyTorch files that are not plain state dicts: models, TorchScript, training states."""

import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checkpoints import assert_equal, read_foreign, to_layout, torch_state
from torch import nn

from i3dzoo import formats
from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.errors import ChecksumError, FormatError, UnsafeFileError
from i3dzoo.network.architecture import Variant


class Tree(nn.Module):
    """Nested modules from names with dots; forward returns its input."""

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
    return Tree(to_layout(checkpoint.tensors, layout))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("layout", ["piergiaj", "hassony2"])
def test_torchscript(random_checkpoint: Checkpoint, tmp_path: Path, layout: str) -> None:
    """The parameters of a TorchScript archive are read without running its code."""
    path = tmp_path / "x.pt"
    torch.jit.save(torch.jit.script(_tree(random_checkpoint, layout)), path)
    assert formats.read(path).format == "torchscript"
    conversion = read_foreign(path)
    assert conversion.layout == layout
    assert_equal(conversion.tensors, random_checkpoint.tensors)


@pytest.mark.parametrize(("zipped", "parallel"), [(True, True), (False, False)])
def test_whole_model(
    random_checkpoint: Checkpoint, tmp_path: Path, zipped: bool, parallel: bool
) -> None:
    """The parameters of a pickled model are read without running its code."""
    model: nn.Module = _tree(random_checkpoint, "piergiaj")
    if parallel:
        model = nn.DataParallel(model)
    torch.save(model, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert_equal(read_foreign(tmp_path / "x.pt").tensors, random_checkpoint.tensors)


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoint_with_baggage(
    random_checkpoint: Checkpoint, tmp_path: Path, zipped: bool
) -> None:
    """Optimiser states and other objects beside the state dict are skipped."""
    model = _tree(random_checkpoint, "piergiaj")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    content = {
        "state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": SimpleNamespace(seed=1, sizes={1, 2}, when=(0.5, None, b"x")),
        "callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.5)}},
    }
    torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)
    conversion = read_foreign(tmp_path / "x.ckpt")
    assert conversion.layout == "tao"
    assert_equal(conversion.tensors, random_checkpoint.tensors)


def test_views_of_one_storage(tmp_path: Path) -> None:
    """Tensors may share a storage, have an offset, and have any strides."""
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
    """Every dtype of a dense tensor is read."""
    tensor = torch.tensor([[0, 1], [2, 3]]).to(getattr(torch, dtype))
    torch.save({"a": tensor}, tmp_path / "x.pt")
    found = formats.read(tmp_path / "x.pt").tensors["a"]
    assert found.dtype.name == dtype
    np.testing.assert_array_equal(found.astype("f8"), tensor.double().numpy())


def test_flipped_bit(tmp_path: Path) -> None:
    """The CRC32 of the archive detects a flipped bit in a storage."""
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(1000).numpy().tobytes()) + 77] ^= 4
    path.write_bytes(content)
    with pytest.raises(ChecksumError, match=r"data/0 has CRC32 .*, expected .* corrupt"):
        formats.read(path)


def test_tensor_past_its_storage(tmp_path: Path) -> None:
    """A shape that exceeds its storage is refused."""
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(7)}, path)
    claim = b"K\x07\x85"  # the shape (7,), which becomes (200,)
    _replace(path, claim, b"K\xc8\x85")
    with pytest.raises(FormatError, match=r"a of shape \(200,\) exceeds its storage of 28 bytes"):
        formats.read(path)


def _replace(path: Path, old: bytes, new: bytes) -> None:
    """Rewrite the pickle of an archive, with correct checksums."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            changed = content.replace(old, new) if name.endswith("data.pkl") else content
            archive.writestr(name, changed)


def test_other_archives(tmp_path: Path) -> None:
    """The error for another zip archive says what was expected."""
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    message = r"is a zip archive, but not of PyTorch \(no data.pkl\) or Keras"
    with pytest.raises(FormatError, match=message):
        formats.read(tmp_path / "x.npz")


def test_a_compressed_keras_file(tmp_path: Path) -> None:
    """Keras weights with an absurd compression ratio are not unpacked."""
    with zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(1 << 20))
    with pytest.raises(UnsafeFileError, match=r"model.weights.h5 unpacks to 1048576 bytes from"):
        formats.read(tmp_path / "x.keras")


@pytest.mark.parametrize("key", ["network", "ema", "weights"])
def test_the_only_state_dict(tmp_path: Path, key: str) -> None:
    """A single state dict is read under any key; two are kept apart."""
    state = {"a": torch.ones(2)}
    torch.save({key: state, "epoch": 3, "best": {"loss": 0.5}}, tmp_path / "x.pt")
    assert list(formats.read(tmp_path / "x.pt").tensors) == ["a"]
    torch.save({key: state, "other": {"b": torch.ones(2)}}, tmp_path / "y.pt")
    both = formats.read(tmp_path / "y.pt")
    assert (list(both.tensors), both.main) == ([], None)
    assert {part: list(tensors) for part, tensors in both.parts.items()} == {
        key: ["a"],
        "other": ["b"],
    }
    loose = {key: state, "c": torch.ones(2)}
    torch.save(loose, tmp_path / "z.pt")
    with pytest.raises(FormatError, match=f"contains dict under '{key}'; expected a state dict"):
        formats.read(tmp_path / "z.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "run git lfs pull"),
        (b"<!doctype html><html>", "is a web page"),
        (b"\x1f\x8b\x08" + bytes(20), "is a compressed archive; unpack it"),
        (b"", r"an unknown format \(first bytes: none\)"),
    ],
)
def test_what_people_take_for_a_checkpoint(tmp_path: Path, content: bytes, message: str) -> None:
    """Git LFS pointers, web pages and archives are errors with a remedy."""
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        formats.read(tmp_path / "x.pt")


def test_too_many_opcodes(tmp_path: Path) -> None:
    """A pickle of millions of opcodes is refused before it fills the memory."""
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x04" + b"}" * 310_000 + b".")
    with pytest.raises(UnsafeFileError, match="more than 300000 opcodes"):
        formats.read(path)


def test_old_python_2_pickle(tmp_path: Path) -> None:
    """State dicts from Python 2, with byte strings as names, are read."""
    path = tmp_path / "x.pt"
    torch.save({"abc": torch.ones(2)}, path)
    _replace(path, b"X\x03\0\0\0abc", b"U\x03abc")
    assert list(formats.read(path).tensors) == ["abc"]


# of mmaction/models/tenons: backbones/inception_v1_i3d.py and cls_heads/cls_head.py
MMACTION = {
    "backbone.conv1_7x7_s2.weight": (64, 3, 7, 7, 7),
    "backbone.conv2_3x3_reduce_bn.running_mean": (64,),
    "backbone.conv2_3x3_bn.bias": (192,),
    "backbone.inception_3a_1x1.weight": (64, 192, 1, 1, 1),
    "backbone.inception_4c_branch2_3x3_reduce.weight": (24, 512, 1, 1, 1),
    "backbone.inception_4e_branch1_3x3_bn.weight": (320,),
    "backbone.inception_5a_pool_proj.weight": (128, 832, 1, 1, 1),
    "cls_head.fc_cls.weight": (12, 1024),
    "cls_head.fc_cls.bias": (12,),
}


def test_mmaction(random_tensors: Tensors, tmp_path: Path) -> None:
    """Mmaction 0.x's names are read, and its epsilon and pooling are described."""
    state = torch_state(random_tensors, "mmaction")
    assert {name: tuple(state[name].shape) for name in MMACTION} == MMACTION
    torch.save({"meta": {"epoch": 20}, "state_dict": state, "optimizer": {}}, tmp_path / "x.pth")
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert_equal(checkpoint.tensors, random_tensors)
    assert checkpoint.metadata.source.layout == "mmaction"
    assert checkpoint.metadata.variant == Variant(epsilon=1e-5, pooling="global")
