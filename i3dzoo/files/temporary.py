"""Temporary files and folders, which are locked while a process uses them.

What killed processes left is removed by the next one. A lock ends with its process. Locks may not
reach from one machine to another, so names have a mark of the machine, and what other machines left
stays.
"""

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

if sys.platform != "win32":
    import fcntl

_NO_LOCKS: Final = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_swept: set[tuple[Path, str]] = set()


@contextlib.contextmanager
def temporary_file(path: Path, suffix: str = "part") -> Iterator[tuple[BinaryIO, Path]]:
    """Open a temporary file in the folder of `path`; it is removed after the block, unless renamed.

    It is locked until it is closed. What killed processes left in the folder is removed first.
    """
    remove_abandoned(path.parent, suffix)
    while True:
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.name[:50]}.{_machine()}-", suffix=f".{suffix}", dir=path.parent
        )
        lock(descriptor, wait=True)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # another process removed it before it was locked
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file, part
    finally:
        part.unlink(missing_ok=True)


def remove_abandoned(folder: Path, suffix: str = "part", again: bool = False) -> None:
    """Remove the temporary files of killed processes from a folder, once in a process or again.

    A file is removed if no process holds its lock.
    """
    if (folder.absolute(), suffix) in _swept and not again:
        return
    _swept.add((folder.absolute(), suffix))
    mark = re.compile(rf"\..*\.{_machine()}-[a-z0-9_]{{8}}\.{re.escape(suffix)}")
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if mark.fullmatch(path.name) and (held := lock_abandoned(path)) is not None:
                path.unlink(missing_ok=True)
                os.close(held)


def temporary_folder(prefix: str, parent: str | Path | None = None) -> tuple[Path, int]:
    """Create a temporary folder, and remove those that killed processes left.

    The descriptor that is returned with it locks it, also for the workers that are forked.
    """
    parent = Path(parent or tempfile.gettempdir())
    with contextlib.suppress(OSError):
        for folder in parent.glob(f"{prefix}-{_machine()}-*"):
            if (held := lock_abandoned(folder / ".lock")) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(held)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-{_machine()}-", dir=parent))
    part = folder / ".new"  # others only look for the lock under its own name
    held = os.open(part, os.O_RDWR | os.O_CREAT)
    lock(held)
    part.rename(folder / ".lock")
    return folder, held


def lock_abandoned(path: Path) -> int | None:
    """Lock a file that no process holds; return the descriptor, or None if it may be held."""
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    if lock(descriptor) is True:
        return descriptor
    os.close(descriptor)
    return None


def in_use(path: Path) -> bool:
    """Whether a process may hold the lock of a file; also if there is no such file."""
    if (descriptor := lock_abandoned(path)) is None:
        return True
    os.close(descriptor)
    return False


def made_here(path: Path) -> bool:
    """Whether a temporary file or folder was made by this machine since it was started."""
    return f"{_machine()}-" in path.name


def lock(descriptor: int, wait: bool = False) -> bool | None:
    """Lock a file; return False if another process has, and None if there are no locks here."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


@functools.cache
def _machine() -> str:
    """Return eight digits of this machine, since it was started."""
    try:
        identity = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        identity = platform.node().encode()
    return hashlib.sha256(identity).hexdigest()[:8]
