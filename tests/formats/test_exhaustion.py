"""Small files that could exhaust memory or time end in an error at once."""

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.hostile import block, table

from i3dzoo import formats
from i3dzoo.errors import FormatError
from i3dzoo.formats._protobuf import encode_varint
from i3dzoo.formats.container import is_shape

STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x10tQ"
PAIRS = b")q\x00" + b"0h\x00h\x00\x86q\x00" * 60  # nested tuples with 2^60 leaves


def _archive(path: Path, pickle: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", b"\x80\x02" + pickle + b".")
        file.writestr("x/data/0", bytes(64))


def _tensor(storage: bytes, shape: bytes) -> bytes:
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + shape + shape + b"tR"
    return b"}X\x01\0\0\0a" + rebuilt + b"s"


def _repeated_tensor(path: Path) -> None:
    torch.save({"a": torch.ones(1).as_strided((1 << 40,), (0,))}, path)


def _legacy_terabytes(path: Path) -> None:
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    data = (3).to_bytes(8, "little") + torch.ones(3).numpy().tobytes()
    content = path.read_bytes()
    assert content.endswith(data)
    path.write_bytes(content.removesuffix(data) + (1 << 42).to_bytes(8, "little") + data[8:])


def _pickle_terabytes(path: Path) -> None:
    path.write_bytes(b"\x80\x04\x8e" + (1 << 42).to_bytes(8, "little") + b"abc.")


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
    keys = b"".join(encode_varint(shared) + b"\x01\0a" for shared in range(20_000))
    path.with_suffix(".index").write_bytes(table(keys + block()))


def _long_names(path: Path) -> None:
    text = b"X" + (1 << 16).to_bytes(4, "little") + b"a" * (1 << 16)
    path.write_bytes(b"\x80\x04]" + text + b"\x940" + b"h\x00h\x00\x93a" * 70_000 + b".")


def _shared_dicts(path: Path) -> None:
    """A dict with 40,000 times the same dict, whose last of 40,000 values is not a tensor."""
    keys = [b"X\x04\0\0\0" + f"{n:04x}".encode() for n in range(40_000)]
    tensor = _tensor(STORAGE, b"K\x01\x85")[7:-1]
    inner = tensor + b"q\x000}" + b"".join(key + b"h\0s" for key in keys) + b"X\x01\0\0\0zNs"
    _archive(path, inner + b"q\x010}" + b"".join(key + b"h\1s" for key in keys))


def _ordered_often(path: Path) -> None:
    pairs = b"".join(b"X\x04\0\0\0" + f"{n:04x}".encode() + b"N\x86a" for n in range(20_000))
    start = b"]" + pairs + b"q\x000ccollections\nOrderedDict\nq\x010"
    _archive(path, start + b"]" + b"h\1h\0\x85Ra" * 20_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_repeated_tensor, r"a of shape \(1099511627776,\) expands a small storage"),
        (_legacy_terabytes, "truncated: a storage of 17592186044416 bytes"),
        (_pickle_terabytes, "truncated or corrupt"),
        (partial(_archive, pickle=_tensor(PAIRS, b"K\x01\x85")), r"a is not a dense .*\(tuple\)"),
        (partial(_archive, pickle=_tensor(STORAGE, PAIRS)), "a has an impossible shape"),
        (_endless_modules, "too many or too deeply nested modules"),
        (_endless_key, "the storage of key type tuple"),
        (_endless_dtype, "an array has dtype 'tuple'"),
        (_encoded_often, "it encodes more text than it contains"),
        (_long_names, "a name of more than 1000 characters"),
        (_shared_dicts, "contains dict under '0000'"),
        (_ordered_often, "contains list; expected a state dict"),
        (_growing_keys, "a name of more than 1000 characters"),
    ],
)
def test_small_files_of_endless_content(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    """Repeated content is refused before it is expanded or printed."""
    path = tmp_path / "x"
    make(path)
    with pytest.raises(FormatError, match=message):
        formats.read(path)


@pytest.mark.parametrize("shape", [[1] * 33, [1 << 48], [-1], [True], [1.0], "11", None])
def test_impossible_shapes(shape: object) -> None:
    """A shape has few axes, of lengths that fit into memory."""
    assert not is_shape(shape)
    assert is_shape([0, 3])
    assert is_shape(())
