"""What the web servers of the tests share."""

import contextlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Handles requests quietly, over connections that can break at any time."""

    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        """Handle a connection."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""

    def head(self, status: int, headers: dict[str, str], length: int | None) -> None:
        """Send status and headers; without a length, the content ends with the connection."""
        self.send_response(status)
        end = {"Connection": "close"} if length is None else {"Content-Length": str(length)}
        for key, value in {**headers, **end}.items():
            self.send_header(key, value)
        self.end_headers()

    def requested_start(self) -> int | None:
        """Return the first byte of the requested range; None is the whole file."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        return int(match[1]) if match else None


@contextlib.contextmanager
def serve(handler: type[Handler]) -> Iterator[str]:
    """Run a server on loopback while the block runs; yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
