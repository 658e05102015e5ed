"""A web server on loopback that serves files and produces faults."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator

from helpers import http_server
from helpers.http_server import Handler


class Site:
    """The files of a server, the faults to produce, and the requests.

    Attributes:
        files: Contents by path.
        faults: Faults by path, one for each request; later requests succeed.
        log: Path and Range header of each request.
        address: `http://127.0.0.1:<port>`.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.log: list[tuple[str, str | None]] = []
        self.address = ""

    def ranges(self, path: str) -> list[str | None]:
        """Return the Range headers of the requests for a path."""
        return [header for requested, header in self.log if requested == path]


class Request(Handler):
    """One request; faults use its methods."""

    site: Site

    def do_GET(self) -> None:  # noqa: N802 - http.server calls this name
        """Answer, or produce a fault."""
        self.site.log.append((self.path, self.headers["Range"]))
        faults = self.site.faults.get(self.path, [])
        content = self.site.files.get(self.path)
        if faults:
            faults.pop(0)(self, content or b"")
        elif content is None:
            self.status(404)
        else:
            self.content(content)

    def content(self, content: bytes, ranges: bool = True) -> None:
        """Serve a file, or the requested range of it."""
        etag, size, start = etag_of(content), len(content), self.requested_start()
        fresh = self.headers["If-Range"] in (None, etag)
        if start is None or not ranges or not fresh:
            self.head(200, {"ETag": etag}, size)
            self.wfile.write(content)
        elif start >= size:
            self.status(416, {"Content-Range": f"bytes */{size}"})
        else:
            where = f"bytes {start}-{size - 1}/{size}"
            self.head(206, {"Content-Range": where, "ETag": etag}, size - start)
            self.wfile.write(content[start:])

    def status(self, code: int, headers: dict[str, str] | None = None) -> None:
        """Answer without content."""
        self.head(code, headers or {}, 0)

    def head(self, status: int, headers: dict[str, str], length: int | None) -> None:
        """Send status and headers, with the type of a page or of a file."""
        kind = "text/html" if self.path.endswith("/") else "application/octet-stream"
        super().head(status, {"Content-Type": kind, **headers}, length)


Fault = Callable[[Request, bytes], None]


def etag_of(content: bytes) -> str:
    """Return the ETag of a file."""
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def cut(count: int, etag: bool = True) -> Fault:
    """Announce the whole file, send `count` bytes, and close the connection."""

    def fault(request: Request, content: bytes) -> None:
        request.head(200, {"ETag": etag_of(content)} if etag else {}, len(content))
        request.wfile.write(content[:count])
        request.close_connection = True

    return fault


def status(code: int, **headers: str) -> Fault:
    """Answer with a status; underscores in header names become dashes."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda request, _: request.status(code, named)


def whole(request: Request, content: bytes) -> None:
    """Serve the whole file and ignore the range."""
    request.content(content, ranges=False)


def flipped(request: Request, content: bytes) -> None:
    """Serve the file with one byte changed."""
    request.content(content[:-1] + bytes([content[-1] ^ 1]))


def endless(request: Request, content: bytes) -> None:
    """Serve the file again and again, without a length."""
    request.head(200, {}, None)
    for _ in range(50):
        request.wfile.write(content)
    request.close_connection = True


def trickle(request: Request, content: bytes) -> None:
    """Serve a byte every 50 ms."""
    request.head(200, {}, len(content))
    for number in range(200):
        request.wfile.write(content[number : number + 1])
        time.sleep(0.05)
    request.close_connection = True


def silence(request: Request, content: bytes) -> None:
    """Announce the file and send nothing."""
    request.head(200, {}, len(content))
    time.sleep(3)
    request.close_connection = True


def slow(request: Request, content: bytes) -> None:
    """Serve the first half at once, and pause for so long that a test can kill the client."""
    cut(len(content) // 2)(request, content)
    time.sleep(30)


def other_range(request: Request, content: bytes) -> None:
    """Answer with another range than requested."""
    where = f"bytes 1-{len(content) - 1}/{len(content)}"
    request.head(206, {"Content-Range": where}, len(content) - 1)
    request.wfile.write(content[1:])


@contextlib.contextmanager
def serve() -> Iterator[Site]:
    """Run a server while the block runs."""
    site = Site()
    with http_server.serve(type("SiteRequest", (Request,), {"site": site})) as site.address:
        yield site
