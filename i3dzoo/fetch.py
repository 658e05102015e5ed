"""Downloads over HTTP(S): they resume, retry, stay within a size, and are what they should be.

A download grows in `NAME.part`, beside `NAME.part.etag` that says which version of which address it
is part of, so any later process can go on with it. Only bytes with the right digest get the name.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

import requests
from requests import Response
from requests import exceptions as failure

from i3dzoo import __version__, checksums
from i3dzoo._files import output_error
from i3dzoo._http import (
    TransientError,
    check_status,
    content_range,
    host,
    length,
    shown,
    total,
    understood,
    within,
)
from i3dzoo.errors import ChecksumError, FetchError, I3DZooError
from i3dzoo.progress import Progress, Quiet

__all__ = ["Client", "Policy", "host", "shown", "writing"]

_T = TypeVar("_T")
_CHUNK: Final = 1 << 16
_GAIN: Final = 1 << 20  # so many new bytes make up for a failure
_MEASURES: Final[dict[str, Callable[[Path], str]]] = {
    "sha256": checksums.sha256,
    "git-blob": checksums.git_blob,
    "none": lambda _: "",
}


@dataclass(frozen=True)
class Policy:
    """How patient downloads are.

    Attributes:
        attempts: Failures in a row, without a MiB gained between them, that end a download.
        backoff: Seconds before the second attempt, doubled before each later one.
        longest_wait: Seconds; a server that asks for a longer one is given up.
        connect_timeout: Seconds for a connection.
        read_timeout: Seconds without a byte, or with fewer than `slowest` a second.
        slowest: Bytes a second below which a connection counts as stalled.
    """

    attempts: int = 4
    backoff: float = 0.5
    longest_wait: float = 60.0
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    slowest: float = 256.0


@dataclass(frozen=True)
class _Wanted:
    """A file to download: where it is, and how large it may be."""

    url: str
    size: int | None
    max_size: int


class _Part:
    """The bytes of a download that are here, and the note of what they are part of."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.etag")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def resumable(self, url: str) -> bool:
        """Whether the bytes are from this address; others are removed."""
        if self.size() and self.note.exists() and self._note()[0] == url:
            return True
        self.remove()
        return False

    def etag(self) -> str:
        """Return the version that the bytes are of, empty where the server named none."""
        return self._note()[1]

    def begin(self, url: str, etag: str) -> None:
        """Start afresh; the bytes go before the note changes, so that it never lies."""
        self.path.write_bytes(b"")
        self.note.write_text(f"{url}\n{etag}\n", "utf-8")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        self.path.replace(target)
        self.note.unlink(missing_ok=True)

    def _note(self) -> tuple[str, str]:
        url, _, etag = self.note.read_text("utf-8").partition("\n")
        return url, etag.strip()


