"""Writing files whole or not at all."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from i3dzoo.errors import OutputError

__all__ = ["atomic_write", "check_output", "is_special", "make_folder", "output_error"]


def is_special(path: Path) -> bool:
    """Whether this is a pipe, a device or a socket, which nothing can map or put back."""
    return path.exists() and not path.is_file() and not path.is_dir()


def check_output(path: Path, force: bool) -> None:
    """Refuse an output that exists, unless forced, and one that is no regular file, always.

    So is one in a folder that does not exist, before work is done that would be lost.

    Raises:
        OutputError: With what to do about it.
    """
    try:
        if path.is_symlink():
            raise OutputError(f"{path}: is a symbolic link; i3dzoo writes no file through a link")
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; name a file")
        if is_special(path):
            raise OutputError(f"{path}: is a pipe or a device; name a file")
        if path.exists() and not force:
            raise OutputError(f"{path}: exists already; pass --force to replace it")
        if not path.parent.is_dir():
            raise OSError(errno.ENOENT, "")
    except OSError as error:
        raise output_error(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where it is not there.

    Raises:
        OutputError: It cannot be made, or is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its name when the block ends well.

    The bytes are on the disk (fsync) before the name is, so a killed process leaves no half file
    under the final name. When the block raises, the temporary file is removed.

    Raises:
        OutputError: The folder is missing or read-only, or the disk is full.
    """
    try:
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.name[:50]}.", suffix=".part", dir=path.parent
        )
    except OSError as error:
        raise output_error(path, error) from error
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    except RuntimeError as error:
        # torch.save raises one of its own while the disk's error passes through it
        if isinstance(error.__context__, OSError):
            raise output_error(path, error.__context__) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def output_error(path: Path, error: OSError) -> OutputError:
    """Put a failure to write into words, with what to do about it."""
    if isinstance(error, OutputError):
        return error
    remedy = {
        errno.ENOENT: f"the folder {path.parent} does not exist; create it first",
        errno.EACCES: f"no permission to write in {path.parent}",
        errno.EROFS: f"{path.parent} is on a read-only file system",
        errno.ENOSPC: f"the disk is full; free some space in {path.parent}",
        errno.EDQUOT: f"your quota is used up; free some space in {path.parent}",
        errno.ENAMETOOLONG: "its name is longer than the system allows; choose a shorter one",
        errno.EFBIG: "it is larger than the limit on files allows; raise it with ulimit -f",
    }.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"{path}: cannot be written: {remedy}")
