"""Files that reach outside themselves or lie about their size, and outputs that cannot be."""

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i3dzoo import formats, tables
from i3dzoo._files import check_output
from i3dzoo.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.errors import ConverterError, FormatError, OutputError, UnsafeFileError
from i3dzoo.formats import keras_hdf5, tensorflow_write
from i3dzoo.formats._protobuf import encode_bytes, encode_varint

from .unprivileged import unprivileged

h5py = pytest.importorskip("h5py")

LAYOUTS = [name for name in tables.names() if tables.table(name).format != "onnx"]


def _external_link(file: Any) -> None:
    file["layers/a"] = h5py.ExternalLink("/etc/passwd", "/x")


def _soft_link(file: Any) -> None:
    file["layers/b"] = np.zeros(3, "f4")
    file["layers/a"] = h5py.SoftLink("/layers/b")


def _external_storage(file: Any) -> None:
    file.create_dataset("layers/a", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def _compressed(file: Any) -> None:
    file.create_dataset("layers/a", data=np.zeros(1 << 20, "f4"), compression="gzip")


def _chunked(file: Any) -> None:
    file.create_dataset("layers/a", data=np.zeros(100, "f4"), chunks=(10,))


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("layers/a", layout)


def _unwritten(file: Any) -> None:
    file.create_dataset("layers/a", (1 << 40,), "f4")


def _compound(file: Any) -> None:
    file["layers/a"] = np.zeros(2, [("x", "f4"), ("y", "f4")])


def _big_endian(file: Any) -> None:
    file["layers/a"] = np.zeros(2, ">f4")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_external_link, r"/layers links to another file, which i3dzoo does not follow"),
        (_soft_link, "a symbolic link, which i3dzoo does not follow"),
        (_external_storage, "/layers/a has its data in another file, which i3dzoo does not"),
        (_compressed, "/layers/a is compressed; write it again"),
        (_chunked, "/layers/a is not stored in one piece"),
        (_virtual, "/layers/a is not stored in one piece|newer"),
        (_unwritten, r"/layers/a of shape \(1099511627776,\) has .* bytes of data; expected"),
        (_compound, r"/layers/a has an HDF5 type \(class 6, 8 bytes\) of no tensor"),
        (_big_endian, r"/layers/a has an HDF5 type \(class 1, 4 bytes\) of no tensor"),
    ],
)
def test_hdf5_that_reaches_outside_or_lies(
    tmp_path: Path, make: Callable[[Any], None], message: str
) -> None:
    """Links, data in other files, compression and unwritten terabytes are refused by name."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        make(file)
    with pytest.raises(FormatError, match=message):
        formats.read(path)


def test_newer_hdf5(tmp_path: Path) -> None:
    """A file in the newer form of HDF5 is refused with the way out."""
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        file["a"] = np.zeros(3, "f4")
    with pytest.raises(FormatError, match="an HDF5 file of a newer version; write it again with"):
        formats.read(tmp_path / "x.h5")


def test_hdf5_without_weights(tmp_path: Path) -> None:
    """An HDF5 file of something else is refused, and so is a list of layers that are not there."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_group("a")
    with pytest.raises(FormatError, match="is an HDF5 file without weights of Keras"):
        formats.read(tmp_path / "x.h5")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file.attrs["layer_names"] = [b"one"]
    with pytest.raises(FormatError, match="the layer one is listed and missing"):
        formats.read(tmp_path / "y.h5")


def test_hdf5_that_contains_itself(tmp_path: Path) -> None:
    """A group that is its own child ends in an error."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["layers/a"] = np.zeros(3, "f4")
        file["layers/again"] = file["layers"]
    with pytest.raises(FormatError, match="nests without end"):
        formats.read(tmp_path / "x.h5")


def test_onnx_that_reaches_outside_or_lies(tmp_path: Path) -> None:
    """Weights in another file, and shapes of terabytes, are refused."""
    path = tmp_path / "x.onnx"
    outside = (
        b"\x10\x01"
        + encode_bytes(8, b"a")
        + encode_bytes(13, encode_bytes(1, b"location"))
        + b"\x70\x01"
    )
    path.write_bytes(b"\x08\x08" + encode_bytes(7, encode_bytes(5, outside)))
    with pytest.raises(UnsafeFileError, match="a lies in another file, which has no name"):
        formats.read(path)
    huge = b"\x08" + encode_varint(1 << 42) + b"\x10\x01" + encode_bytes(8, b"a")
    path.write_bytes(b"\x08\x08" + encode_bytes(7, encode_bytes(5, huge)))
    with pytest.raises(FormatError, match=r"a of shape \(4398046511104,\) has 0 bytes; expected"):
        formats.read(path)


@pytest.mark.parametrize("part", [b"\x40\x05", encode_bytes(8, b"a") + b"\x70\x01"])
def test_onnx_of_wrong_types(tmp_path: Path, part: bytes) -> None:
    """A name that is a number, and a file's name that no system takes, are refused."""
    place = encode_bytes(1, b"location") + encode_bytes(2, b"a" * 300)
    tensor = b"\x08\x01\x10\x01" + part + encode_bytes(13, place)
    path = tmp_path / "x.onnx"
    path.write_bytes(b"\x08\x08" + encode_bytes(7, encode_bytes(5, tensor)))
    with pytest.raises(FormatError, match=r"is truncated or corrupt|cannot be read"):
        formats.read(path)


