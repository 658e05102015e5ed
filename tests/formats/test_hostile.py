"""Files that refer to other files or have false sizes, and outputs that cannot be written."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoints import WRITTEN
from helpers.disk import full_disk
from helpers.hostile import onnx_file, onnx_tensor
from helpers.unprivileged import unprivileged

from i3dzoo import formats
from i3dzoo.checkpoints import converter
from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.errors import ConverterError, FormatError, OutputError, UnsafeFileError
from i3dzoo.files import check_output
from i3dzoo.formats import tensorflow_write

# the weights are in another folder, or outside the second file
ELSEWHERE = ("../secret", "/etc/hostname", "a/b", "..", "", "C:x", "a\\b", "a" * 300)
OUTSIDE = (("-8", "8"), ("0", "-8"), (str(1 << 42), "8"), ("0", str(1 << 42)))
HOSTILE_ONNX = [
    (onnx_tensor(1 << 42), r"w of shape \(4398046511104,\) has 0 bytes; expected"),
    (b"\x08\x01\x10\x01\x40\x05", "is truncated or corrupt"),  # a number as name
    *(
        (onnx_tensor(2, location="d", offset=a, length=b), "w ends at byte .* of d, which has 8")
        for a, b in OUTSIDE
    ),
]
UNSAFE_ONNX = [
    (onnx_tensor(2, location=name), "w is in another file, .*; put") for name in ELSEWHERE
]


@pytest.mark.parametrize(("tensor", "message"), HOSTILE_ONNX + UNSAFE_ONNX)
def test_hostile_onnx(tmp_path: Path, tensor: bytes, message: str) -> None:
    """Weights of false sizes, in a file elsewhere, or outside a second file, are errors."""
    folder = tmp_path / "model"
    (folder / "a").mkdir(parents=True)
    for name in ("secret", "model/d", "model/a/b", "model/C:x", "model/a\\b"):
        (tmp_path / name).write_bytes(bytes(8))
    error = UnsafeFileError if (tensor, message) in UNSAFE_ONNX else FormatError
    with pytest.raises(error, match=message):
        formats.read(onnx_file(folder / "x.onnx", tensor))


def test_a_folder_in_place_of_data(tmp_path: Path) -> None:
    """A folder instead of a data file is an error."""
    tensorflow_write.write(tmp_path / "m", {"a": np.zeros(3, "f4")}, {})
    (tmp_path / "m.data-00000-of-00001").unlink()
    (tmp_path / "m.data-00000-of-00001").mkdir()
    with pytest.raises(FormatError, match="m: cannot be read"):
        formats.read(tmp_path / "m")


def test_a_pipe_in_place_of_data(tmp_path: Path) -> None:
    """A pipe instead of a data file is an error, and is not opened."""
    tensorflow_write.write(tmp_path / "m", {"a": np.zeros(3, "f4")}, {})
    (tmp_path / "m.data-00000-of-00001").unlink()
    os.mkfifo(tmp_path / "m.data-00000-of-00001")
    with pytest.raises(FormatError, match="data-00000-of-00001: is not a regular file"):
        formats.read(tmp_path / "m")


@pytest.mark.parametrize("name", ["x.pt", "x.index", "x.toml"])
def test_pipes(tmp_path: Path, name: str) -> None:
    """A pipe is not read, and not replaced even with --force."""
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises((FormatError, ConverterError), match="regular file"):
        converter.load_table(path) if name == "x.toml" else formats.read(path)
    with pytest.raises(OutputError, match="is a pipe or a device"):
        check_output(path, force=True)
    assert path.is_fifo()


def _target(folder: Path, layout: str) -> Path:
    return folder / f"x{formats.FORMATS[converter.table(layout).format].suffix}"


@pytest.mark.parametrize("layout", WRITTEN)
def test_no_room(random_checkpoint: Checkpoint, tmp_path: Path, layout: str) -> None:
    """A file that cannot be written completely is an error and is not left behind."""
    with full_disk(1 << 20), pytest.raises(OutputError, match="limit on files allows; raise"):
        write_checkpoint(_target(tmp_path, layout), random_checkpoint, layout)
    assert list(tmp_path.iterdir()) == []


def test_full_disk(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A full disk is an error, and no file is left behind."""
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


@pytest.mark.parametrize("layout", WRITTEN)
def test_read_only_folder(random_checkpoint: Checkpoint, layout: str) -> None:
    """A folder without write permission is an error that names it."""
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
    """The index and the data file are neither overwritten nor written through a link."""
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
    """A failed replacement of a checkpoint leaves the old files unchanged."""
    index = write_checkpoint(tmp_path / "model.ckpt", random_checkpoint, "deepmind")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with full_disk(1 << 20), pytest.raises(OutputError):
        write_checkpoint(index, random_checkpoint, "deepmind", force=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_names_that_are_too_long(tmp_path: Path) -> None:
    """A file name that is too long is an error; the longest possible one is written."""
    for name in ("a" * 256, f"{'a' * 256}/x"):
        with pytest.raises(OutputError, match="its name is longer than the system allows; choose"):
            check_output(tmp_path / name, force=True)
        with pytest.raises(FormatError, match=r"cannot be read: .*File name too long"):
            formats.read(tmp_path / name)
    formats.write("safetensors", tmp_path / ("a" * 255), {"a": np.zeros(2, "f4")}, {})
