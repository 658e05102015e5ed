"""The TensorFlow reader, with DeepMind's indexes and damaged ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.hostile import block, table

from i3dzoo import formats
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.digests import git_blob
from i3dzoo.errors import FormatError, MissingFileError
from i3dzoo.fetch.find import open_checkpoint
from i3dzoo.formats import tensorflow_bundle

pytestmark = pytest.mark.real_data

INDEX_BLOBS = {
    "rgb_imagenet": "5ab1058b8f4f89a896c01f67c0a4c96a31548af7",
    "rgb_scratch": "84dd4518e982d9ca6ce1ff02e95fca2e8cbb1f73",
    "flow_imagenet": "8217f9450d851d24782aaf1af01c5c3b35b81a35",
    "flow_scratch": "193bc425100f3978c793da66bd9eb54baea8dc6a",
    "rgb_scratch_kin600": "d378d8f01215fe92a29cd170f040c284070e9cd5",
}


@pytest.fixture
def bundle(deepmind_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the genuine checkpoint that a test may damage; returns its index."""
    for file in deepmind_bundle.parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / deepmind_bundle.name


def _data(index: Path) -> Path:
    return index.with_name("model.ckpt.data-00000-of-00001")


@pytest.mark.parametrize("name", INDEX_BLOBS)
def test_genuine_indexes(test_data: Path, name: str) -> None:
    """All five published indexes are unmodified and can be read."""
    path = test_data / "deepmind" / f"{name}.index"
    assert git_blob(path) == INDEX_BLOBS[name]
    shards, entries = tensorflow_bundle.read_index(path)
    assert shards == 1
    assert len(entries) == (346 if name.endswith("kin600") else 230)
    # the tensors fill the data file without a gap
    end = 0
    for entry in sorted(entries.values(), key=lambda entry: entry.offset):
        assert entry.offset == end
        end += entry.size


def test_rebuilt_data_file_is_deepminds(deepmind_bundle: Path) -> None:
    """The pulled weights in the order of the published index equal DeepMind's data file."""
    assert git_blob(_data(deepmind_bundle)) == "fa7df95674dbf3579e7fccd954e51e706b4734c1"


@pytest.mark.parametrize("by", ["index", "data", "prefix", "folder"])
def test_every_way_to_name_a_bundle(deepmind_bundle: Path, genuine: Checkpoint, by: str) -> None:
    """A checkpoint can be given by its index, data file, prefix or folder."""
    path = {
        "index": deepmind_bundle,
        "data": _data(deepmind_bundle),
        "prefix": deepmind_bundle.with_suffix(""),
        "folder": deepmind_bundle.parent,
    }[by]
    container = formats.read(path)
    assert container.checked
    weight = container.tensors["RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w"]
    expected = genuine.tensors["Conv3d_1a_7x7.conv.weight"]
    np.testing.assert_array_equal(weight.transpose(4, 3, 0, 1, 2), expected)
    assert isinstance(weight.base, np.memmap)


def test_every_flipped_byte_of_the_index_is_caught(bundle: Path) -> None:
    """A flipped bit anywhere in the index is an error."""
    content = bundle.read_bytes()
    for at in [*range(0, len(content), 7), *range(len(content) - 150, len(content))]:
        bundle.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(FormatError, match="index"):
            tensorflow_bundle.read_index(bundle)


def test_truncated_and_missing_data(bundle: Path) -> None:
    """A truncated or missing data file is an error that names the tensor or the file."""
    data = _data(bundle)
    with data.open("r+b") as file:
        file.truncate(50_000_000)
    with pytest.raises(FormatError, match=r"ends at byte .* the data file is truncated"):
        formats.read(bundle)
    data.unlink()
    with pytest.raises(MissingFileError, match="data-00000-of-00001: is missing"):
        formats.read(bundle)
    with pytest.raises(MissingFileError, match="there is no such file"):
        formats.read(bundle.with_name("other.pt"))


@pytest.fixture
def hub_module(test_data: Path, deepmind_bundle: Path, tmp_path: Path) -> Path:
    """TF-Hub's i3d-kinetics-400 module: its own graph and index, with the genuine weights."""
    variables = tmp_path / "module" / "variables"
    variables.mkdir(parents=True)
    shutil.copy(test_data / "tfhub" / "saved_model.pb", variables.parent)
    shutil.copy(test_data / "tfhub" / "variables" / "variables.index", variables)
    (variables / "variables.index").chmod(0o644)
    shutil.copy(_data(deepmind_bundle), variables / "variables.data-00000-of-00001")
    return variables.parent


@pytest.mark.parametrize("name", ["", "saved_model.pb"])
def test_the_genuine_hub_module(hub_module: Path, name: str) -> None:
    """TF-Hub's folder, whose index is compressed with Snappy, is rgb_scratch to the bit."""
    checkpoint = open_checkpoint(hub_module / name)
    assert checkpoint.checked
    assert checkpoint.metadata.zoo == "rgb_scratch"


def test_a_damaged_hub_module(hub_module: Path) -> None:
    """A flipped bit anywhere in a compressed index is an error."""
    index = hub_module / "variables" / "variables.index"
    content = index.read_bytes()
    for at in range(0, len(content), 7):
        index.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(FormatError, match="index"):
            tensorflow_bundle.read_index(index)


TERABYTES = b"\x08\x01\x12\x09\x12\x07\x08\x80\x80\x80\x80\x80\x40\x28\x80\x80\x80\x80\x80\x80\x02"
LONG_AXIS = b"\x12\x0d\x12\x0b\x08" + b"\x80" * 9 + b"\x01"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            table(block((b"", b"\x08\x01")), compression=1),
            "a block is truncated or corrupt: snappy",
        ),
        (table(block((b"", b"\x08\x01")), compression=2), "compression type 2; expected 0 .* or 1"),
        (table(block((b"", b"\x08\x01\x10\x01"))), "big-endian"),
        (table(block((b"a", b"\x08\x01"))), "no bundle header"),
        (table(block((b"", b"\x08\x01"), (b"a", b"\x08\x01\x18\x05"))), "data file 5 of 1"),
        (table(block((b"", b"\x08\x01"), (b"a", b"\x3a\x00"))), "partitioned"),
        (table(block((b"", b"\x08\x01"), (b"a", LONG_AXIS))), "a has an impossible shape"),
        (table(block((b"", b"\x08\x01"), (b"a", TERABYTES))), "the data file is truncated"),
        (table(block((b"", b"\x08\xff\xff\xff\xff\x0f"))), "claims 4294967295 data files"),
    ],
)
def test_hostile_indexes(tmp_path: Path, content: bytes, message: str) -> None:
    """Unusual and wrong indexes are errors, before memory is allocated."""
    path = tmp_path / "model.ckpt.index"
    path.write_bytes(content)
    _data(path).write_bytes(b"1234")
    with pytest.raises(FormatError, match=message):
        formats.read(path)
