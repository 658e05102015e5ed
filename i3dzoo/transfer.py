"""Receive files over HTTP: bounded in size and time, resumed after a lost connection, checked.

The HTTP library is the caller's, who opens each answer. A download grows in a part, beside a note
with its address and version, so that a later process can resume it.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from i3dzoo.errors import ChecksumError, FetchError
from i3dzoo.progress import Progress

_GAIN: Final = 1 << 20  # an attempt that gained so many bytes is not counted as failed
_SLOWEST: Final = 256  # bytes a second below which a connection counts as stalled


class LostConnectionError(Exception):
    """A transfer ended early and can be tried again."""


@dataclass(frozen=True)
class Policy:
    """How long to keep trying."""

    attempts: int = (
        6  # lost connections in a row, without a new MiB in between, that end a download
    )
    requests: int = 4  # failed attempts of one request
    backoff: float = 0.5  # seconds to wait after the second failure, longer after each later one
    timeout: float = 30.0  # seconds without data after which a connection counts as stalled


@dataclass(frozen=True)
class Answer:
    """The answer to a GET request that succeeded, or that asked for an impossible range (416)."""

    status: int
    headers: Mapping[str, str]  # any case
    chunks: Iterator[bytes]  # as they arrive, not decoded; may raise LostConnectionError


@dataclass(frozen=True)
class Remote:
    """A file on a server."""

    name: str
    where: str  # its short address, for messages
    url: str
    size: int | None  # in bytes; None is unknown
    limit: int  # size in bytes at which the download is given up
    open: Callable[[Mapping[str, str]], AbstractContextManager[Answer]]  # sends further headers


class Part:
    """The downloaded part of a file, with the address and the version that it belongs to."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.note = path.with_name(f"{path.name}.etag")
        self.url = url
        note = self.note.read_text("utf-8") if self.note.exists() else ""
        noted, _, etag = note.partition("\n")
        self.etag = etag.strip()  # empty if the server named no version
        if noted != url or path.is_symlink():  # nothing is written through a link
            self.remove()

    @property
    def size(self) -> int:
        """Number of bytes that are here."""
        return self.path.stat().st_size if self.path.exists() else 0

    def begin(self, etag: str) -> None:
        """Start again from the beginning."""
        self.etag = etag
        self.path.unlink(missing_ok=True)  # a link is replaced, never followed
        self.path.write_bytes(b"")  # before the note changes, so that it never describes others
        self.note.unlink(missing_ok=True)
        self.note.write_text(f"{self.url}\n{etag}\n", "utf-8")

    def remove(self) -> None:
        """Remove the part and its note."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def download(
    remote: Remote,
    part: Part,
    check: Callable[[Path], None],
    progress: Progress,
    policy: Policy | None = None,
) -> None:
    """Receive a file into a part and check it; a resumed one that is corrupt starts again.

    Raises:
        LostConnectionError: The connection was lost too often; the part remains.
        ChecksumError: `check` says that the file is corrupt; the part is removed.
        FetchError: The file has another size than it should; the part is removed.
    """
    policy = policy or Policy()
    resumed = _transfer(remote, part, progress, policy)
    try:
        check(part.path)
    except ChecksumError:
        part.remove()
        if not resumed:
            raise
        progress.message(f"{remote.name}: the resumed download is corrupt; starting again")
        _transfer(remote, part, progress, policy)
        try:
            check(part.path)
        except ChecksumError:
            part.remove()
            raise


def read(answer: Answer, limit: int, where: str, policy: Policy | None = None) -> bytes:
    """Return the whole body of an answer, of at most `limit` bytes."""
    data = bytearray()
    for chunk in watch(answer.chunks, policy or Policy()):
        data += chunk
        if len(data) > limit:
            raise FetchError(f"{where}: the answer has more than {limit} bytes")
    return bytes(data)


def _transfer(remote: Remote, part: Part, progress: Progress, policy: Policy) -> bool:
    """Download all bytes that are missing; return whether a download was resumed."""
    resumed, failures = False, 0
    while True:
        start = part.size
        resumed = resumed or start > 0
        progress.update(start)
        try:
            if start != remote.size:
                _request(remote, part, start, progress, policy)
            elif not start:
                part.begin("")  # an empty file
            return resumed
        except LostConnectionError as error:
            failures = 0 if part.size - start >= _GAIN else failures + 1
            total = f" of {remote.size}" if remote.size else ""
            lost = f"{error} at {part.size}{total} bytes"
            if failures >= policy.attempts:
                raise LostConnectionError(f"{lost}, {failures} times in a row") from error
            progress.message(f"{remote.where}: {lost}; resuming the download")
            time.sleep(policy.backoff * failures)


def _request(remote: Remote, part: Part, start: int, progress: Progress, policy: Policy) -> None:
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": part.etag} if part.etag else {})
    with remote.open(headers) as answer:
        begin, total = _content_range(answer.headers)
        if answer.status == 416:
            if total == start and remote.size is None:
                return
            part.remove()
            raise LostConnectionError("the server cannot resume the download")
        if answer.status != 206:
            etag = answer.headers.get("ETag", "")
            part.begin("" if etag.startswith("W/") else etag)
            start = 0
        elif begin != start:
            part.remove()
            raise LostConnectionError("the server sent another range than requested")
        try:
            _check_total(remote, total)
            _copy(answer, remote, part, start, progress, policy)
        except FetchError:
            part.remove()
            raise
    expected = total if remote.size is None else remote.size
    if expected is not None and part.size < expected:
        raise LostConnectionError("the connection was cut")


def _check_total(remote: Remote, total: int | None) -> None:
    """Check the size that the headers state."""
    if total is not None and (total > remote.limit or remote.size not in (None, total)):
        expected = f"at most {remote.limit}" if remote.size is None else f"{remote.size}"
        raise FetchError(f"{remote.where}: offers {total} bytes, expected {expected}")


def _copy(
    answer: Answer, remote: Remote, part: Part, done: int, progress: Progress, policy: Policy
) -> None:
    """Write what the server sends, up to the size limit."""
    with part.path.open("ab") as output:
        for chunk in watch(answer.chunks, policy):
            done += len(chunk)
            if done > remote.limit:
                raise FetchError(
                    f"{remote.where}: sends more than the expected {remote.limit} bytes"
                )
            output.write(chunk)
            progress.update(done)


def watch(chunks: Iterable[bytes], policy: Policy) -> Iterator[bytes]:
    """Yield bytes as they arrive, until the end; raise LostConnectionError when they stall."""
    since, count = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        count += len(chunk)
        seconds = time.monotonic() - since
        if seconds >= policy.timeout:
            if count < seconds * _SLOWEST:
                raise LostConnectionError(f"sent only {count} bytes in {seconds:.0f} s")
            since, count = time.monotonic(), 0


def _content_range(headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Return the first byte and the size of the whole file that headers state."""
    text = headers.get("Content-Range", "")
    if match := re.fullmatch(r"bytes (?:([0-9]{1,18})-[0-9]+|\*)/([0-9]{1,18}|\*)", text):
        begin, total = match.groups()
        return int(begin) if begin else None, None if total == "*" else int(total)
    length = headers.get("Content-Length", "")
    return None, int(length) if re.fullmatch("[0-9]{1,18}", length) else None