def test_a_folder_in_place_of_data(tmp_path: Path) -> None:
    """A folder under the name of a checkpoint's data is refused."""
    tensorflow_write.write(tmp_path / "m", {"a": np.zeros(3, "f4")}, {})
    (tmp_path / "m.data-00000-of-00001").unlink()
    (tmp_path / "m.data-00000-of-00001").mkdir()
    with pytest.raises(FormatError, match="m: cannot be read"):
        formats.read(tmp_path / "m")


@pytest.mark.parametrize("name", ["x.pt", "x.index", "x.toml"])
def test_pipes(tmp_path: Path, name: str) -> None:
    """A pipe is neither waited for nor replaced by a file, whatever is forced."""
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises((FormatError, ConverterError), match="no regular file; save it to one"):
        tables.load_table(path) if name == "x.toml" else formats.read(path)
    with pytest.raises(OutputError, match="is a pipe or a device; name a file"):
        check_output(path, force=True)
    assert path.is_fifo()


def test_legacy_storage_of_terabytes(tmp_path: Path) -> None:
    """A storage that claims more than the file holds is refused before anything is allocated."""
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    data = (3).to_bytes(8, "little") + np.ones(3, "f4").tobytes()
    assert content.endswith(data)
    path.write_bytes(content.removesuffix(data) + (1 << 42).to_bytes(8, "little") + data[8:])
    with pytest.raises(FormatError, match="a storage of 17592186044416 bytes does not end"):
        formats.read(path)


@contextlib.contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Limit the size of files that this process may write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _target(folder: Path, layout: str) -> Path:
    return folder / f"x{formats.FORMATS[tables.table(layout).format]}"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_room(random_checkpoint: Checkpoint, tmp_path: Path, layout: str) -> None:
    """Where a file cannot be written to its end there is a sentence, and no file."""
    with _largest_file(1 << 20), pytest.raises(OutputError, match="limit on files allows; raise"):
        write_checkpoint(_target(tmp_path, layout), random_checkpoint, layout)
    assert list(tmp_path.iterdir()) == []


def test_full_disk(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A disk that is full leaves a sentence and no file."""
    mounted = subprocess.run(
        [shutil.which("mount") or "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        with pytest.raises(OutputError, match=r"x\.pt: cannot be written: the disk is full; free"):
            write_checkpoint(tmp_path / "x.pt", random_checkpoint, "piergiaj")
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run([shutil.which("umount") or "umount", tmp_path], check=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_read_only_folder(random_checkpoint: Checkpoint, layout: str) -> None:
    """A folder without permission to write is named."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        message = f"no permission to write in {name}"
        with unprivileged(), pytest.raises(OutputError, match=message):
            write_checkpoint(_target(folder, layout), random_checkpoint, layout)
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("which", [0, 1])
def test_both_files_of_a_bundle_are_guarded(
    random_checkpoint: Checkpoint, tmp_path: Path, which: int
) -> None:
    """Neither the index nor the data file of a checkpoint is written over or through a link."""
    prefix = tmp_path / "model.ckpt"
    file = formats.outputs("tensorflow", prefix)[which]
    file.write_text("mine")
    with pytest.raises(OutputError, match=f"{file.name}: exists already; pass --force"):
        write_checkpoint(prefix, random_checkpoint, "deepmind")
    assert file.read_text() == "mine"
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=f"{file.name}: is a symbolic link"):
        write_checkpoint(prefix, random_checkpoint, "deepmind", force=True)
    assert not (tmp_path / "elsewhere").exists()


def test_a_failed_rewrite_keeps_the_old_checkpoint(
    random_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Where replacing a checkpoint fails, the old pair of files is whole."""
    index = write_checkpoint(tmp_path / "model.ckpt", random_checkpoint, "deepmind")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with _largest_file(1 << 20), pytest.raises(OutputError):
        write_checkpoint(index, random_checkpoint, "deepmind", force=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_keras3_wants_its_ending(tmp_path: Path) -> None:
    """A name that Keras 3 would not read is refused when it is written."""
    with pytest.raises(OutputError, match=r"only from names that end in \.weights\.h5"):
        keras_hdf5.write_keras3(tmp_path / "x.h5", {}, {})


@pytest.mark.parametrize(
    ("layout", "name"),
    [("keras", "a"), ("keras", "a/b/c"), ("keras", "a/"), ("keras3", "a/b"), ("keras3", "a//0")],
)
def test_keras_wants_its_names(tmp_path: Path, layout: str, name: str) -> None:
    """Names that Keras's files have no place for are refused when they are written."""
    with pytest.raises(OutputError, match=f"{name} cannot be written; Keras has names of the form"):
        formats.write(layout, tmp_path / "x.weights.h5", {name: np.zeros(2, "f4")}, {})


def test_names_that_are_too_long(tmp_path: Path) -> None:
    """A name that the system does not take is refused, and the longest that it takes is written."""
    for name in ("a" * 256, f"{'a' * 256}/x"):
        with pytest.raises(OutputError, match="its name is longer than the system allows; choose"):
            check_output(tmp_path / name, force=True)
        with pytest.raises(FormatError, match=r"cannot be read: .*File name too long"):
            formats.read(tmp_path / name)
    formats.write("safetensors", tmp_path / ("a" * 255), {"a": np.zeros(2, "f4")}, {})
