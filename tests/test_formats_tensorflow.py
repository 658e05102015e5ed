"""The TensorFlow bundle reader, on DeepMind's own indexes and on damaged ones."""

import shutil
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from i3dzoo import formats
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.checksums import git_blob, mask
from i3dzoo.errors import ChecksumError, FormatError, MissingFileError
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


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", INDEX_BLOBS)
def test_genuine_indexes(test_data: Path, name: str) -> None:
    """All five published indexes are the published files, and read whole."""
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
    """The pulled weights, laid out by the published index, are DeepMind's file to the bit."""
    assert git_blob(_data(deepmind_bundle)) == "fa7df95674dbf3579e7fccd954e51e706b4734c1"


@pytest.mark.parametrize("by", ["index", "data", "prefix", "folder"])
def test_every_way_to_name_a_bundle(deepmind_bundle: Path, genuine: Checkpoint, by: str) -> None:
    """Index, data file, prefix and folder all mean the checkpoint."""
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


def test_flipped_byte_in_the_data(bundle: Path) -> None:
    """One flipped bit in the data file is caught, and the tensor named."""
    _flip(_data(bundle), 12_345_678)
    with pytest.raises(ChecksumError, match=r"Mixed_.* has CRC32C .*, expected .*fetch it again"):
        formats.read(bundle)


def test_every_flipped_byte_of_the_index_is_caught(bundle: Path) -> None:
    """A flipped bit anywhere in the index is an error."""
    content = bundle.read_bytes()
    for at in [*range(0, len(content), 7), *range(len(content) - 150, len(content))]:
        bundle.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(FormatError, match="index"):
            tensorflow_bundle.read_index(bundle)


@pytest.mark.parametrize("size", [0, 1, 47, 48, 100, 5000, 10_900])
def test_truncated_index(bundle: Path, size: int) -> None:
    """An index cut anywhere is refused."""
    bundle.write_bytes(bundle.read_bytes()[:size])
    with pytest.raises(FormatError, match="truncated"):
        formats.read(bundle)


def test_truncated_and_missing_data(bundle: Path) -> None:
    """A short data file is refused with the tensor that is cut; a missing one by its name."""
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


def _table(block: bytes, kind: int = 0) -> bytes:
    """Make a table of one data block, with right CRCs."""

    def stored(body: bytes, kind: int) -> bytes:
        crc = mask(google_crc32c.value(body + bytes([kind])))
        return body + bytes([kind]) + crc.to_bytes(4, "little")

    def varint(number: int) -> bytes:
        out = b""
        while number >= 0x80:
            out += bytes([number & 0x7F | 0x80])
            number >>= 7
        return out + bytes([number])

    data = stored(block, kind)
    handle = varint(0) + varint(len(block))
    entry = varint(0) + varint(1) + varint(len(handle)) + b"z" + handle
    index_block = entry + bytes(4) + (1).to_bytes(4, "little")
    meta = stored(bytes(4) + (1).to_bytes(4, "little"), 0)
    footer = varint(len(data)) + varint(8)
    footer += varint(len(data) + len(meta)) + varint(len(index_block))
    magic = (0xDB4775248B80FB57).to_bytes(8, "little")
    return data + meta + stored(index_block, 0) + footer.ljust(40, b"\0") + magic


def _block(*pairs: tuple[bytes, bytes]) -> bytes:
    body = b"".join(bytes([0, len(k), len(v)]) + k + v for k, v in pairs)
    return body + bytes(4) + (1).to_bytes(4, "little")


LONG_AXIS = b"\x12\x0d\x12\x0b\x08" + b"\x80" * 9 + b"\x01"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_table(_block((b"", b"\x08\x01")), kind=1), "compressed"),
        (_table(_block((b"", b"\x08\x01\x10\x01"))), "big-endian"),
        (_table(_block((b"a", b"\x08\x01"))), "no bundle header"),
        (_table(_block((b"", b"\x08\x01"), (b"a", b"\x08\x01\x18\x05"))), "data file 5 of 1"),
        (_table(_block((b"", b"\x08\x01"), (b"a", b"\x3a\x00"))), "partitioned"),
        (_table(_block((b"", b"\x08\x01"), (b"a", LONG_AXIS))), "a has an impossible shape"),
        (_table(_block((b"", b"\x08\xff\xff\xff\xff\x0f"))), "claims 4294967295 data files"),
    ],
)
def test_hostile_indexes(tmp_path: Path, content: bytes, message: str) -> None:
    """Compressed, big-endian, headless, partitioned and lying indexes are refused by name."""
    path = tmp_path / "model.ckpt.index"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        tensorflow_bundle.read_index(path)


def test_terabytes_are_not_allocated(tmp_path: Path) -> None:
    """A tensor that claims terabytes is refused against the size of the data file."""
    huge = b"\x08\x01\x12\x09\x12\x07\x08\x80\x80\x80\x80\x80\x40\x28\x80\x80\x80\x80\x80\x80\x02"
    path = tmp_path / "model.ckpt.index"
    path.write_bytes(_table(_block((b"", b"\x08\x01"), (b"a", huge))))
    _data(path).write_bytes(b"1234")
    with pytest.raises(FormatError, match="the data file is truncated"):
        formats.read(path)
