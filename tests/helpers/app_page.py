"""A served page, a real Chromium that opens it, and a record of everything that they connect to."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # a camera that films a moving pattern
    "--use-fake-ui-for-media-stream",
)
# The command, in a process that writes down each host that it looks up or connects to.
SERVER = """
import sys

def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments[0]
        host = address[0] if isinstance(address, tuple) else address
        if not str(host).startswith("/"):  # a Unix socket
            log.write(f"{host}\\n")

log = open(sys.argv[1], "w", buffering=1)
sys.addaudithook(hook)
from i3dzoo.cli import main
main(["app", *sys.argv[2:]])
"""


@dataclass(frozen=True)
class Served:
    """A page that is served.

    Attributes:
        address: Where it is.
        folder: The working directory of the server.
        held: Where uploads are, and what is made of them.
        log: The hosts that the server has connected to or looked up, one a line.
    """

    address: str
    folder: Path
    held: Path
    log: Path

    def files(self) -> list[str]:
        """Return the names of the files that the server keeps."""
        # os.walk does not mind folders that the server deletes meanwhile
        return sorted(name for _, _, names in os.walk(self.held) for name in names)

    def hosts(self) -> set[str]:
        """Return the hosts that the server has connected to or looked up."""
        return set(self.log.read_text().split())


@contextlib.contextmanager
def serve(folder: Path, *options: str) -> Iterator[Served]:
    """Run `i3dzoo app` on a free port, and end it as Ctrl+C does, which leaves no file."""
    log, held = folder / "hosts.txt", folder / "held"
    held.mkdir()
    command = [sys.executable, "-c", SERVER, log, "--port", "0", "--device", "cpu", *options]
    environment = {**os.environ, "TMPDIR": str(held), "OMP_NUM_THREADS": "2"}
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    try:
        with process.stdout:
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), f"exit code {process.wait()}"
            yield Served(address, folder, held, log)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) in (0, 130)
            assert process.stdout.read() == ""
        assert not any(held.iterdir())
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def browse(folder: Path) -> Iterator[Any]:
    """Open a headless Chromium with a new profile, or skip the test with a reason."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(folder),
            executable_path=program,
            args=list(FLAGS),
            viewport={"width": 1280, "height": 900},
        )
        try:
            yield context
        finally:
            context.close()


def screenshot(tab: Any, name: str, folder: Path, height: int | None = None) -> Path:
    """Write what a tab shows as WebP, cut to a height in pixels; it is below 150 kB."""
    picture = Image.open(io.BytesIO(tab.screenshot(full_page=True))).convert("RGB")
    if height is not None:
        picture = picture.crop((0, 0, picture.width, min(height, picture.height)))
    path = folder / f"{name}.webp"
    for quality in (82, 70, 55, 40):
        picture.save(path, quality=quality, method=6)
        if path.stat().st_size < 150_000:
            return path
    raise AssertionError(f"{name}: has {path.stat().st_size} bytes")


def until(condition: Any, seconds: float = 30) -> bool:
    """Wait until a condition holds; return whether it does."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())
