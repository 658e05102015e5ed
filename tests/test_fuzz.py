"""Damaged files of every format: only our own errors leave the readers, and memory stays bounded.

Small but whole files of each format, made by i3dzoo and by the libraries that others make them
with, and the genuine weights in every layout are mutated by a seeded generator: flipped bits,
overwritten and moved pieces, boundary numbers, cuts. `I3DZOO_FUZZ=100000` runs as many mutants.
The mutants are read in a child process, so that a crash or a hang is a failure and not the end.
"""

import contextlib
import os
import random
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from i3dzoo import formats, tables
from i3dzoo.arrays import Array
from i3dzoo.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.errors import I3DZooError
from i3dzoo.formats._protobuf import encode_bytes, encode_varint

from .mutations import mutate, read_mutants

COUNT = int(os.environ.get("I3DZOO_FUZZ", "3000"))
TENSORS: dict[str, Array] = {
    "conv3d/one/0": np.arange(24, dtype="f4").reshape(2, 3, 4, 1, 1),
    "conv3d/two/0": np.arange(5, dtype="f2"),
    "conv3d/two/1": np.zeros((), "i8"),
}


def _writer(format_name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / f"x{formats.FORMATS[format_name]}"
        tensors = TENSORS
        if format_name == "keras":  # layers and weights, without classes
            tensors = {name.partition("/")[2]: array for name, array in TENSORS.items()}
        formats.write(format_name, path, tensors, {"i3dzoo": "{}"})
        return path

    return write


def _torch(folder: Path, zipped: bool, whole: bool) -> Path:
    path = folder / "x.pt"
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    content = model if whole else {"state_dict": model.state_dict(), "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def _onnx(folder: Path) -> Path:
    """Write a graph of one node and two initializers, by hand."""
    graph = encode_bytes(1, encode_bytes(1, b"a") + encode_bytes(2, b"b") + b"\x22\x08Identity")
    for name, array in (("a", np.ones(6, "f4")), ("c", np.zeros(2, "i8"))):
        kind = 1 if array.dtype == "f4" else 7
        tensor = b"\x08" + encode_varint(array.size) + b"\x10" + encode_varint(kind)
        graph += encode_bytes(
            5, tensor + encode_bytes(8, name.encode()) + encode_bytes(9, bytes(array))
        )
    path = folder / "x.onnx"
    path.write_bytes(b"\x08\x08" + encode_bytes(7, graph))
    return path


def _torchscript(folder: Path) -> Path:
    path = folder / "x.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as such
        torch.jit.save(torch.jit.script(torch.nn.Linear(3, 2)), path)
    return path


def _h5py(folder: Path) -> Path:
    """Write a model as older versions of Keras saved it."""
    h5py = pytest.importorskip("h5py")
    path = folder / "x.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "{}"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"one", b"two"]
        group.attrs["backend"] = "tensorflow"
        for layer in ("one", "two"):
            below = group.create_group(layer)
            below.attrs["weight_names"] = [f"{layer}/kernel:0".encode()]
            below[f"{layer}/kernel:0"] = np.arange(6, dtype="f4").reshape(2, 3)
    return path


def _keras_archive(folder: Path) -> Path:
    weights = _writer("keras3")(folder)
    with zipfile.ZipFile(folder / "x.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.write(weights, "model.weights.h5")
    weights.unlink()
    return folder / "x.keras"


def _safetensors(folder: Path) -> Path:
    save_file(TENSORS, folder / "x.safetensors", {"format": "pt"})
    return folder / "x.safetensors"


def _onnx_in_two(folder: Path) -> Path:
    """Write a graph of one initializer that lies in a second file, by hand."""
    (folder / "x.data").write_bytes(bytes(24))
    tensor = b"\x08\x06\x10\x01" + encode_bytes(8, b"a") + b"\x70\x01"
    for key, value in ((b"location", b"x.data"), (b"offset", b"0"), (b"length", b"24")):
        tensor += encode_bytes(13, encode_bytes(1, key) + encode_bytes(2, value))
    path = folder / "x.onnx"
    path.write_bytes(b"\x08\x08" + encode_bytes(7, encode_bytes(5, tensor)))
    return path


MAKERS: dict[str, Callable[[Path], Path]] = {
    **{name: _writer(name) for name in formats.FORMATS if name != "onnx"},
    "onnx": _onnx,
    "onnx in two files": _onnx_in_two,
    "torch zip": lambda folder: _torch(folder, True, False),
    "torch legacy": lambda folder: _torch(folder, False, False),
    "torch model": lambda folder: _torch(folder, False, True),
    "torchscript": _torchscript,
    "h5py": _h5py,
    "keras archive": _keras_archive,
    "safetensors library": _safetensors,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_mutants(kind: str, tmp_path: Path) -> None:
    """No mutant crashes, hangs, takes more memory than it may, or leaves a file behind."""
    opened = MAKERS[kind](tmp_path)
    formats.read(opened)  # the file itself is whole
    files = sorted(tmp_path.iterdir())
    targets = [file for file in files if ".data-" not in file.name]
    for target in targets:
        read_mutants(tmp_path, target, opened, -(-COUNT // len(MAKERS)))
    assert sorted(tmp_path.iterdir()) == files


@pytest.mark.parametrize("layout", [n for n in tables.names() if tables.table(n).format != "onnx"])
def test_mutants_of_genuine_files(genuine: Checkpoint, tmp_path: Path, layout: str) -> None:
    """The same of the genuine weights: files of fifty megabytes take no more than twice that."""
    ending = formats.FORMATS[tables.table(layout).format]
    opened = write_checkpoint(tmp_path / f"x{ending}", genuine, layout)
    files = sorted(tmp_path.iterdir())
    for target in files:
        read_mutants(tmp_path, target, opened, -(-COUNT // 400))
    assert sorted(tmp_path.iterdir()) == files


def test_mutants_of_a_published_index(deepmind_bundle: Path, tmp_path: Path) -> None:
    """The same of the index that DeepMind published, beside its data file."""
    index = tmp_path / deepmind_bundle.name
    shutil.copyfile(deepmind_bundle, index)
    data = deepmind_bundle.with_name("model.ckpt.data-00000-of-00001")
    (tmp_path / data.name).symlink_to(data)
    assert read_mutants(tmp_path, index, index, -(-COUNT // 20)) < COUNT // 20
    assert len(list(tmp_path.iterdir())) == 2


def test_there_are_enough_mutants() -> None:
    """CI reads at least two thousand."""
    assert COUNT >= 2000


@settings(max_examples=150, deadline=None, database=None)
@given(
    head=st.sampled_from(
        [
            b"",
            b"PK\x03\x04",
            b"\x80\x02",
            b"\x80\x04",
            b"\x89HDF\r\n\x1a\n\0",
            b"\x08\x07:",
            b"\0" * 8,
        ]
    ),
    tail=st.binary(max_size=300),
)
def test_any_bytes(head: bytes, tail: bytes) -> None:
    """Bytes of any kind behind the beginning of any format give an error of ours or tensors."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(head + tail)
        with contextlib.suppress(I3DZooError):
            formats.read(path)


@settings(max_examples=60, deadline=None, database=None)
@given(text=st.text(max_size=200))
def test_any_json_header(text: str) -> None:
    """A safetensors header of any text gives an error of ours."""
    raw = ("{" + text).encode("utf-8", "surrogatepass")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(len(raw).to_bytes(8, "little") + raw)
        with pytest.raises(I3DZooError):
            formats.read(path)


def test_mutations_do_damage() -> None:
    """The generator gives other bytes, the same for the same seed."""
    content = bytes(range(200))
    mutants = {mutate(content, random.Random(seed)) for seed in range(100)}  # noqa: S311 - seeded damage needs no secrets
    assert len(mutants) > 80
    assert mutate(content, random.Random(7)) == mutate(content, random.Random(7))  # noqa: S311 - seeded damage needs no secrets
