import hashlib
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from i3dzoo.errors import ChecksumError, FetchError, OutputError
from i3dzoo.fetch import Client, Policy, shown

from . import loopback
from .loopback import Diary, Site

CONTENT = random.Random(0).randbytes(300_000)  # noqa: S311 - a test file, not a secret
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
PATH = "/weights.bin"
FAST = Policy(attempts=3, backoff=0.01, longest_wait=2, connect_timeout=2, read_timeout=0.4)


@pytest.fixture
def site() -> Iterator[Site]:
    """A server with one file."""
    with loopback.serve() as site:
        site.files[PATH] = CONTENT
        yield site


@pytest.fixture
def diary() -> Diary:
    """What the client of the test told."""
    return Diary()


@pytest.fixture
def client(diary: Diary) -> Iterator[Client]:
    """An impatient client."""
    with Client(diary, FAST) as client:
        yield client


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the download goes."""
    return tmp_path / "weights.bin"


def download(
    client: Client, site: Site, target: Path, digest: str = SHA256, size: int | None = len(CONTENT)
) -> Path:
    """Download the file of the site."""
    return client.download(f"{site.address}{PATH}", target, digest, size, 400_000)


def names(folder: Path) -> list[str]:
    """Return the names of the files of a folder."""
    return sorted(path.name for path in folder.iterdir())


def leave_part(target: Path, url: str, content: bytes, etag: str = "") -> None:
    """Leave what an interrupted download leaves."""
    target.with_name("weights.bin.part").write_bytes(content)
    target.with_name("weights.bin.part.etag").write_text(f"{url}\n{etag}\n")


def test_download_is_whole(client: Client, site: Site, target: Path, diary: Diary) -> None:
    """A download has the file's bytes, tells its progress, and leaves nothing beside it."""
    assert download(client, site, target) == target
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["weights.bin"]
    assert diary.started == [("weights.bin", 300_000)]
    assert diary.done[0] == 0
    assert diary.done[-1] == 300_000


def test_git_blob_digest(client: Client, site: Site, target: Path) -> None:
    """A file can be pinned by the id that git gives to its content."""
    blob = hashlib.sha1(b"blob 300000\0" + CONTENT).hexdigest()  # noqa: S324 - git's choice
    download(client, site, target, f"git-blob:{blob}")
    assert target.read_bytes() == CONTENT


def test_good_file_is_not_fetched_again(client: Client, site: Site, target: Path) -> None:
    """What is there with the right digest is kept."""
    target.write_bytes(CONTENT)
    download(client, site, target)
    assert site.log == []


def test_wrong_file_is_replaced(client: Client, site: Site, target: Path) -> None:
    """What is there with another digest is fetched again."""
    target.write_bytes(b"old")
    download(client, site, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [True, False], ids=["with ETag", "without ETag"])
def test_cut_is_resumed(client: Client, site: Site, target: Path, diary: Diary, etag: bool) -> None:
    """After a cut the download goes on where it stopped."""
    site.faults[PATH] = [loopback.cut(100_000, etag)]
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert site.asked(PATH) == [None, "bytes=100000-"]
    assert "trying again in 0.0 s" in diary.remarks[0]


def test_resumes_across_processes(site: Site, target: Path) -> None:
    """A client goes on with what another client has left."""
    site.faults[PATH] = [loopback.cut(100_000)]
    with (
        Client(policy=Policy(attempts=1)) as first,
        pytest.raises(FetchError, match=r"cut.* at 100000 of 300000 bytes; 1 attempts|cut the"),
    ):
        download(first, site, target)
    assert names(target.parent) == ["weights.bin.part", "weights.bin.part.etag"]
    with Client(policy=FAST) as second:
        download(second, site, target)
    assert target.read_bytes() == CONTENT
    assert site.asked(PATH) == [None, "bytes=100000-"]


def test_every_attempt_may_be_cut(client: Client, site: Site, target: Path, diary: Diary) -> None:
    """Attempts that gain nothing are counted and end the download with its reason."""
    site.faults[PATH] = [loopback.cut(0)] * 3
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:\d+/weights\.bin: .*cut.*; 3 attempts"):
        download(client, site, target)
    assert len(diary.remarks) == 2


def test_attempts_that_gain_are_free(site: Site, target: Path, diary: Diary) -> None:
    """A long download over a bad line ends well however often it is cut."""
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
    with Client(diary, Policy(attempts=2, backoff=0.01)) as client:
        client.download(f"{site.address}{PATH}", target, digest, len(content), len(content))
    assert target.read_bytes() == content
    assert len(site.log) == 4


def test_server_without_ranges(client: Client, site: Site, target: Path) -> None:
    """A server that ignores ranges sends all, and all is taken from the beginning."""
    site.faults[PATH] = [loopback.cut(100_000), loopback.whole]
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert site.asked(PATH) == [None, "bytes=100000-"]


