"""A loopback Hub inside the process of a command, whose answers are damaged."""

import contextlib
import json
import random
import socket
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from helpers.hub_server import Request
from helpers.hub_state import Hub, User

from fuzz import mutators as damage
from fuzz.verdict import SECRET

_HEADERS = ("ETag", "X-Linked-ETag", "X-Linked-Size", "X-Repo-Commit", "Location", "Content-Range",
            "Content-Length", "Content-Type")  # fmt: skip


class _Damaged(Request):
    """Answers in which one value is damaged."""

    generator: random.Random | None
    where: str

    def answer(
        self, document: Any, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        if self.where != "answers" or self.generator is None or self.command == "HEAD":
            super().answer(document, status, headers)
            return
        for _ in self.body():
            """Read the rest of the body."""
        content = damage.damage_json(json.dumps(document).encode(), self.generator)
        self.head(status, {"Content-Type": "application/json", **(headers or {})}, len(content))
        self.wfile.write(content)

    def head(self, status: int, headers: dict[str, str], length: int | None) -> None:
        if self.where == "headers" and self.generator and self.generator.random() < 0.3:
            key = self.generator.choice(_HEADERS)
            text = self.generator.choice(
                (damage.string(self.generator), self.generator.choice(damage.LITERALS))
            )
            value = f'"{text}"' if "ETag" in key else text
            value = value.encode("latin-1", "replace").decode("latin-1")
            value = value.replace("\r", "").replace("\n", "")[:60_000]
            if key == "Content-Length":
                super().head(status, headers, self.generator.choice((0, 5, 1 << 40, 1 << 63)))
                return
            headers = {**headers, key: value}
        super().head(status, headers, length)


class _Server(ThreadingHTTPServer):
    """A server that is silent about clients that go away and headers that cannot be written."""

    daemon_threads, block_on_close = True, False

    def handle_error(self, *_: object) -> None:
        pass


def publish(repository: Path, root: Path, address: str) -> Hub:
    """Return a Hub that has the files of a folder as alice/i3d."""
    root.mkdir(exist_ok=True)
    hub = Hub(root, address=address)
    hub.users[SECRET] = User("alice")
    hub.put(hub.create("alice/i3d"), repository)
    return hub


@contextlib.contextmanager
def serve(
    listening: socket.socket, hub: Hub, where: str, generator: random.Random | None
) -> Iterator[None]:
    """Answer as a Hub while the block runs."""
    handler = type("Handler", (_Damaged,), {"hub": hub, "generator": generator, "where": where})
    server = _Server(("127.0.0.1", 0), handler, bind_and_activate=False)
    server.socket.close()
    server.socket, server.server_address = listening, listening.getsockname()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
