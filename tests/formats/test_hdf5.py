"""HDF5 files: what is read, what is refused, and what is written."""

import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from i3dzoo import formats
from i3dzoo.errors import FormatError, OutputError, UnsafeFileError
from i3dzoo.formats import hdf5

ARRAY = np.arange(600, dtype="f4").reshape(20, 30)


@pytest.mark.parametrize("version", ["earliest", "latest"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (7, 30)},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf"},
        {"dtype": ">f4"},
        {"dtype": "f8"},
    ],
    ids=str,
)
def test_storage(tmp_path: Path, version: str, options: dict[str, Any]) -> None:
    """Contiguous, chunked, compressed and big-endian datasets are read, in old and new files."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=version) as file:
        file.create_dataset("layers/a", data=ARRAY, **options)
        file["layers/scalar"] = np.int64(3)
        file["layers/empty"] = np.zeros((0, 3), "f4")
    tensors = formats.read(path).tensors
    np.testing.assert_array_equal(tensors["layers/a"], ARRAY)
    assert tensors["layers/a"].dtype.isnative
    assert tensors["layers/scalar"].shape == ()
    assert tensors["layers/scalar"] == 3
    assert tensors["layers/empty"].shape == (0, 3)


def test_many_names(tmp_path: Path) -> None:
    """Groups of many datasets, and attributes of variable length, are read."""
    for version in ("earliest", "latest"):
        path = tmp_path / f"{version}.h5"
        with h5py.File(path, "w", libver=version) as file:
            names = [f"layer_{number}" for number in range(300)]
            file.attrs["layer_names"] = names
            for name in names:
                file.create_group(name).attrs["weight_names"] = ["a:0"]
                file[f"{name}/a:0"] = np.ones(2, "f4")
        assert len(formats.read(path).tensors) == 300


def _put(value: Any, name: str = "layers/a") -> Callable[[Any], None]:
    return lambda file: file.__setitem__(name, value)


def _create(*arguments: Any, **options: Any) -> Callable[[Any], None]:
    return lambda file: file.create_dataset("layers/a", *arguments, **options)


def _much_text(file: Any) -> None:
    file.attrs.create("layer_names", ["a" * (5 << 20)], dtype=h5py.string_dtype())


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("layers/a", layout)


def _bomb(file: Any) -> None:
    file.create_dataset("layers/a", (1 << 40,), "u1", chunks=(1 << 20,), compression="gzip")
    file["layers/a"][:10] = 1


def _chunk_unwritten(file: Any) -> None:
    file.create_dataset("layers/a", (100,), "f4", chunks=(10,))
    file["layers/a"][:95] = 1
    file.create_dataset("layers/b", (100,), "f4", chunks=(10,))
    file["layers/b"][:85] = 1


def _corrupt_chunk(file: Any) -> None:
    file.create_dataset("layers/a", (100,), "f4", chunks=(100,), compression="gzip")
    file["layers/a"].id.write_direct_chunk((0,), b"not gzip")


def _unknown_filter(file: Any) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((4,))
    plan.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1,))
    space = h5py.h5s.create_simple((4,))
    dataset = h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, space, plan)
    dataset.write_direct_chunk((0,), bytes(16))


def _in_itself(file: Any) -> None:
    file["layers/a"] = np.zeros(3, "f4")
    file["layers/again"] = file["layers"]


def _many_paths(file: Any) -> None:
    file.create_group("g0")
    for number in range(10):  # ten links from each group to the next: 10^10 paths
        group = file.create_group(f"g{number + 1}")
        for link in range(10):
            group[f"{link}"] = file[f"g{number}"]


def _unpacks_to_much(file: Any) -> None:
    data = file.create_dataset("a", ((1 << 30) + 1,), "u1", chunks=(1 << 30,), compression=9)
    for start in (0, 1 << 30):
        data.id.write_direct_chunk((start,), b"never unpacked")


UNSAFE = [
    (_put(h5py.ExternalLink("/etc/passwd", "/x")), "layers/a is a link to another file"),
    (_put(h5py.SoftLink("/")), "layers/a is a symbolic link"),
    (_create((4,), "f4", external=[("/etc/passwd", 0, 16)]), "a has its data in another file"),
    (_virtual, "layers/a has its data in another file"),
    (_much_text, "more than 4194304"),
    (_unpacks_to_much, r"a of shape .* at most \d+ bytes in all"),
]
MALFORMED = [
    (_bomb, "layers/a has 1 chunks; expected 1048576"),
    (_create((1 << 40,), "f4"), r"\(1099511627776,\) has 0 bytes .* 4398046511104"),
    (_chunk_unwritten, "layers/b has 9 chunks; expected 10"),
    (_corrupt_chunk, "layers/a is truncated or corrupt: .*filter"),
    (_unknown_filter, r"a is compressed with the filter 32001 .*h5repack"),
    (_put(np.zeros(2, [("x", "f4"), ("y", "f4")])), r"layers/a is of type \[\('x'"),
    (_put(["text"]), "layers/a is of type object, not an array of numbers"),
    (_put(np.dtype("f4")), "layers/a is neither a group nor a dataset"),
    (_in_itself, "nested too deeply"),
    (_many_paths, "has more than 40000 objects"),
    (_put(ARRAY, "layers/" + "a" * 1001), "is too long or not unique"),
]


@pytest.mark.parametrize(("make", "message"), UNSAFE + MALFORMED)
def test_refused(tmp_path: Path, make: Callable[[Any], None], message: str) -> None:
    """Links, data in other files, absurd sizes and other content are refused by name."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        make(file)
    error = UnsafeFileError if (make, message) in UNSAFE else FormatError
    with pytest.raises(error, match=rf"x\.h5: .*{message}"):
        formats.read(path)
    assert [file.name for file in tmp_path.iterdir()] == ["x.h5"]


