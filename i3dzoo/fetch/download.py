"""Downloads of manifests' files: resumed by later processes, and checked by their digest."""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from i3dzoo import transfer
from i3dzoo.digests import digest_like
from i3dzoo.errors import ChecksumError, FetchError, I3DZooError
from i3dzoo.fetch._http import open_answer, open_session, short_url
from i3dzoo.files import output_error
from i3dzoo.progress import SILENT, Progress
from i3dzoo.transfer import LostConnectionError, Part, Policy, Remote
from i3dzoo.zoo.manifest import RemoteFile


class Client(contextlib.AbstractContextManager["Client"]):
    """A session of downloads; use it in a `with` block."""

    def __init__(self, progress: Progress = SILENT, policy: Policy | None = None) -> None:
        self.progress = progress
        self.policy = policy or Policy()
        self.session = open_session(self.policy)

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def download(self, file: RemoteFile, folder: Path) -> Path:
        """Download a file into a folder that exists, and check it.

        A file that is there with the right digest is kept; one without a digest is replaced. The
        file gets its name only after its digest was checked.
        """
        target = folder / file.name
        if file.digest != "none" and target.is_file() and _digest(file, target) == file.digest:
            return target
        self.progress.start(file.name, file.size)
        where = short_url(file.url)
        opener = partial(open_answer, self.session, file.url, self.policy)
        remote = Remote(file.name, where, file.url, file.size, file.limit, opener)
        with translate_write_errors(target):
            part = Part(target.with_name(f"{target.name}.part"), file.url)
            try:
                transfer.download(remote, part, partial(_check, file), self.progress, self.policy)
            except LostConnectionError as error:
                raise FetchError(f"{where}: {error}") from error
            part.path.replace(target)
            part.remove()
        return target


@contextlib.contextmanager
def translate_write_errors(target: Path) -> Iterator[None]:
    """Turn the errors of a full or read-only disk into an OutputError that says what to do."""
    try:
        yield
    except I3DZooError:
        raise
    except OSError as error:
        raise output_error(target, error) from error


def _check(file: RemoteFile, path: Path) -> None:
    """Compare a download with the digest that the manifest states."""
    if (actual := _digest(file, path)) != file.digest:
        raise ChecksumError(
            f"{short_url(file.url)}: has {actual}, expected {file.digest}; it was damaged "
            "on the way or replaced at its source, and the download was deleted"
        )


def _digest(file: RemoteFile, path: Path) -> str:
    """Return the digest of a path, of the same kind as the manifest states for the file."""
    return "none" if file.digest == "none" else digest_like(path, file.digest)
