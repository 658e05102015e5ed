import hashlib
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from helpers import loopback
from helpers.disk import full_disk
from helpers.loopback import Fault, Site
from helpers.progress import RecordedProgress as Recorded

from i3dzoo.errors import ChecksumError, FetchError, OutputError, UnreachableError
from i3dzoo.fetch import _http
from i3dzoo.fetch._http import short_url
from i3dzoo.fetch.download import Client
from i3dzoo.transfer import Policy
from i3dzoo.zoo.manifest import RemoteFile

CONTENT = random.Random(0).randbytes(300_000)  # noqa: S311 - a test file, not a secret
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
PATH = "/weights.bin"
FAST = Policy(attempts=3, requests=3, backoff=0.01, timeout=0.4)


@pytest.fixture
def site() -> Iterator[Site]:
    """A server with one file."""
    with loopback.serve() as site:
        site.files[PATH] = CONTENT
        yield site


@pytest.fixture
def client(progress: Recorded) -> Iterator[Client]:
    """A client with short timeouts."""
    with Client(progress, FAST) as client:
        yield client


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The path of the download."""
    return tmp_path / "weights.bin"


def download(
    client: Client, site: Site, target: Path, digest: str = SHA256, size: int | None = len(CONTENT)
) -> Path:
    """Download the file of the site."""
    return fetch(client, f"{site.address}{PATH}", target, digest, size)


def fetch(
    client: Client, url: str, target: Path, digest: str = SHA256, size: int | None = None
) -> Path:
    """Download the file of an address."""
    return client.download(
        RemoteFile(target.name, url, digest, size, None if size else 400_000), target.parent
    )


def names(folder: Path) -> list[str]:
    """Return the names of the files of a folder."""
    return sorted(path.name for path in folder.iterdir())


def leave_part(target: Path, url: str, content: bytes, etag: str = "") -> None:
    """Write the files of an interrupted download."""
    target.with_name("weights.bin.part").write_bytes(content)
    target.with_name("weights.bin.part.etag").write_text(f"{url}\n{etag}\n")


def test_download_is_whole(client: Client, site: Site, target: Path, progress: Recorded) -> None:
    """A download has the bytes of the file, reports progress, and leaves no other files."""
    assert download(client, site, target) == target
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["weights.bin"]
    assert progress.events[:2] == [("weights.bin", 300_000), 0]
    assert progress.events[-1] == 300_000


def test_git_blob_digest(client: Client, site: Site, target: Path) -> None:
    """A file can be pinned by the id that git gives to its content."""
    blob = hashlib.sha1(b"blob 300000\0" + CONTENT).hexdigest()  # noqa: S324 - git's choice
    download(client, site, target, f"git-blob:{blob}")
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(("content", "requests"), [(CONTENT, 0), (b"old", 1)])
def test_existing_file(
    client: Client, site: Site, target: Path, content: bytes, requests: int
) -> None:
    """An existing file with the right digest is kept; another one is downloaded again."""
    target.write_bytes(content)
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert len(site.log) == requests


@pytest.mark.parametrize("etag", [True, False], ids=["with ETag", "without ETag"])
def test_cut_is_resumed(
    client: Client, site: Site, target: Path, progress: Recorded, etag: bool
) -> None:
    """A download resumes after a lost connection."""
    site.faults[PATH] = [loopback.cut(100_000, etag)]
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert site.ranges(PATH) == [None, "bytes=100000-"]
    assert "resuming the download" in progress.messages[0]


def test_resumes_across_processes(site: Site, target: Path) -> None:
    """A client resumes the download of another client."""
    site.faults[PATH] = [loopback.cut(100_000)]
    with (
        Client(policy=Policy(attempts=1)) as first,
        pytest.raises(FetchError, match="the connection was cut"),
    ):
        download(first, site, target)
    assert names(target.parent) == ["weights.bin.part", "weights.bin.part.etag"]
    with Client(policy=FAST) as second:
        download(second, site, target)
    assert target.read_bytes() == CONTENT
    assert site.ranges(PATH) == [None, "bytes=100000-"]


def test_every_attempt_may_be_cut(
    client: Client, site: Site, target: Path, progress: Recorded
) -> None:
    """Attempts without new bytes are counted; after the last the download fails."""
    site.faults[PATH] = [loopback.cut(0)] * 3
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:\d+/weights\.bin: .*cut"):
        download(client, site, target)
    assert len(progress.messages) == 2


def test_attempts_that_gain_are_free(site: Site, target: Path, progress: Recorded) -> None:
    """A long download succeeds over a bad connection, as long as each attempt gains bytes."""
    content = CONTENT * 20
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    site.files[PATH] = content

    def cut_later(request: loopback.Request, content: bytes) -> None:
        start = int((request.headers["Range"] or "bytes=0-")[6:-1])
        where = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        request.head(206 if start else 200, where if start else {}, len(content) - start)
        request.wfile.write(content[start : start + 1_500_000])
        request.close_connection = True

    site.faults[PATH] = [cut_later] * 4
    with Client(progress, Policy(attempts=2, backoff=0.01)) as client:
        fetch(client, f"{site.address}{PATH}", target, digest, len(content))
    assert target.read_bytes() == content
    assert len(site.log) == 4


def test_server_without_ranges(client: Client, site: Site, target: Path) -> None:
    """If a server ignores the range, the download starts again from the beginning."""
    site.faults[PATH] = [loopback.cut(100_000), loopback.whole]
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert site.ranges(PATH) == [None, "bytes=100000-"]


@pytest.mark.parametrize(
    ("url", "part", "etag", "size", "ranges"),
    [
        pytest.param("", b"old" * 1000, '"old"', 300_000, ["bytes=3000-"], id="changed"),
        pytest.param("http://127.0.0.1:1/", b"x", "", 300_000, [None], id="another address"),
        pytest.param("", CONTENT, "", 300_000, [], id="complete"),
        pytest.param("", CONTENT, "", None, ["bytes=300000-"], id="complete, unknown size"),
        pytest.param("", CONTENT * 2, "", 300_000, ["bytes=600000-", None], id="too large"),
    ],
)
def test_part_of_an_earlier_download(
    client: Client,
    site: Site,
    target: Path,
    url: str,
    part: bytes,
    etag: str,
    size: int | None,
    ranges: list[str | None],
) -> None:
    """A part is only resumed if it belongs to the same version of the same address."""
    leave_part(target, url or f"{site.address}{PATH}", part, etag)
    download(client, site, target, size=size)
    assert target.read_bytes() == CONTENT
    assert site.ranges(PATH) == ranges


def test_damaged_part_is_dropped(
    client: Client, site: Site, target: Path, progress: Recorded
) -> None:
    """A resumed download that is corrupt starts again, once."""
    leave_part(target, f"{site.address}{PATH}", b"\0" * 1000)
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert progress.messages == ["weights.bin: the resumed download is corrupt; starting again"]


def test_part_that_is_a_link(client: Client, site: Site, target: Path, tmp_path: Path) -> None:
    """A part that is a link is replaced, and nothing is written to what it leads to."""
    victim = tmp_path / "notes.txt"
    victim.write_bytes(CONTENT[:1000])
    leave_part(target, f"{site.address}{PATH}", b"")
    target.with_name("weights.bin.part").unlink()
    target.with_name("weights.bin.part").symlink_to(victim)
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert victim.read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize(
    "fault", [loopback.status(416), loopback.other_range], ids=["416", "another range"]
)
def test_refused_range_starts_again(client: Client, site: Site, target: Path, fault: Fault) -> None:
    """If a server refuses the range, the whole file is requested."""
    leave_part(target, f"{site.address}{PATH}", CONTENT[:1000])
    site.faults[PATH] = [fault]
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert site.ranges(PATH) == ["bytes=1000-", None]


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("headers", [{}, {"Retry_After": "soon"}], ids=["", "Retry-After"])
def test_passing_failures_are_retried(
    client: Client, site: Site, target: Path, code: int, headers: dict[str, str]
) -> None:
    """A request is repeated after a temporary failure; an invalid Retry-After is ignored."""
    site.faults[PATH] = [loopback.status(code, **headers)]
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert len(site.log) == 2


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_lasting_failures_are_not_retried(
    client: Client, site: Site, target: Path, code: int
) -> None:
    """A refused request is not repeated, and leaves no files."""
    site.faults[PATH] = [loopback.status(code)]
    with pytest.raises(FetchError, match=rf"weights\.bin: HTTP {code} "):
        download(client, site, target)
    assert len(site.log) == 1
    assert names(target.parent) == []


def test_retry_after_seconds(client: Client, site: Site, target: Path) -> None:
    """Retry-After in seconds is respected."""
    site.faults[PATH] = [loopback.status(429, Retry_After="1")]
    start = time.monotonic()
    download(client, site, target)
    assert time.monotonic() - start >= 1


def test_retry_after_date(client: Client, site: Site, target: Path) -> None:
    """Retry-After as a date is respected; a wait of an hour is an error."""
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    site.faults[PATH] = [loopback.status(503, Retry_After=date)]
    with pytest.raises(FetchError, match=r"asks to wait 3[56]\d\d s; try again then"):
        download(client, site, target)


@pytest.mark.parametrize("scheme", ["file:///etc/hostname", "ftp://127.0.0.1/weights.bin"])
def test_other_schemes(client: Client, site: Site, target: Path, scheme: str) -> None:
    """An address of a scheme other than http and https is an error, after a redirect too."""
    site.faults[PATH] = [loopback.status(302, Location=scheme)]
    for url in (f"{site.address}{PATH}", scheme):
        with pytest.raises(FetchError, match="leads to an address that is neither http nor https"):
            fetch(client, url, target)
    assert names(target.parent) == []


def test_redirect_is_followed(client: Client, site: Site, target: Path) -> None:
    """A redirect is followed."""
    site.faults["/old"] = [loopback.status(302, Location=PATH)]
    fetch(client, f"{site.address}/old", target)
    assert target.read_bytes() == CONTENT


def test_endless_redirect(
    client: Client, site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body of a redirect is not read without bound."""
    monkeypatch.setattr(_http, "_MAX_PAGE", 100_000)

    def fault(request: loopback.Request, content: bytes) -> None:
        request.head(302, {"Location": PATH}, None)
        request.wfile.write(content)
        request.close_connection = True

    site.files["/old"] = CONTENT
    site.faults["/old"] = [fault]
    with pytest.raises(FetchError, match="/old: the answer has more than 100000 bytes"):
        fetch(client, f"{site.address}/old", target)


