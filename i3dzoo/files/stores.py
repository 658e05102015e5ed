"""Where the files of many videos are written: a folder, or an address of fsspec such as s3://."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from i3dzoo.errors import DependencyError, OptionError, OutputError
from i3dzoo.files import atomic_write, make_folder, open_input
from i3dzoo.files.exclusive import claim, exclusive

Waiting = Callable[[str], object]


class Store(Protocol):
    """A place for files, whose names may have folders: `a/b.npy`."""

    def location(self, name: str = "") -> str:
        """Return the path or the address of a file, or of the place itself."""

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def read(self, name: str) -> bytes:
        """Return the content of a file."""

    def write(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """Open a file for writing, which appears whole after the block, or not at all.

        Raises:
            OutputError: It cannot be written.
        """

    def names(self) -> set[str]:
        """Return the names of all files."""

    def claim(
        self, name: str, waiting: Waiting | None = None
    ) -> contextlib.AbstractContextManager[bool]:
        """Claim a file for this process; see `i3dzoo.files.exclusive.claim`.

        With `waiting`, this waits until no other process has claimed it, and calls `waiting` with a
        remark if one has. At addresses, every claim is granted, because they have no locks.
        """


def open_store(place: str | Path) -> Store:
    """Return the store of a folder, or of an address such as `s3://bucket/features`.

    Raises:
        DependencyError: The address needs fsspec, or the package of its protocol.
        OptionError: No package knows its protocol.
    """
    if "://" in str(place):
        return UrlStore(str(place))
    return FolderStore(Path(place))


class FolderStore:
    """A folder, which is made when the first file is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def location(self, name: str = "") -> str:
        """Return the path of a file, or of the folder."""
        return str(self.folder / name)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.folder / name).exists()

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        with open_input(self.folder / name, OutputError) as file:
            return file.read()

    @contextlib.contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        """Write a file whole or not at all."""
        path = self.folder / name
        make_folder(path.parent)
        with atomic_write(path) as file:
            yield file

    def names(self) -> set[str]:
        """Return the names of all files."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix() for path in files}

    @contextlib.contextmanager
    def claim(self, name: str, waiting: Waiting | None = None) -> Iterator[bool]:
        """Claim a file for this process."""
        path = self.folder / name
        make_folder(path.parent)
        if waiting is not None:
            with exclusive(path, waiting):
                yield True
        else:
            with claim(path) as claimed:
                yield claimed


class UrlStore:
    """Files at an address, through fsspec; object stores show a file only when it is whole."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise DependencyError(
                f"{url}: an address needs fsspec: pip install 'i3dzoo[remote]'"
            ) from error
        self.url = url.rstrip("/")
        try:
            self._files: Any
            self._files, self._root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise DependencyError(f"{url}: its protocol needs a package: {error}") from error
        except ValueError as error:
            raise OptionError(
                f"{url}: {error}; expected a folder or an address of fsspec"
            ) from error

    def location(self, name: str = "") -> str:
        """Return the address of a file, or of the place."""
        return f"{self.url}/{name}" if name else self.url

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        with self._explained(name):
            return bool(self._files.exists(self._path(name)))

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        with self._explained(name):
            return bytes(self._files.cat_file(self._path(name)))

    @contextlib.contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        """Write a file on this machine, and send it after the block."""
        with tempfile.TemporaryDirectory(prefix="i3dzoo-") as folder:
            part = Path(folder) / "part"
            with part.open("w+b") as file:
                yield file
            path = self._path(name)
            with self._explained(name):
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(part), path)

    def names(self) -> set[str]:
        """Return the names of all files."""
        with self._explained(""):
            return {path.removeprefix(f"{self._root}/") for path in self._files.find(self._root)}

    @contextlib.contextmanager
    def claim(self, name: str, waiting: Waiting | None = None) -> Iterator[bool]:  # noqa: ARG002 - no claims here
        """Grant every claim."""
        yield True

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the packages of protocols have errors of their own
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise OutputError(f"{self.location(name)}: cannot be reached: {reason}") from error
