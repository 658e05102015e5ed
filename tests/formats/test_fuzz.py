"""Readers of damaged files raise only our own errors, and use limited memory.

The files are small complete files of each format, written by i3dzoo and other libraries, and the
genuine weights in every layout. A seeded generator mutates them: flipped bits, overwritten and
moved pieces, boundary numbers, truncation. `I3DZOO_FUZZ=100000` reads that many mutants. A child
process reads them, so that a crash or a hang only fails the test.
"""

import contextlib
import json
import os
import random
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers.checkpoints import WRITTEN
from helpers.foreign import write_graph, write_params
from helpers.hostile import onnx_file, onnx_tensor
from helpers.mutations import mutate, read_mutants
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from i3dzoo import formats
from i3dzoo.arrays import Array
from i3dzoo.checkpoints import converter
from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.errors import FormatError, I3DZooError
from i3dzoo.formats._protobuf import encode_bytes, encode_varint

COUNT = int(os.environ.get("I3DZOO_FUZZ", "2600"))
TENSORS: dict[str, Array] = {
    "conv3d/one/0": np.arange(24, dtype="f4").reshape(2, 3, 4, 1, 1),
    "conv3d/two/0": np.arange(5, dtype="f2"),
    "conv3d/two/1": np.zeros((), "i8"),
}


def _writer(format_name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / f"x{formats.FORMATS[format_name].suffix}"
        tensors = TENSORS
        if format_name == "keras":  # names without classes
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
    """Write a graph of one node and two initializers."""
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
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript itself is deprecated
        torch.jit.save(torch.jit.script(torch.nn.Linear(3, 2)), path)
    return path


def _h5py(folder: Path, version: str) -> Path:
    """Write a model as older versions of Keras save it, one dataset of it compressed."""
    path = folder / "x.h5"
    with h5py.File(path, "w", libver=version) as file:
        file.attrs["model_config"] = "{}"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"one", b"two"]
        group.attrs["backend"] = "tensorflow"
        for layer, compression in (("one", None), ("two", "gzip")):
            below = group.create_group(layer)
            below.attrs["weight_names"] = [f"{layer}/kernel:0".encode()]
            weights = np.arange(6, dtype="f4").reshape(2, 3)
            below.create_dataset(f"{layer}/kernel:0", data=weights, compression=compression)
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


def _sharded(folder: Path) -> Path:
    """Write two safetensors files and their index."""
    for number, name in enumerate(list(TENSORS)[:2]):
        save_file({name: TENSORS[name]}, folder / f"{number}.safetensors")
    index = {name: f"{number}.safetensors" for number, name in enumerate(list(TENSORS)[:2])}
    path = folder / "x.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return path


def _onnx_in_two(folder: Path) -> Path:
    """Write a graph of one initializer that is in a second file."""
    (folder / "x.data").write_bytes(bytes(24))
    tensor = onnx_tensor(6, location="x.data", offset="0", length="24")
    return onnx_file(folder / "x.onnx", tensor)


MAKERS: dict[str, Callable[[Path], Path]] = {
    **{name: _writer(name) for name, item in formats.FORMATS.items() if item.write},
    "onnx": _onnx,
    "mxnet": lambda folder: write_params(folder / "x.params", {"a": np.ones((2, 3), "f4")}),
    "graphdef": lambda folder: write_graph(folder / "x.pb", TENSORS),
    "sharded": _sharded,
    "onnx in two files": _onnx_in_two,
    "torch zip": lambda folder: _torch(folder, True, False),
    "torch legacy": lambda folder: _torch(folder, False, False),
    "torch model": lambda folder: _torch(folder, False, True),
    "torchscript": _torchscript,
    "h5py": lambda folder: _h5py(folder, "earliest"),
    "h5py latest": lambda folder: _h5py(folder, "latest"),
    "keras archive": _keras_archive,
    "safetensors library": _safetensors,
}
# half a second for each file
READ_BY_A_CHILD = ("keras", "keras3", "h5py", "h5py latest", "keras archive")