def test_redirect_in_a_circle(client: Client, site: Site, target: Path) -> None:
    """Endless redirects are an error."""
    site.faults[PATH] = [loopback.status(302, Location=PATH)] * 50
    with pytest.raises(FetchError, match="redirects in a circle"):
        download(client, site, target)


def test_flipped_byte(client: Client, site: Site, target: Path) -> None:
    """A corrupt download is deleted; the error has both digests."""
    site.faults[PATH] = [loopback.flipped]
    with pytest.raises(
        ChecksumError, match=rf"/weights\.bin: has sha256:[0-9a-f]{{64}}, expected {SHA256}"
    ):
        download(client, site, target)
    assert names(target.parent) == []


def short(request: loopback.Request, content: bytes) -> None:
    """Announce a part of the file, and send all of it."""
    request.head(200, {}, 1000)
    request.wfile.write(content)
    request.close_connection = True


@pytest.mark.parametrize(
    ("size", "fault", "message"),
    [
        (299_999, loopback.whole, "offers 300000 bytes, expected 299999"),
        (300_000, short, "offers 1000 bytes, expected 300000"),
        (
            None,
            lambda request, content: request.content(content * 2),
            "offers 600000 bytes, expected at most 400000",
        ),
        (None, loopback.endless, "sends more than the expected 400000 bytes"),
    ],
)
def test_other_sizes_are_refused(
    client: Client, site: Site, target: Path, size: int | None, fault: Fault, message: str
) -> None:
    """A file of another size, or beyond the size limit, is refused, and leaves no files."""
    site.faults[PATH] = [fault]
    with pytest.raises(FetchError, match=message):
        download(client, site, target, size=size)
    assert names(target.parent) == []