class Client:
    """A session of downloads; use it in a `with` block.

    Attributes:
        session: The session of all requests, with i3dzoo's user agent.
        policy: How patient it is.
        progress: What watches it.
    """

    def __init__(self, progress: Progress | None = None, policy: Policy | None = None) -> None:
        self.progress = progress or Quiet()
        self.policy = policy or Policy()
        self.session = requests.Session()
        self.session.headers["User-Agent"] = f"i3dzoo/{__version__}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def download(
        self, url: str, target: Path, digest: str, size: int | None, max_size: int
    ) -> Path:
        """Bring a file to `target`, going on with what is there of it.

        Args:
            url: Its http or https address.
            target: Where it goes; its folder exists.
            digest: `sha256:<hex>`, `git-blob:<hex>`, or `none`: then a file there is not trusted.
            size: Bytes, if they are known.
            max_size: Bytes beyond which the download is broken off.

        Raises:
            FetchError: The server does not deliver, or delivers another number of bytes.
            ChecksumError: What it delivers has another digest; the bytes are deleted.
            OutputError: The disk is full or may not be written to.
        """
        kind, _, expected = digest.partition(":")
        measure = _MEASURES[kind]
        if kind != "none" and target.is_file() and measure(target) == expected:
            return target
        part = _Part(target)
        wanted = _Wanted(url, size, max_size)
        self.progress.start(target.name, size)
        with writing(target):
            joined = self._transfer(wanted, part)
            found = measure(part.path)
            if found != expected and joined:
                self.progress.say(f"{target.name}: the resumed download is corrupt; starting again")
                part.remove()
                self._transfer(wanted, part)
                found = measure(part.path)
            if found != expected:
                part.remove()
                raise ChecksumError(
                    f"{shown(url)}: has {kind} {found}, expected {expected}; the download was "
                    "deleted: the file was damaged on its way or replaced at its source"
                )
            part.finish(target)
        return target

    def retry(self, url: str, attempt: Callable[[], _T], have: Callable[[], int] = lambda: 0) -> _T:
        """Return what an attempt returns, repeating it while it fails as networks do.

        Args:
            url: What is asked, for messages.
            attempt: Asks; exceptions of requests are understood.
            have: Bytes that are here, which reward attempts that gained some.

        Raises:
            FetchError: With the reason of the last failure.
        """
        failures, most = 0, have()
        while True:
            try:
                return understood(attempt)
            except TransientError as error:
                gained = have() - most
                most = max(most, have())
                failures = 1 if gained >= _GAIN else failures + 1
                if failures >= self.policy.attempts:
                    raise error.kind(f"{shown(url)}: {error}; {failures} attempts") from error
                wait = error.wait
                if wait is None:
                    wait = self.policy.backoff * 2 ** (failures - 1)
                if wait > self.policy.longest_wait:
                    raise FetchError(
                        f"{shown(url)}: {error}, and asks to wait {wait:.0f} s; try again then"
                    ) from error
                self.progress.say(f"{host(url)}: {error}; trying again in {wait:.1f} s")
                time.sleep(wait)
            except failure.RequestException as error:
                raise FetchError(f"{shown(url)}: {error}") from error
            except FetchError as error:
                raise type(error)(f"{shown(url)}: {error}") from error

    def ask(self, request: Callable[[tuple[float, float]], _T]) -> _T:
        """Return what a request returns that takes the time-outs for connecting and reading."""
        connect, read = self.policy.connect_timeout, self.policy.read_timeout
        return within(connect + 2 * read, lambda: request((connect, read)))

    def _transfer(self, wanted: _Wanted, part: _Part) -> bool:
        """Download all bytes; return whether they are from more than one answer."""
        joined = False

        def attempt() -> None:
            nonlocal joined
            start = part.size() if part.resumable(wanted.url) else 0
            if start > wanted.max_size:
                part.remove()
                start = 0
            joined = joined or start > 0
            self.progress.update(start)
            if start != wanted.size:
                self._request(wanted, part, start)

        self.retry(wanted.url, attempt, part.size)
        return joined

    def _request(self, wanted: _Wanted, part: _Part, start: int) -> None:
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if etag := part.etag():
                headers["If-Range"] = etag
        with self.ask(
            lambda timeout: self.session.get(
                wanted.url, headers=headers, stream=True, timeout=timeout
            )
        ) as answer:
            if answer.status_code == 416 and start:
                if total(answer) == start and wanted.size is None:
                    return
                part.remove()
                raise TransientError("the server refuses to go on with the download", wait=0)
            check_status(answer)
            if answer.status_code == 206:
                begin, end = content_range(answer), total(answer)
                if begin != start:
                    part.remove()
                    raise TransientError("the server sent another range than was asked", wait=0)
            else:
                start, end = 0, length(answer)
                etag = answer.headers.get("ETag", "")
                part.begin(wanted.url, "" if etag.startswith("W/") else etag)
            _check_size(wanted, end, part)
            self._copy(answer, wanted, part, start)
        expected = end if wanted.size is None else wanted.size
        if expected is not None and part.size() < expected:
            raise TransientError(f"the connection was cut at {part.size()} of {expected} bytes")

    def _copy(self, answer: Response, wanted: _Wanted, part: _Part, done: int) -> None:
        with part.path.open("ab") as file:
            for chunk in self._chunks(answer):
                done += len(chunk)
                if done > wanted.max_size:
                    file.close()
                    part.remove()
                    raise FetchError(f"sends more than the expected {wanted.max_size} bytes")
                file.write(chunk)
                self.progress.update(done)

    def _chunks(self, answer: Response) -> Iterator[bytes]:
        """Yield bytes as they come; a connection that trickles is a stalled one."""
        since, count = time.monotonic(), 0
        while chunk := answer.raw.read1(_CHUNK, decode_content=False):
            yield chunk
            count += len(chunk)
            seconds = time.monotonic() - since
            if seconds >= self.policy.read_timeout:
                if count < seconds * self.policy.slowest:
                    raise TransientError(f"sent only {count} bytes in {seconds:.0f} s")
                since, count = time.monotonic(), 0


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn the errors of a disk that is full or read-only into one that says so.

    Raises:
        OutputError: Naming the file and what to do.
    """
    try:
        yield
    except I3DZooError:
        raise
    except OSError as error:
        raise output_error(target, error) from error


def _check_size(wanted: _Wanted, end: int | None, part: _Part) -> None:
    if end is None:
        return
    if wanted.size is not None and end != wanted.size:
        part.remove()
        raise FetchError(f"offers {end} bytes, expected {wanted.size}")
    if end > wanted.max_size:
        part.remove()
        raise FetchError(f"offers {end} bytes, expected at most {wanted.max_size}")
