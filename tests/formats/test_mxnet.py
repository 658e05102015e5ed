"""MXNet's parameters: the file that MXNet writes, GluonCV's names, damaged and hostile files."""

import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoints import assert_equal, to_layout
from helpers.foreign import write_params

from i3dzoo import formats
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.errors import FormatError, OutputError
from i3dzoo.network.architecture import Variant

# mx.nd.save of MXNet 1.9.1, with the numbers below
WRITTEN = bytes.fromhex(
    "120100000000000000000000000000000400000000000000c9fa93f90000000002000000020000000000000003000000"
    "00000000010000000000000000000000000000000000803f0000004000004040000080400000a040c9fa93f900000000"
    "0100000003000000000000000100000000000000020000000000003c0040c9fa93f90000000001000000010000000000"
    "00000100000000000000060000000700000000000000c9fa93f900000000010000000100000000000000010000000000"
    "000001000000000000000000f83f04000000000000000800000000000000612e77656967687401000000000000006201"
    "000000000000006e05000000000000006172673a63"
)
NAMES = WRITTEN.index(b"a.weight") - 16  # where their number is
TENSORS = {
    "a.weight": np.arange(6, dtype="f4").reshape(2, 3),
    "b": np.arange(3, dtype="f2"),
    "n": np.array([7]),
    "arg:c": np.array([1.5]),
}


def test_what_mxnet_writes(tmp_path: Path) -> None:
    """A file of MXNet is read, and the tests' own writer makes the same bytes."""
    path = tmp_path / "x.params"
    path.write_bytes(WRITTEN)
    container = formats.read(path)
    assert container.format == "mxnet"
    assert list(container.tensors) == list(TENSORS)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(container.tensors[name], array)
        assert container.tensors[name].dtype == array.dtype
    assert write_params(tmp_path / "y.params", TENSORS).read_bytes() == WRITTEN


@pytest.mark.parametrize("version", [0, 1])
def test_older_versions(tmp_path: Path, version: int) -> None:
    """Arrays of MXNet before 1.0 have 32-bit shapes, or no storage type."""
    lengths = struct.pack("<2I", 2, 3) if version == 0 else struct.pack("<2q", 2, 3)
    start = struct.pack("<I", 2) if version == 0 else struct.pack("<II", 0xF993FAC8, 2)
    array = start + lengths + struct.pack("<3i", 1, 0, 0) + TENSORS["a.weight"].tobytes()
    name = struct.pack("<2Q", 1, 1) + b"a"
    path = tmp_path / "x.params"
    path.write_bytes(struct.pack("<3Q", 0x112, 0, 1) + array + name)
    np.testing.assert_array_equal(formats.read(path).tensors["a"], TENSORS["a.weight"])


# of save_parameters of GluonCV's I3D_InceptionV1, run in MXNet 1.9.1
GLUONCV = {
    "features.0.0.weight": (64, 3, 7, 7, 7),
    "features.0.1.gamma": (64,),
    "features.3.1.running_var": (192,),
    "features.5.1.1.0.weight": (128, 96, 3, 3, 3),
    "features.15.3.1.0.weight": (128, 832, 1, 1, 1),
    "features.15.3.1.1.beta": (128,),
    "head.1.weight": (12, 1024),
    "output.weight": (12, 1024),
    "output.bias": (12,),
}


def test_gluoncv(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """GluonCV's names are converted, and its padding and input are described."""
    tensors = to_layout(random_checkpoint.tensors, "gluoncv")
    tensors |= {f"head.1.{part}": tensors[f"output.{part}"] for part in ("weight", "bias")}
    assert len(tensors) == 289
    assert {name: tensors[name].shape for name in GLUONCV} == GLUONCV
    path = write_params(tmp_path / "i3d.params", tensors)
    checkpoint = read_checkpoint(path)
    assert_equal(checkpoint.tensors, random_checkpoint.tensors)
    assert checkpoint.conversion is not None
    assert checkpoint.conversion.layout == "gluoncv"
    assert {ignored.source for ignored in checkpoint.conversion.ignored} == {
        "head.1.weight",
        "head.1.bias",
    }
    metadata = checkpoint.metadata
    assert metadata.variant == Variant(epsilon=0.001, padding="symmetric", pooling="global")
    assert metadata.input.mean == (0.485, 0.456, 0.406)
    with pytest.raises(OutputError, match=r"reads files of format mxnet, but does not write them"):
        write_checkpoint(tmp_path / "y.params", checkpoint, "gluoncv")


def _changed(at: int, kind: str, *values: int) -> bytes:
    new = struct.pack(f"<{kind}", *values)
    return WRITTEN[:at] + new + WRITTEN[at + len(new) :]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_changed(16, "Q", 1 << 40), "has 1099511627776 arrays; expected at most 10000"),
        (_changed(28, "i", 1), r"sparse array \(storage type 1\)"),
        (_changed(32, "I", 1 << 30), "an array has 1073741824 axes; expected 1 to 32"),
        (_changed(32, "I", 0), "an array has 0 axes"),
        (_changed(36, "q", -1), "an array has an impossible shape"),
        (_changed(36, "q", 1 << 40), "is truncated: 13194139533312 bytes"),
        (_changed(60, "i", 99), "an array has type 99; expected a type of numbers"),
        (_changed(NAMES, "Q", 3), "has 4 arrays and 3 names; save the parameters by name"),
        (
            _changed(NAMES + 8, "Q", 1 << 40),
            "has 1099511627776 characters in a name; expected at most",
        ),
        (WRITTEN + b"\0", "has 1 bytes after its last name"),
        (WRITTEN[:-2], "is truncated"),
    ],
)
def test_hostile_files(tmp_path: Path, content: bytes, message: str) -> None:
    """Counts and shapes beyond the file, sparse arrays and unnamed arrays are errors."""
    path = tmp_path / "x.params"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=rf"x\.params: .*{message}"):
        formats.read(path)
