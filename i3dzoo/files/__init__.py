"""Open the files that a user or a server names, and write files atomically."""

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, BinaryIO, Final

from i3dzoo.errors import FormatError, I3DZooError, MissingFileError, OutputError
from i3dzoo.files.temporary import temporary_file
from i3dzoo.text import decode, web_address

TEXT_BYTES: Final = 64 << 20
_BLANKS: Final = " \t\r"


def is_special(path: Path) -> bool:
    """Whether this is a pipe, a device or a socket, which cannot be mapped or replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def missing_error(
    path: str | Path,
    reason: str = "no such file or folder",
    error: type[I3DZooError] = MissingFileError,
) -> I3DZooError:
    """Return the error for a path that does not exist, or that is an address on the web."""
    if (address := web_address(path)) is not None:
        path, reason = address, "is an address on the web; download it first, then give the file"
    link = f" (a link to {Path(path).readlink()})" if Path(path).is_symlink() else ""
    return error(f"{path}{link}: {reason}")


class _Input(FileIO):
    """A file whose errors name it: reading can fail on a damaged disk, and in /proc."""

    def __init__(self, handle: int, path: str | Path, error: type[I3DZooError]) -> None:
        super().__init__(handle)
        self._where, self._error = path, error

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as problem:
            raise self._named(problem) from problem

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as problem:
            raise self._named(problem) from problem

    def _named(self, problem: OSError) -> I3DZooError:
        return self._error(f"{self._where}: the file cannot be read: {problem.strerror}")


def open_input(
    path: str | Path,
    error: type[I3DZooError] = FormatError,
    missing: type[I3DZooError] = MissingFileError,
) -> BufferedReader:
    """Open a regular file for reading; a pipe or a device is refused and never waited for.

    Args:
        path: The file.
        error: Class of the error for what cannot be read, also later.
        missing: Class of the error for a file that does not exist.
    """
    kind = error
    try:
        # opening a pipe waits for a writer without O_NONBLOCK, which changes nothing for a file
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        handle = os.open(path, flags)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return BufferedReader(_Input(handle, path, error))
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        os.close(handle)
        reason = "expected a regular file, found a pipe or a device"
        if folder:
            reason = "expected a file, found a folder"
    except IsADirectoryError:
        reason = "expected a file, found a folder"
    except FileNotFoundError:
        raise missing_error(path, "the file does not exist", missing) from None
    except OSError as problem:
        reason = f"the file cannot be read: {problem.strerror}"
    except ValueError as problem:  # the name has a null character
        reason = f"the file cannot be read: {problem}"
    raise kind(f"{path}: {reason}")


def read_text(
    path: str | Path, error: type[I3DZooError] = FormatError, fallback: str | None = None
) -> str:
    """Read a text file that a person made: UTF-8, or UTF-16 with a byte order mark.

    `fallback` is the encoding of text that is not UTF-8; None refuses it.
    """
    with open_input(path, error) as file:
        return decode_text(file.read(TEXT_BYTES + 1), path, error, fallback)


def decode_text(
    data: bytes,
    where: str | Path,
    error: type[I3DZooError] = FormatError,
    fallback: str | None = None,
) -> str:
    """Decode the content of a text file; `where` names it."""
    if len(data) > TEXT_BYTES:
        raise error(f"{where}: expected at most {TEXT_BYTES} bytes of text, found more")
    try:
        return decode(data, fallback=fallback)
    except UnicodeError as problem:
        raise error(f"{where}: {problem}") from problem


def split_lines(text: str) -> list[str]:
    """Return the lines without the blanks around them; only a line feed ends a line."""
    # str.splitlines and str.strip would also cut at characters that may be part of a name
    return [line.strip(_BLANKS) for line in text.removesuffix("\n").split("\n")]


def check_output(path: Path, force: bool) -> None:
    """Check that a file can be written, before work is done that would be lost.

    An existing regular file is an error unless `force`; anything else at the path always is.
    """
    try:
        if path.is_symlink():
            raise OutputError(f"{path}: is a symbolic link; i3dzoo does not write through links")
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; give a file")
        if is_special(path):
            raise OutputError(f"{path}: is a pipe or a device; give a file")
        if path.exists() and not force:
            raise OutputError(f"{path}: exists already; pass --force to replace it")
        if not path.parent.is_dir():
            raise OSError(errno.ENOENT, "")
    except OSError as error:
        raise output_error(path, error) from error


def make_folder(path: Path) -> None:
    """Create a folder and its parents, if they do not exist."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file in the folder of `path`, and rename it to `path` after the block.

    The bytes are on the disk (fsync) before the rename, so a killed process never leaves an
    incomplete file at `path`. If the block raises, the temporary file is removed. An OSError
    becomes an OutputError that says what to do.
    """
    try:
        with temporary_file(path) as (file, part):
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":
                file.close()
            part.chmod(0o666 & ~_umask())
            part.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    except RuntimeError as error:
        # torch.save raises its own error while it handles the error of the disk
        if isinstance(error.__context__, OSError):
            raise output_error(path, error.__context__) from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def output_error(path: Path, error: OSError) -> OutputError:
    """Return an error for a failed write that says what to do."""
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
