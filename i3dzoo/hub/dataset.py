"""Download a data set of videos from the Hub: the videos, and the lists beside them."""

import re
from pathlib import Path
from typing import Final

import huggingface_hub

from i3dzoo.errors import FetchError
from i3dzoo.hub.address import MAIN, Address
from i3dzoo.hub.answers import read_repository
from i3dzoo.hub.cache import open_cache
from i3dzoo.hub.client import Token
from i3dzoo.hub.failures import translate_errors
from i3dzoo.hub.receiver import Receiver
from i3dzoo.progress import SILENT, Progress

_NAME: Final = r"(?P<name>[\w.-]+/[\w.-]+)"
# pathlib.Path turns two slashes into one
_ADDRESS: Final = re.compile(rf"hf://?datasets/{_NAME}(?:@(?P<revision>[^\s@]+))?")
_WEB: Final = re.compile(
    rf"https?://?(?:huggingface\.co|hf\.co)/datasets/{_NAME}(?:/tree/(?P<revision>[^/\s]+))?/?"
)
_MAX_FILES: Final = 1_000_000


def is_dataset(name: str | Path) -> bool:
    """Whether a data argument is `hf://datasets/USER/NAME[@REVISION]`, or its page on the Hub."""
    return _match(name) is not None


def _match(name: str | Path) -> re.Match[str] | None:
    return _ADDRESS.fullmatch(str(name)) or _WEB.fullmatch(str(name))


def pull_dataset(
    name: str | Path,
    suffixes: frozenset[str],
    *,
    token: Token = None,
    progress: Progress = SILENT,
) -> Path:
    """Return the folder of a data set in the Hub's cache, downloaded where it is not cached.

    Args:
        name: `hf://datasets/USER/NAME[@REVISION]`.
        suffixes: Which files to download, such as `.mp4`; in any case.
        token: Token for the Hub; None uses the one of this machine.
        progress: Shows the number and the size of the files.

    Raises:
        FetchError: The data set does not exist, cannot be read, or has no such files.
        ChecksumError: A file that was downloaded differs from what the Hub lists.
    """
    match = _match(name)
    if match is None:
        raise FetchError(f"{name}: expected hf://datasets/USER/NAME, with @REVISION or without")
    repository, revision = match["name"], match["revision"]
    address = Address(repository, revision or MAIN)
    where = f"hf://datasets/{address}"
    cache = open_cache(repository, None, "dataset")
    if huggingface_hub.is_offline_mode():
        with translate_errors(where, FetchError):
            return Path(
                huggingface_hub.snapshot_download(
                    repository, revision=revision, repo_type="dataset", local_files_only=True
                )
            )
    answer, listed = read_repository(address, token, "datasets")
    wanted = [file for file in listed.values() if Path(file.name).suffix.lower() in suffixes]
    if not wanted or len(wanted) > _MAX_FILES:
        raise FetchError(
            f"{where}: has {len(wanted):,} videos and lists; expected 1 to {_MAX_FILES:,} files"
        )
    missing = [file for file in wanted if not cache.snapshot(answer.sha, file.name).is_file()]
    if missing:
        size = sum(file.size for file in missing)
        progress.message(f"{where}: downloads {len(missing):,} files, {size / 1e6:.1f} MB")
        receiver = Receiver(address, token, cache, progress, kind="dataset")
        cache.sweep(cache.blob(file.digest) for file in missing)
        with translate_errors(where, FetchError):
            for file in missing:
                receiver.get(file, answer.sha)
    cache.remember(address.revision, answer.sha)
    return cache.folder / "snapshots" / answer.sha
