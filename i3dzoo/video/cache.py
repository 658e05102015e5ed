"""A cache of decoded frames, bounded in bytes, that all workers of a run share."""

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from i3dzoo.errors import OutputError
from i3dzoo.video.records import Frames

__all__ = ["FrameCache"]


class FrameCache:
    """Decoded frames in a temporary folder, one memory-mapped array a video.

    Which videos are kept is decided before the first is decoded: those that are reserved while
    room is left. An epoch reads every video once, so that throwing out the oldest would throw out
    each just before it is needed; to keep the first comers is the best that can be done, and it
    takes no talk between workers. The system holds what is read in memory as long as there is
    memory to spare. The folder goes when the cache is closed or the process that made it ends.

    Attributes:
        limit: Most bytes.
        reserved: Bytes that are promised.
        folder: Where the arrays are.
    """

    def __init__(self, limit: int, parent: str | Path | None = None) -> None:
        """Make an empty cache.

        Args:
            limit: Most bytes.
            parent: Folder to make the cache's own folder in; by default where the system keeps
                temporary files. A folder in memory (/dev/shm) never touches the disk.

        Raises:
            OutputError: The folder cannot be made.
        """
        self.limit = limit
        self.reserved = 0
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="i3dzoo-frames-", dir=parent))
        except OSError as error:
            raise OutputError(
                f"{parent}: no folder for cached frames can be made: {error}"
            ) from error
        self._finalizer: Any = weakref.finalize(self, _remove, self.folder, os.getpid())

    @classmethod
    def of(cls, folder: str | Path, limit: int) -> "FrameCache":
        """Return the cache that another process of this machine has made, and will remove.

        Processes that reserve for the same videos in the same order keep the same ones, each once.
        """
        cache = cls.__new__(cls)
        cache.limit, cache.reserved, cache.folder, cache._finalizer = limit, 0, Path(folder), None
        return cache

    def __getstate__(self) -> dict[str, Any]:
        # Workers get the folder, but not the duty to remove it.
        return {**self.__dict__, "_finalizer": None}

    def reserve(self, size: int) -> bool:
        """Promise room for `size` bytes; False where there is not so much left."""
        if self.reserved + size > self.limit:
            return False
        self.reserved += size
        return True

    def frames(self, key: str, shape: tuple[int, ...], fill: Callable[[Frames], None]) -> Frames:
        """Return a video's frames, and have them decoded if they are not here.

        Args:
            key: Name of the video's file in the cache.
            shape: Of all its frames.
            fill: Decodes all frames into the array that it is given.

        Returns:
            uint8 of that shape, read-only; a memory map, or, where the disk is full, an array.
        """
        path = self.folder / f"{key}.npy"
        if not path.exists():
            part = self.folder / f".{key}.{os.getpid()}.part"
            try:
                # Reserve the blocks: writing to a map of a full disk would kill the process.
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
        # A plain array on the same memory: slicing it is several times as fast as slicing a map.
        return np.asarray(np.load(path, mmap_mode="r"))

    def close(self) -> None:
        """Remove the folder and all that is in it."""
        if self._finalizer is not None:
            self._finalizer()


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def _remove(folder: Path, owner: int) -> None:
    # A forked worker inherits the finalizer; only the process that made the folder removes it.
    if os.getpid() == owner:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
