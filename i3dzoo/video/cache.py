"""A cache of decoded frames, limited in bytes, that all workers of a run share."""

import contextlib
import os
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from i3dzoo.errors import OutputError
from i3dzoo.files.temporary import temporary_folder
from i3dzoo.video.info import Frames

FRAMES_PREFIX: Final = "i3dzoo-frames"
"""The names of the folders of cached frames begin with it."""


class FrameCache:
    """Decoded frames in a temporary folder, one memory-mapped array a video.

    The videos to keep are chosen before the first is decoded: those that are reserved while there
    is room. An epoch reads every video once, so evicting the oldest would evict each video just
    before it is needed. Keeping the first ones is optimal, and workers need not communicate. The
    operating system keeps the arrays in memory while there is enough. The folder is removed when
    the cache is closed or the process that made it ends, and if that is killed, by the next cache.

    Attributes:
        limit: Largest size in bytes.
        reserved: Reserved bytes.
        folder: Folder of the arrays.
    """

    def __init__(self, limit: int, parent: str | Path | None = None) -> None:
        """Make an empty cache.

        Args:
            limit: Largest size in bytes.
            parent: Folder in which to make the cache's folder; by default, the system's folder for
                temporary files. /dev/shm keeps the cache in memory.

        Raises:
            OutputError: The folder cannot be made.
        """
        self.limit = limit
        self.reserved = 0
        try:
            self.folder, lock = temporary_folder(FRAMES_PREFIX, parent)
        except OSError as error:
            raise OutputError(
                f"{parent}: the folder for cached frames cannot be made: {error}"
            ) from error
        self._finalizer: Any = weakref.finalize(self, _remove, self.folder, lock, os.getpid())

    @classmethod
    def of(cls, folder: str | Path, limit: int) -> "FrameCache":
        """Join the cache of another process on this machine; that process removes the folder."""
        cache = cls.__new__(cls)
        cache.limit, cache.reserved, cache.folder, cache._finalizer = limit, 0, Path(folder), None
        return cache

    def __getstate__(self) -> dict[str, Any]:
        # Workers use the folder, but do not remove it.
        return {**self.__dict__, "_finalizer": None}

    def reserve(self, size: int) -> bool:
        """Reserve `size` bytes; return False if there is not enough room."""
        if self.reserved + size > self.limit:
            return False
        self.reserved += size
        return True

    def frames(self, key: str, shape: tuple[int, ...], fill: Callable[[Frames], None]) -> Frames:
        """Return the frames of a video, and decode them if they are not in the cache.

        Args:
            key: Name of the video in the cache.
            shape: Shape of the array of all its frames.
            fill: Decodes all frames into an array.

        Returns:
            Read-only uint8 of this shape: memory-mapped, or in memory if the disk is full.
        """
        path = self.folder / f"{key}.npy"
        if not path.exists():
            part = self.folder / f".{key}.{os.getpid()}.part"
            try:
                # Allocate the blocks, since writing to a map on a full disk kills the process.
                with part.open("wb") as file:
                    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    _allocate(file.fileno(), file.tell() + int(np.prod(shape)))
            except OSError:
                part.unlink(missing_ok=True)
                array = np.empty(shape, np.uint8)
                fill(array)
                return array
            try:
                fill(np.load(part, mmap_mode="r+"))
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        # Slicing a plain array is several times as fast as slicing a memmap of the same memory.
        return np.asarray(np.load(path, mmap_mode="r"))

    def close(self) -> None:
        """Remove the folder."""
        if self._finalizer is not None:
            self._finalizer()


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def _remove(folder: Path, lock: int, owner: int) -> None:
    # Forked workers inherit the finalizer, but only the owner removes the folder.
    if os.getpid() == owner:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
        os.close(lock)
