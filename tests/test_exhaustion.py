"""Small files that would take all memory or all time: each ends in a sentence, and at once."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pytest
import torch

from i3dzoo import formats
from i3dzoo.checksums import mask
from i3dzoo.errors import FormatError
from i3dzoo.formats._protobuf import encode_varint
from i3dzoo.formats.container import is_shape
from i3dzoo.formats.tensorflow_bundle import MAGIC

STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x10tQ"
PAIRS = b")q\x00" + b"0h\x00h\x00\x86q\x00" * 60  # a tuple of itself twice, sixty times over


def _archive(path: Path, pickle: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", b"\x80\x02" + pickle + b".")
        file.writestr("x/data/0", bytes(64))


def _tensor(storage: bytes, shape: bytes) -> bytes:
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + shape + shape + b"tR"
    return b"}X\x01\0\0\0a" + rebuilt + b"s"


def _repeated_tensor(path: Path) -> None:
    torch.save({"a": torch.ones(1).as_strided((1 << 40,), (0,))}, path)


def _endless_storage(path: Path) -> None:
    _archive(path, _tensor(PAIRS, b"K\x01\x85"))


def _endless_shape(path: Path) -> None:
    _archive(path, _tensor(STORAGE, PAIRS))


def _endless_modules(path: Path) -> None:
    def module(items: bytes) -> bytes:
        return b"cm\nM\n)R}(" + items + b"ub"

    below = b"".join(b"X\x01\0\0\0" + bytes([97 + number]) + b"h\0" for number in range(20))
    _archive(path, module(b"") + b"q\x000" + (module(below) + b"q\x000") * 19 + b"h\0")


def _endless_key(path: Path) -> None:
    start = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    system = b"\x80\x02}X\x0d\0\0\0little_endian\x88s."
    path.write_bytes(start + system + b"\x80\x02}.\x80\x02]" + PAIRS + b"a.")


def _endless_dtype(path: Path) -> None:
    dtype = b"cnumpy\ndtype\n" + PAIRS + b"\x85R"
    array = b"cnumpy.core.numeric\n_frombuffer\n(C\x04abcd" + dtype + b"K\x01\x85X\x01\0\0\0CtR"
    path.write_bytes(b"\x80\x02}X\x01\0\0\0a" + array + b"s.")


def _encoded_often(path: Path) -> None:
    text = b"X" + (1 << 16).to_bytes(4, "little") + b"a" * (1 << 16)
    start = b"\x80\x02}" + text + b"q\x000c_codecs\nencode\nq\x010X\x06\0\0\0latin1q\x020h\x00h\x02"
    path.write_bytes(start + b"\x86q\x030]" + b"h\x01h\x03Ra" * 2000 + b"0.")


def _growing_keys(path: Path) -> None:
    def stored(block: bytes) -> bytes:
        crc = mask(google_crc32c.value(block + b"\0"))
        return block + b"\0" + crc.to_bytes(4, "little")

    def handle(at: int, block: bytes) -> bytes:
        return encode_varint(at) + encode_varint(len(block) - 5)

    end = bytes(4) + b"\1\0\0\0"
    keys = stored(b"".join(encode_varint(n) + b"\x01\0a" for n in range(20_000)) + end)
    meta = stored(end)
    place = handle(0, keys)
    index = stored(b"\0\x01" + bytes([len(place)]) + b"b" + place + end)
    footer = handle(len(keys), meta) + handle(len(keys) + len(meta), index)
    content = keys + meta + index + footer.ljust(40, b"\0") + MAGIC.to_bytes(8, "little")
    path.with_suffix(".index").write_bytes(content)


def _long_names(path: Path) -> None:
    text = b"X" + (1 << 16).to_bytes(4, "little") + b"a" * (1 << 16)
    path.write_bytes(b"\x80\x04]" + text + b"\x940" + b"h\x00h\x00\x93a" * 70_000 + b".")


def _shared_dicts(path: Path) -> None:
    """A dict of 40,000 times the same dict, whose last of 40,000 values is no tensor."""
    keys = [b"X\x04\0\0\0" + f"{n:04x}".encode() for n in range(40_000)]
    tensor = _tensor(STORAGE, b"K\x01\x85")[7:-1]
    inner = tensor + b"q\x000}" + b"".join(key + b"h\0s" for key in keys) + b"X\x01\0\0\0zNs"
    _archive(path, inner + b"q\x010}" + b"".join(key + b"h\1s" for key in keys))


def _ordered_often(path: Path) -> None:
    pairs = b"".join(b"X\x04\0\0\0" + f"{n:04x}".encode() + b"N\x86a" for n in range(20_000))
    start = b"]" + pairs + b"q\x000ccollections\nOrderedDict\nq\x010"
    _archive(path, start + b"]" + b"h\1h\0\x85Ra" * 20_000)


def _little(number: int, size: int = 8) -> bytes:
    return number.to_bytes(size, "little")


def _hdf5(messages: list[tuple[int, bytes]], rest: dict[int, bytes]) -> bytes:
    """Make a file whose root has these messages; the rest lies at the addresses given."""
    versions = b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + _little(4, 2) * 2 + bytes(4)
    entry = _little(0) + _little(96) + bytes(24)
    content = versions + _little(0) + b"\xff" * 8 + _little(1 << 20) + b"\xff" * 8 + entry
    body = b"".join(
        _little(kind, 2) + _little(len(each), 2) + bytes(4) + each for kind, each in messages
    )
    content += b"\1\0" + _little(len(messages), 2) + _little(1, 4) + _little(len(body), 4)
    content += bytes(4) + body
    for address, piece in rest.items():
        content = content.ljust(address, b"\0") + piece
    return content


HEAP = b"HEAP" + bytes(4) + _little(8) + _little(1) + _little(600)


def _tree_of_itself(path: Path) -> None:
    node = b"TREE\0\1" + _little(65535, 2) + b"\xff" * 16 + (_little(0) + _little(4096)) * 65535
    symbols = (17, _little(4096) + _little(512))
    path.write_bytes(_hdf5([symbols], {512: HEAP, 4096: node + bytes(16)}))


def _text_shared_often(path: Path) -> None:
    at, size, count = 1 << 17, 1 << 16, 4000
    kind = bytes([0x19, 1, 0, 0]) + _little(16, 4) + bytes(8)
    space = b"\1\1" + bytes(6) + _little(count)
    start = b"\1\0" + _little(2, 2) + _little(16, 2) * 2 + b"x".ljust(8, b"\0") + kind + space
    attribute = start + (_little(size, 4) + _little(at) + _little(1, 4)) * count
    heap = b"GCOL\1\0\0\0" + _little(64 + size) + _little(1, 2) * 2 + bytes(4) + _little(size)
    path.write_bytes(_hdf5([(12, attribute)], {at: heap + b"a" * size + bytes(64)}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_repeated_tensor, r"a of shape \(1099511627776,\) repeats a small storage"),
        (_endless_storage, r"a is no plain dense tensor \(tuple\)"),
        (_endless_shape, "a has an impossible shape"),
        (_endless_modules, "modules within one another without end"),
        (_endless_key, "the storage that a tuple names is of a type"),
        (_endless_dtype, "an array has dtype 'tuple'"),
        (_encoded_often, "it encodes more text than it holds"),
        (_long_names, "names something by more than 1000 characters"),
        (_shared_dicts, "holds dict under '0000'"),
        (_ordered_often, "holds list; expected a state dict"),
        (_growing_keys, "names a tensor by more than 1000 characters"),
        (_tree_of_itself, "holds more than 40000 objects"),
        (_text_shared_often, "its attributes hold more text than its"),
    ],
)
def test_small_files_of_endless_content(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    """What a file repeats without end is refused before it is followed or printed."""
    path = tmp_path / "x"
    make(path)
    with pytest.raises(FormatError, match=message):
        formats.read(path)


@pytest.mark.parametrize("shape", [[1] * 33, [1 << 48], [-1], [True], [1.0], "11", None])
def test_impossible_shapes(shape: object) -> None:
    """Few axes of lengths that memory could hold make a shape, and nothing else does."""
    assert not is_shape(shape)
    assert is_shape([0, 3])
    assert is_shape(())