def test_changed_file_is_fetched_whole(client: Client, site: Site, target: Path) -> None:
    """Bytes of another version, as its ETag tells, are not gone on with."""
    leave_part(target, f"{site.address}{PATH}", b"old" * 1000, '"old"')
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert site.asked(PATH) == ["bytes=3000-"]


def test_part_of_another_address_is_dropped(client: Client, site: Site, target: Path) -> None:
    """Bytes of another address are not gone on with."""
    leave_part(target, "http://127.0.0.1:1/weights.bin", b"other")
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert site.asked(PATH) == [None]


def test_damaged_part_is_dropped(client: Client, site: Site, target: Path, diary: Diary) -> None:
    """A resumed download that turns out corrupt is started again, once."""
    leave_part(target, f"{site.address}{PATH}", b"\0" * 1000)
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert diary.remarks == ["weights.bin: the resumed download is corrupt; starting again"]


def test_complete_part_is_taken(client: Client, site: Site, target: Path) -> None:
    """A part that has all bytes needs no request."""
    leave_part(target, f"{site.address}{PATH}", CONTENT)
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert site.log == []


def test_complete_part_of_unknown_size(client: Client, site: Site, target: Path) -> None:
    """Of a file whose size is not known, the answer 416 says that all bytes are here."""
    leave_part(target, f"{site.address}{PATH}", CONTENT)
    download(client, site, target, size=None)
    assert target.read_bytes() == CONTENT
    assert site.asked(PATH) == ["bytes=300000-"]


def test_part_beyond_the_size_is_dropped(client: Client, site: Site, target: Path) -> None:
    """A part that is larger than the file can be is fetched again."""
    leave_part(target, f"{site.address}{PATH}", CONTENT * 2)
    download(client, site, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "fault", [loopback.status(416), loopback.other_range], ids=["416", "another range"]
)
def test_refused_range_starts_again(
    client: Client, site: Site, target: Path, fault: loopback.Fault
) -> None:
    """A server that does not go on as it was asked is asked for the whole file."""
    leave_part(target, f"{site.address}{PATH}", CONTENT[:1000])
    site.faults[PATH] = [fault]
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert site.asked(PATH) == ["bytes=1000-", None]


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_passing_failures_are_retried(
    client: Client, site: Site, target: Path, diary: Diary, code: int
) -> None:
    """A server that is busy or broken is asked again."""
    site.faults[PATH] = [loopback.status(code)]
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert f"HTTP {code}" in diary.remarks[0]


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_lasting_failures_are_not_retried(
    client: Client, site: Site, target: Path, code: int
) -> None:
    """A server that refuses is not asked again, and nothing is left."""
    site.faults[PATH] = [loopback.status(code)]
    with pytest.raises(FetchError, match=rf"weights\.bin: HTTP {code} "):
        download(client, site, target)
    assert len(site.log) == 1
    assert names(target.parent) == []


def test_retry_after_seconds(client: Client, site: Site, target: Path, diary: Diary) -> None:
    """A server may say how many seconds to wait."""
    site.faults[PATH] = [loopback.status(429, Retry_After="1")]
    download(client, site, target)
    assert "trying again in 1.0 s" in diary.remarks[0]


def test_retry_after_date(client: Client, site: Site, target: Path) -> None:
    """A server may say when to come again."""
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    site.faults[PATH] = [loopback.status(503, Retry_After=date)]
    with pytest.raises(FetchError, match=r"HTTP 503 .*asks to wait 3[56]\d\d s; try again then"):
        download(client, site, target)


