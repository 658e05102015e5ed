"""Headers of .npy files, which are untrusted."""

import struct
import tokenize
import zipfile
import zlib
from typing import Any, Final

import numpy as np

_MAX_HEADER: Final = 1 << 16

READ_ERRORS: Final = (
    ValueError,
    TypeError,
    OSError,
    EOFError,
    OverflowError,
    SyntaxError,
    RecursionError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    KeyError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading .npy and .npz files raises: NumPy reads headers as Python, and zlib members."""


def read_npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array, up to its first value.

    Returns:
        The shape, whether it is in Fortran order, and the type.

    Raises:
        READ_ERRORS: The header is damaged, longer than 64 kB, or of a version other than 1.0 and
            2.0.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version != (2, 0):
        raise ValueError(f"it has version {version} of the .npy format; expected 1.0 or 2.0")
    (length,) = struct.unpack("<I", file.read(4))
    if length > _MAX_HEADER:
        raise ValueError(f"its header has {length:,} bytes")
    file.seek(-4, 1)
    return np.lib.format.read_array_header_2_0(file)
