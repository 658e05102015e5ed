"""Headers of .npy files are read with a bound, whatever reads the rest."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from i3dzoo.errors import FormatError
from i3dzoo.files.npy import READ_ERRORS, read_npy_header
from i3dzoo.fvd.array_file import ArrayFile


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_header(version: tuple[int, int]) -> None:
    """The header is NumPy's, and the file is left at the first value."""
    file = io.BytesIO()
    array = np.arange(6, dtype="f4").reshape(2, 3)
    np.lib.format.write_array(file, array, version)
    file.seek(0)
    assert read_npy_header(file) == ((2, 3), False, np.dtype("f4"))
    np.testing.assert_array_equal(np.frombuffer(file.read(), "f4"), array.ravel())


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 30), "its header has 1,073,741,824 bytes"),
        (b"\x93NUMPY\x03\x00" + struct.pack("<I", 8), r"it has version \(3, 0\)"),
        (b"\x93NUMPY\x02\x00\x01", "unpack requires"),
    ],
)
def test_headers_that_are_refused(tmp_path: Path, start: bytes, message: str) -> None:
    """A long header is refused before it is read, also in a .npz file, and by FVD."""
    with pytest.raises(READ_ERRORS, match=message):
        read_npy_header(io.BytesIO(start))
    path = tmp_path / "videos.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("videos.npy", start + bytes(1 << 20))
    with pytest.raises(FormatError, match="is not a readable array"):
        ArrayFile(path)