def _share(kind: str) -> int:
    """Return how many mutants of each file of a kind are read."""
    return -(-COUNT // (8 * len(MAKERS) if kind in READ_BY_A_CHILD else len(MAKERS)))


def _read_mutants(targets: list[Path], opened: Path, count: int) -> None:
    folder = opened.parent
    files = sorted(folder.iterdir())
    for target in targets:
        read_mutants(folder, target, opened, count)
    assert sorted(folder.iterdir()) == files


@pytest.mark.parametrize("kind", MAKERS)
def test_truncated(kind: str, tmp_path: Path) -> None:
    """A truncated file of any format is an error that names it."""
    path = MAKERS[kind](tmp_path)
    content = path.read_bytes()
    for size in (1, 20, len(content) // 2, len(content) - 10, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(FormatError, match=path.name):
            formats.read(path)


@pytest.mark.parametrize("kind", MAKERS)
def test_mutants(kind: str, tmp_path: Path) -> None:
    """No mutant crashes, hangs, exceeds the memory limit or leaves a file."""
    opened = MAKERS[kind](tmp_path)
    formats.read(opened)  # the undamaged file
    targets = [file for file in tmp_path.iterdir() if ".data-" not in file.name]
    _read_mutants(targets, opened, _share(kind))


@pytest.mark.parametrize("layout", WRITTEN)
def test_mutants_of_genuine_files(genuine: Checkpoint, tmp_path: Path, layout: str) -> None:
    """Mutants of the genuine weights take at most twice the memory of the file."""
    ending = formats.FORMATS[converter.table(layout).format].suffix
    opened = write_checkpoint(tmp_path / f"x{ending}", genuine, layout)
    _read_mutants(sorted(tmp_path.iterdir()), opened, -(-COUNT // 700))


def test_mutants_of_a_published_index(deepmind_bundle: Path, tmp_path: Path) -> None:
    """Mutants of a published index are errors."""
    index = tmp_path / deepmind_bundle.name
    shutil.copyfile(deepmind_bundle, index)
    data = deepmind_bundle.with_name("model.ckpt.data-00000-of-00001")
    (tmp_path / data.name).symlink_to(data)
    assert read_mutants(tmp_path, index, index, -(-COUNT // 50)) < COUNT // 50
    assert len(list(tmp_path.iterdir())) == 2


def test_there_are_enough_mutants() -> None:
    """At least two thousand mutants of small files are read."""
    assert sum(map(_share, MAKERS)) >= 2000


def _read_bytes(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(content)
        formats.read(path)


HEADS = (
    b"|PK\x03\x04|\x80\x02|\x80\x04|\x89HDF\r\n\x1a\n\0|\x08\x07:|\n\x02\n|\x12\x01\0\0\0\0\0\0|"
    + bytes(8)
).split(b"|")


@settings(max_examples=100, deadline=None, database=None)
@given(head=st.sampled_from(HEADS), tail=st.binary(max_size=300))
def test_any_bytes(head: bytes, tail: bytes) -> None:
    """Any bytes after the start of any format give tensors or our own errors."""
    with contextlib.suppress(I3DZooError):
        _read_bytes(head + tail)


@settings(max_examples=60, deadline=None, database=None)
@given(text=st.text(max_size=200))
def test_any_json_header(text: str) -> None:
    """A safetensors header of any text is our own error."""
    raw = ("{" + text).encode("utf-8", "surrogatepass")
    with pytest.raises(I3DZooError):
        _read_bytes(len(raw).to_bytes(8, "little") + raw)


def test_mutations_do_damage() -> None:
    """Different seeds give different mutants, and equal seeds equal mutants."""
    content = bytes(range(200))
    mutants = {mutate(content, random.Random(seed)) for seed in range(100)}  # noqa: S311 - seeded damage needs no secrets
    assert len(mutants) > 80
    assert mutate(content, random.Random(7)) == mutate(content, random.Random(7))  # noqa: S311 - seeded damage needs no secrets
