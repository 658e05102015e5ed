"""Digests: CRC32C of tensors, as TensorFlow masks it, and digests of whole files."""

import contextlib
import hashlib
import threading
from pathlib import Path
from typing import Final

import google_crc32c

from i3dzoo.arrays import Array, flat_bytes

__all__ = ["Sha256", "crc32c", "git_blob", "mask", "sha256"]

_CHUNK: Final = 1 << 20


def crc32c(array: Array) -> int:
    """Return the CRC32C of an array's bytes in C order."""
    flat = flat_bytes(array)
    crc = 0
    for start in range(0, flat.size, _CHUNK):
        crc = google_crc32c.extend(crc, flat[start : start + _CHUNK].tobytes())
    return crc


def mask(crc: int) -> int:
    """Return a CRC as TensorFlow and LevelDB store it.

    Source: tensorflow/core/lib/hash/crc32c.h, `Mask`: rotate right by 15 bits and add a constant,
    so that the CRC of data that holds CRCs stays good.
    """
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def sha256(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Sha256:
    """The sha256 of a file, taken on another thread while the caller does something else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hex: str | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # result() meets the same error, on the caller's thread
            self._hex = sha256(self._path)

    def result(self) -> str:
        """Wait for the digest and return it in hexadecimal digits.

        Raises:
            OSError: The file cannot be read.
        """
        self._thread.join()
        return self._hex or sha256(self._path)


def git_blob(path: Path) -> str:
    """Return the id that git gives to a file's content: sha1 of its size and bytes."""
    # the digest begins with the header that git stores before the content
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