def test_retry_after_nonsense(client: Client, site: Site, target: Path) -> None:
    """A Retry-After that is neither is passed over."""
    site.faults[PATH] = [loopback.status(503, Retry_After="soon")]
    download(client, site, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("scheme", ["file:///etc/hostname", "ftp://127.0.0.1/weights.bin"])
def test_redirect_to_other_schemes(client: Client, site: Site, target: Path, scheme: str) -> None:
    """A redirect may lead to http and https only."""
    site.faults[PATH] = [loopback.status(302, Location=scheme)]
    with pytest.raises(FetchError, match="leads to an address that is neither http nor https"):
        download(client, site, target)
    assert names(target.parent) == []


def test_address_of_other_scheme(client: Client, target: Path) -> None:
    """An address is http or https."""
    with pytest.raises(FetchError, match="neither http nor https"):
        client.download("file:///etc/hostname", target, SHA256, None, 1000)


def test_redirect_is_followed(client: Client, site: Site, target: Path) -> None:
    """A redirect to another address of the web is followed."""
    site.faults["/old"] = [loopback.status(302, Location=PATH)]
    client.download(f"{site.address}/old", target, SHA256, None, 400_000)
    assert target.read_bytes() == CONTENT


def test_redirect_in_a_circle(client: Client, site: Site, target: Path) -> None:
    """Redirects that never end are given up."""
    site.faults[PATH] = [loopback.status(302, Location=PATH)] * 50
    with pytest.raises(FetchError, match="redirects in a circle"):
        download(client, site, target)


def test_flipped_byte(client: Client, site: Site, target: Path) -> None:
    """A corrupt download is named with both digests and deleted."""
    site.faults[PATH] = [loopback.flipped]
    with pytest.raises(
        ChecksumError, match=rf"/weights\.bin: has sha256 [0-9a-f]{{64}}, expected {SHA256[7:]}"
    ):
        download(client, site, target)
    assert names(target.parent) == []


def test_other_length_is_refused(client: Client, site: Site, target: Path) -> None:
    """A file of another size than expected is refused before it comes."""
    with pytest.raises(FetchError, match="offers 300000 bytes, expected 299999"):
        download(client, site, target, size=299_999)
    assert names(target.parent) == []


def test_too_large_a_file_is_refused(client: Client, site: Site, target: Path) -> None:
    """A file of unknown size that is beyond the limit is refused before it comes."""
    site.files[PATH] = CONTENT * 2
    with pytest.raises(FetchError, match="offers 600000 bytes, expected at most 400000"):
        download(client, site, target, size=None)


def test_endless_file_is_broken_off(client: Client, site: Site, target: Path) -> None:
    """A file that does not say its length is broken off at the limit and deleted."""
    site.faults[PATH] = [loopback.endless]
    with pytest.raises(FetchError, match="sends more than the expected 400000 bytes"):
        download(client, site, target, size=None)
    assert names(target.parent) == []


def test_file_longer_than_its_length(client: Client, site: Site, target: Path) -> None:
    """A length that is too small is refused as it differs from the expected one."""

    def short(request: loopback.Request, content: bytes) -> None:
        request.head(200, {}, 1000)
        request.wfile.write(content)
        request.close_connection = True

    site.faults[PATH] = [short]
    with pytest.raises(FetchError, match="offers 1000 bytes, expected 300000"):
        download(client, site, target)


def test_trickle_is_a_stall(client: Client, site: Site, target: Path, diary: Diary) -> None:
    """A server that sends a byte now and then is left and asked again."""
    site.faults[PATH] = [loopback.trickle]
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert "sent only" in diary.remarks[0]


def test_headers_that_never_end(client: Client, site: Site, target: Path, diary: Diary) -> None:
    """A server that sends its headers a line at a time is left, though each line comes in time."""
    site.faults[PATH] = [loopback.slow_headers]
    start = time.monotonic()
    download(client, site, target)
    assert time.monotonic() - start < 6  # they would take 10 s
    assert target.read_bytes() == CONTENT
    assert "did not answer in time" in diary.remarks[0]


def test_proxy(client: Client, site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy of the environment is asked for the address."""
    monkeypatch.setenv("HTTP_PROXY", site.address)
    site.files["http://x.invalid/weights.bin"] = CONTENT
    client.download("http://x.invalid/weights.bin", target, SHA256, None, 400_000)
    assert target.read_bytes() == CONTENT


def test_silence_is_a_stall(client: Client, site: Site, target: Path, diary: Diary) -> None:
    """A server that sends nothing is left and asked again."""
    site.faults[PATH] = [loopback.silence]
    download(client, site, target)
    assert target.read_bytes() == CONTENT
    assert "fell silent" in diary.remarks[0] or "in time" in diary.remarks[0]


def test_nobody_listens(client: Client, target: Path) -> None:
    """A host that refuses connections is named with the reason."""
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:1/x: refused the connection; 3 attempts"):
        client.download("http://127.0.0.1:1/x", target, SHA256, None, 1000)


def test_unknown_host(client: Client, target: Path) -> None:
    """A host without an address is not asked twice."""
    with pytest.raises(FetchError, match=r"x\.invalid/x: its name cannot be resolved"):
        client.download("http://x.invalid/x", target, SHA256, None, 1000)


def test_folder_that_is_missing(client: Client, site: Site, tmp_path: Path) -> None:
    """A place that cannot be written to is an output error, whatever the network does."""
    with pytest.raises(OutputError, match=r"cannot be written: the folder .* does not exist"):
        download(client, site, tmp_path / "missing" / "weights.bin")


def test_disk_that_takes_no_more(client: Client, site: Site, target: Path) -> None:
    """A disk error in the middle is an output error, not one of the network, and not retried."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"weights\.bin: cannot be written: it is larger"):
            download(client, site, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(site.log) == 1


def test_shown_hides_secrets() -> None:
    """Messages show an address short, and without password and signature."""
    assert shown("https://host.example/a/b/c/d/x.bin") == "host.example/…/x.bin"
    url = "https://user:secret@host.example:8443/simple/x?signature=secret"
    assert shown(url) == "host.example:8443/simple/x"
