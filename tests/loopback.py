"""A web server on loopback that serves files, and fails as it is told to."""

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Diary", "Fault", "Request", "Site", "serve"]


class Diary:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int | None]] = []
        self.done: list[int] = []
        self.remarks: list[str] = []

    def start(self, name: str, total: int | None) -> None:
        """Remember the file."""
        self.started.append((name, total))

    def update(self, done: int) -> None:
        """Remember the count."""
        self.done.append(done)

    def say(self, remark: str) -> None:
        """Remember the remark."""
        self.remarks.append(remark)


class Site:
    """What a server serves, what goes wrong, and what it was asked.

    Attributes:
        files: Contents by path.
        faults: What goes wrong by path, one for each request; after the last, all is well.
        log: Path and Range header of each request.
        address: `http://127.0.0.1:<port>`.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.log: list[tuple[str, str | None]] = []
        self.address = ""

    def asked(self, path: str) -> list[str | None]:
        """Return the Range headers of the requests for a path."""
        return [header for asked, header in self.log if asked == path]


class Request(BaseHTTPRequestHandler):
    """One request; faults use its methods."""

    protocol_version = "HTTP/1.1"
    site: Site

    def handle(self) -> None:
        """Handle a connection, whose other end may be gone at any time."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Answer, or fail if this request is to fail."""
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
        """Serve a file, or the range of it that is asked for."""
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        fresh = self.headers["If-Range"] in (None, etag)
        if ranges and wanted and fresh:
            start = int(wanted.group(1))
            if start >= len(content):
                self.status(416, {"Content-Range": f"bytes */{len(content)}"})
                return
            where = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.head(206, {"Content-Range": where, "ETag": etag}, len(content) - start)
            self.wfile.write(content[start:])
        else:
            self.head(200, {"ETag": etag}, len(content))
            self.wfile.write(content)

    def status(self, code: int, headers: dict[str, str] | None = None) -> None:
        """Answer without content."""
        self.head(code, headers or {}, 0)

    def head(self, code: int, headers: dict[str, str], length: int | None) -> None:
        """Send status and headers; without a length, the content ends with the connection."""
        self.send_response(code)
        html = self.path.endswith("/")
        self.send_header("Content-Type", "text/html" if html else "application/octet-stream")
        for key, value in headers.items():
            self.send_header(key, value)
        if length is None:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""


Fault = Callable[[Request, bytes], None]


def cut(count: int, etag: bool = True) -> Fault:
    """Promise all of the file, send so many bytes of it, and hang up."""

    def fault(request: Request, content: bytes) -> None:
        tag = hashlib.sha256(content).hexdigest()[:16]
        request.head(200, {"ETag": f'"{tag}"'} if etag else {}, len(content))
        request.wfile.write(content[:count])
        request.close_connection = True

    return fault


def status(code: int, **headers: str) -> Fault:
    """Answer with a status; underscores in names of headers are dashes."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda request, _: request.status(code, named)


def whole(request: Request, content: bytes) -> None:
    """Serve all of the file whatever range was asked for."""
    request.content(content, ranges=False)


def flipped(request: Request, content: bytes) -> None:
    """Serve the file with one byte changed."""
    request.content(content[:-1] + bytes([content[-1] ^ 1]))


def endless(request: Request, content: bytes) -> None:
    """Serve the file without saying its length, and then serve on."""
    request.head(200, {}, None)
    for _ in range(50):
        request.wfile.write(content)
    request.close_connection = True


def trickle(request: Request, content: bytes) -> None:
    """Serve a byte now and then."""
    request.head(200, {}, len(content))
    for number in range(200):
        request.wfile.write(content[number : number + 1])
        time.sleep(0.05)
    request.close_connection = True


def slow_headers(request: Request, content: bytes) -> None:
    """Serve headers without end, a line now and then."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(200):
        request.wfile.write(b"X-%d: %d\r\n" % (number, len(content)))
        time.sleep(0.05)
    request.close_connection = True


def silence(request: Request, content: bytes) -> None:
    """Promise the file and send nothing."""
    request.head(200, {}, len(content))
    time.sleep(3)
    request.close_connection = True


def slow(request: Request, content: bytes) -> None:
    """Serve the first half at once and the rest so slowly that a test can kill who asked."""
    tag = hashlib.sha256(content).hexdigest()[:16]
    request.head(200, {"ETag": f'"{tag}"'}, len(content))
    request.wfile.write(content[: len(content) // 2])
    time.sleep(30)


def other_range(request: Request, content: bytes) -> None:
    """Answer with a range that begins elsewhere than the one that was asked for."""
    where = f"bytes 1-{len(content) - 1}/{len(content)}"
    request.head(206, {"Content-Range": where}, len(content) - 1)
    request.wfile.write(content[1:])


@contextlib.contextmanager
def serve() -> Iterator[Site]:
    """Run a server in a thread while the block runs."""
    site = Site()
    handler = type("Handler", (Request,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
