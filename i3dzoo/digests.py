"""CRC32C checksums of tensors, and digests of files."""

import contextlib
import hashlib
import threading
from pathlib import Path
from typing import Final

import google_crc32c

from i3dzoo.arrays import Array, flat_bytes
from i3dzoo.errors import I3DZooError
from i3dzoo.files import open_input

_CHUNK: Final = 1 << 20


def crc32c(array: Array) -> int:
    """Return the CRC32C of the bytes of an array in C order."""
    flat = flat_bytes(array)
    crc = 0
    for start in range(0, flat.size, _CHUNK):
        crc = google_crc32c.extend(crc, flat[start : start + _CHUNK].tobytes())
    return crc


def mask(crc: int) -> int:
    """Return a CRC as TensorFlow and LevelDB store it.

    Source: tensorflow/core/lib/hash/crc32c.h, `Mask`: rotate right by 15 bits and add a constant,
    so that data that contains CRCs can itself be checked by a CRC.
    """
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with open_input(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Sha256:
    """Computes the SHA-256 of a file in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hex: str | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError, I3DZooError):  # result() raises it in its own thread
            self._hex = sha256(self._path)

    def result(self) -> str:
        """Wait for the digest, and return it as hexadecimal digits."""
        self._thread.join()
        return self._hex or sha256(self._path)


def git_blob(path: Path) -> str:
    """Return the git object id of the content of a file: SHA-1 of its size and bytes."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open_input(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def file_digest(path: Path, kind: str) -> str:
    """Return `sha256:<hex>` or `git-blob:<hex>` of a file, as `kind` says."""
    return f"{kind}:{(sha256 if kind == 'sha256' else git_blob)(path)}"


def digest_like(path: Path, expected: str) -> str:
    """Return the digest of a file, of the kind of another: `sha256-start` has as many digits."""
    kind, _, digits = expected.partition(":")
    if kind == "sha256-start":
        return f"{kind}:{sha256(path)[: len(digits)]}"
    return file_digest(path, kind)