@pytest.mark.parametrize(
    ("fault", "message"), [(loopback.trickle, "sent only"), (loopback.silence, "stopped sending")]
)
def test_stalled_connection(
    client: Client, site: Site, target: Path, progress: Recorded, fault: Fault, message: str
) -> None:
    """A connection that only trickles, or is silent, is replaced by a new one."""
    site.faults[PATH] = [fault]
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert message in progress.messages[0]


def test_proxy(client: Client, site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy of the environment is used."""
    monkeypatch.setenv("HTTP_PROXY", site.address)
    site.files["http://x.invalid/weights.bin"] = CONTENT
    fetch(client, "http://x.invalid/weights.bin", target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/x", r"127\.0\.0\.1:1/x: the connection was refused"),
        ("http://x.invalid/x", r"x\.invalid/x: its name cannot be resolved"),
    ],
)
def test_unreachable_host(client: Client, target: Path, url: str, message: str) -> None:
    """The error for a refused connection or an unknown host names the host."""
    with pytest.raises(UnreachableError, match=message):
        fetch(client, url, target)


def test_folder_that_is_missing(client: Client, site: Site, tmp_path: Path) -> None:
    """A missing folder is an output error."""
    with pytest.raises(OutputError, match=r"cannot be written: the folder .* does not exist"):
        download(client, site, tmp_path / "missing" / "weights.bin")


def test_full_disk(client: Client, site: Site, target: Path) -> None:
    """A full disk is an output error, and is not retried."""
    message = r"weights\.bin: cannot be written: it is larger"
    with full_disk(100_000), pytest.raises(OutputError, match=message):
        download(client, site, target)
    assert len(site.log) == 1


def test_short_url_hides_secrets() -> None:
    """Messages shorten addresses and leave out passwords and signatures."""
    assert short_url("https://host.example/a/b/c/d/x.bin") == "host.example/…/x.bin"
    url = "https://user:secret@host.example:8443/simple/x?signature=secret"
    assert short_url(url) == "host.example:8443/simple/x"