def _little(number: int, size: int = 8) -> bytes:
    return number.to_bytes(size, "little")


def _file(messages: list[tuple[int, bytes]], rest: dict[int, bytes]) -> bytes:
    """Make a file whose root has these messages, with other content at given addresses."""
    versions = b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + _little(4, 2) * 2 + bytes(4)
    entry = _little(0) + _little(96) + bytes(24)
    content = versions + _little(0) + b"\xff" * 8 + _little(1 << 20) + b"\xff" * 8 + entry
    body = b"".join(
        _little(kind, 2) + _little(len(data), 2) + bytes(4) + data for kind, data in messages
    )
    content += b"\1\0" + _little(len(messages), 2) + _little(1, 4) + _little(len(body), 4)
    content += bytes(4) + body
    for address, piece in rest.items():
        content = content.ljust(address, b"\0") + piece
    return content.ljust(1 << 20, b"\0")


HEAP = b"HEAP" + bytes(4) + _little(8) + _little(1) + _little(600)


def _tree_of_itself() -> bytes:
    node = b"TREE\0\1" + _little(32, 2) + b"\xff" * 16 + (_little(0) + _little(4096)) * 32
    return _file([(17, _little(4096) + _little(512))], {512: HEAP, 4096: node + bytes(16)})


def _text_shared_often() -> bytes:
    at, size, count = 1 << 17, 1 << 16, 3900
    kind = bytes([0x19, 1, 0, 0]) + _little(16, 4) + bytes(8)
    space = b"\1\1" + bytes(6) + _little(count)
    name = b"layer_names\0".ljust(16, b"\0")
    start = b"\1\0" + _little(12, 2) + _little(16, 2) * 2 + name + kind + space
    attribute = start + (_little(size, 4) + _little(at) + _little(1, 4)) * count
    heap = b"GCOL\1\0\0\0" + _little(64 + size) + _little(1, 2) * 2 + bytes(4) + _little(size)
    return _file([(12, attribute)], {at: heap + b"a" * size + bytes(64)})


@pytest.mark.parametrize("make", [_tree_of_itself, _text_shared_often])
def test_endless_content(tmp_path: Path, make: Callable[[], bytes]) -> None:
    """A small file that repeats its content without end is refused."""
    path = tmp_path / "x.h5"
    path.write_bytes(make())
    with pytest.raises(FormatError, match=r"x\.h5: "):
        formats.read(path)


@pytest.mark.parametrize("source", ["import os; os.abort()", "while True: pass"])
def test_a_crash_of_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """A crash or a hang of the child process is a FormatError."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a"] = ARRAY
    monkeypatch.setattr(pkgutil, "get_data", lambda *_: source.encode())
    monkeypatch.setattr(hdf5, "_CHILD_SECONDS", 2)
    with pytest.raises(FormatError, match=r"x\.h5: is corrupt: the HDF5 library crashes or"):
        formats.read(path)


def test_without_weights(tmp_path: Path) -> None:
    """An HDF5 file without weights is refused, and so is a list of layers that are missing."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_group("a")
    with pytest.raises(FormatError, match="is an HDF5 file without Keras weights"):
        formats.read(tmp_path / "x.h5")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file.attrs["layer_names"] = [b"one"]
    with pytest.raises(FormatError, match="the layer one is listed but missing"):
        formats.read(tmp_path / "y.h5")


@pytest.mark.parametrize(("layout", "name"), [("keras", "one/kernel"), ("keras3", "conv3d/one/0")])
def test_written_files(tmp_path: Path, layout: str, name: str) -> None:
    """Equal tensors give equal bytes, without timestamps, in the oldest version of HDF5."""
    contents = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "x.weights.h5"
        formats.write(layout, path, {name: ARRAY.T, f"{name}1": np.ones((), "f2")}, {})
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    assert contents[0][8] == 0  # version of the superblock
    tensors = formats.read(path).tensors
    np.testing.assert_array_equal(tensors[name], ARRAY.T)


@pytest.mark.parametrize(
    ("layout", "file", "tensor", "message"),
    [
        ("keras3", "x.h5", "a/b/0", r"only from names that end in \.weights\.h5"),
        ("keras", "x.h5", "a", "a cannot be written; Keras has names of the form LAYER/WEIGHT"),
        ("keras", "x.h5", "a/b/c", "a/b/c cannot be written; .* form LAYER/WEIGHT"),
        ("keras", "x.h5", "a/", "a/ cannot be written; .* form LAYER/WEIGHT"),
        ("keras3", "x.weights.h5", "a/b", "a/b cannot be written; .* form CLASS/LAYER/NUMBER"),
        ("keras3", "x.weights.h5", "a//0", "a//0 cannot be written; .* form CLASS/LAYER/NUMBER"),
        ("keras", "x.h5", "a/b", "b:0 has dtype complex64, which HDF5 does not have"),
    ],
)
def test_what_cannot_be_written(
    tmp_path: Path, layout: str, file: str, tensor: str, message: str
) -> None:
    """Names and dtypes that Keras or HDF5 do not have are errors that name them."""
    with pytest.raises(OutputError, match=message):
        formats.write(layout, tmp_path / file, {tensor: np.zeros(2, "c8")}, {})
    assert list(tmp_path.iterdir()) == []
