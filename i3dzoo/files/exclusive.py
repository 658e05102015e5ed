"""Let one process at a time write to a file or a folder."""

import contextlib
import hashlib
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from i3dzoo.errors import OutputError
from i3dzoo.files import check_output, make_folder, output_error
from i3dzoo.files.temporary import lock

_held: set[int] = set()  # descriptors


@contextlib.contextmanager
def exclusive(output: Path, waiting: Callable[[str], object] | None = None) -> Iterator[None]:
    """Let one process at a time write to a file or a folder; a lock ends with its process.

    If another process does, `waiting` is called with a remark, and this one waits. Without
    `waiting`, an OutputError names the output and the process.
    """
    if sys.platform == "win32":
        yield
        return
    path = _lock_file(output)
    try:
        descriptor = _lock_output(path, output, waiting)
    except OSError as error:
        raise output_error(output, error) from error
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            path.unlink(missing_ok=True)
            os.close(descriptor)


class _BusyError(Exception):
    """Another process writes to an output."""


@contextlib.contextmanager
def claim(output: Path) -> Iterator[bool]:
    """Claim an output for this process, and yield whether it is claimed: no other process had it.

    The claim is a lock as in `exclusive`: it ends with the block or with the process, so that what
    a killed process had claimed is free. Where the file system has no locks, every claim is
    granted.
    """

    def refuse(_: str) -> None:
        raise _BusyError

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(output, refuse))
        except _BusyError:
            claimed = False
        else:
            claimed = True
        yield claimed


@contextlib.contextmanager
def exclusive_files(outputs: Sequence[Path], force: bool) -> Iterator[None]:
    """Let one process at a time write files that belong together, after `check_output` of each."""
    for output in outputs:
        check_output(output, force)
    with exclusive(outputs[0]):
        for output in outputs:  # another process may have written it
            check_output(output, force)
        yield


@contextlib.contextmanager
def exclusive_folder(folder: Path) -> Iterator[None]:
    """Create a folder, and let one process at a time write to it; see `exclusive`.

    A new folder in which nothing was written is removed.
    """
    new = not folder.exists()
    make_folder(folder)
    try:
        with exclusive(folder):
            yield
    finally:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _lock_file(output: Path) -> Path:
    if output.is_dir():
        return output / ".lock"
    name = output.name
    if len(os.fsencode(name)) > 100:  # the system limits the length
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return output.with_name(f".{name}.lock")


def _lock_output(path: Path, output: Path, waiting: Callable[[str], object] | None) -> int:
    """Lock the lock file of an output, and return its descriptor."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(path, flags, 0o666)
        try:
            if lock(descriptor) is False:
                found = re.fullmatch(rb"process \d+ on [\w.-]+", os.read(descriptor, 200))
                busy = f"{output}: {found[0].decode() if found else 'a process'} is writing to it"
                if waiting is None:
                    raise OutputError(f"{busy}; wait until it ends, or name another output")
                waiting(f"{busy}; waiting")
                lock(descriptor, wait=True)
            # the process that held the lock has removed the file
            if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
                with contextlib.suppress(OSError):  # the disk is full
                    os.ftruncate(descriptor, 0)
                    os.lseek(descriptor, 0, os.SEEK_SET)
                    os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
                return descriptor
        except BaseException:  # also if Ctrl-C ends the wait
            os.close(descriptor)
            raise
        os.close(descriptor)


def _release_in_child() -> None:
    """Close the locks in a forked worker, which may outlive the process that holds them."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
