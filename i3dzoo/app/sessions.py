"""The folders of the people who have the page open: their uploads, and what is made of these."""

import contextlib
import os
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from i3dzoo.errors import OutputError
from i3dzoo.files import output_error

_SHOWN: Final = "shown"  # the files in it are served


@dataclass
class Session:
    """One open page.

    Attributes:
        folder: Where its files are, until it is closed.
        token: Names the folder in addresses; nobody can guess it.
        stop: Set when the user presses Stop.
        video: The video that was dropped, recorded or chosen.
        used: When it was used last, as `time.monotonic`.
    """

    folder: Path
    token: str
    stop: threading.Event = field(default_factory=threading.Event)
    video: Path | None = None
    used: float = 0.0

    def begin(self) -> threading.Event:
        """Stop the work that runs, and return the event that stops the next."""
        self.stop.set()
        self.stop = threading.Event()
        return self.stop

    def shown(self, name: str) -> Path:
        """Return the path of a file that the page may load."""
        return self.folder / _SHOWN / name

    def address(self, path: Path) -> str:
        """Return the address of a file of `shown`, relative to the page."""
        # files of one name replace each other, and browsers would keep the old one
        return f"session/{self.token}/{path.name}?{path.stat().st_mtime_ns}"

    def part(self, name: str) -> Path:
        """Return an empty folder for one thing that was uploaded; what it held is deleted."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def set_video(self, path: Path | None, uploaded: bool) -> None:
        """Choose a video, and delete the one before with everything that was made of it.

        An uploaded file is moved in; another file stays where it is. None only deletes.
        """
        self.begin()
        folder = self.part("video")
        self.shown("").mkdir(exist_ok=True)
        for preview in self.shown("").glob("*.mp4"):
            preview.unlink()
        self.video = path and (receive(path, folder / path.name) if uploaded else path)


def receive(path: Path, target: Path) -> Path:
    """Move a file that Gradio has received to `target`, and return that path."""
    try:
        shutil.move(path, target)
    except OSError as error:
        raise output_error(target, error) from error
    if not any(path.parent.iterdir()):  # a folder for this file, named after its digest
        path.parent.rmdir()
    return target


class Sessions:
    """All open pages, by the name that Gradio gives each.

    Args:
        root: A folder of this process, which is removed when it ends.
        most: Most bytes of all files.
        keep_seconds: How long a session without use is kept.
    """

    def __init__(self, root: Path, most: int, keep_seconds: float) -> None:
        self.root, self.most, self.keep_seconds = root, most, keep_seconds
        self.uploads = root / "uploads"  # where Gradio puts what it receives
        self.uploads.mkdir()
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self, name: str) -> Session:
        """Return the session of a page, new or old."""
        with self._lock:
            if name not in self._sessions:
                token = secrets.token_urlsafe(16)
                session = Session(self.root / "sessions" / token, token)
                session.set_video(None, uploaded=False)
                self._sessions[name] = session
            self._sessions[name].used = time.monotonic()
            return self._sessions[name]

    def expire(self) -> None:
        """End the sessions that have not been used for too long."""
        oldest = time.monotonic() - self.keep_seconds
        with self._lock:
            for name in [name for name, one in self._sessions.items() if one.used < oldest]:
                self._close(name)

    def close(self, name: str) -> None:
        """Delete everything of a page that was closed."""
        with self._lock:
            self._close(name)

    def _close(self, name: str) -> None:
        if session := self._sessions.pop(name, None):
            session.stop.set()
            shutil.rmtree(session.folder, ignore_errors=True)

    def file(self, token: str, name: str) -> Path | None:
        """Return a file that the page may load, or None."""
        with self._lock:
            for session in self._sessions.values():
                path = session.shown(name)
                if secrets.compare_digest(session.token, token) and path.parent == session.shown(
                    ""
                ):
                    return path if path.is_file() else None
        return None

    def check_room(self, size: int) -> None:
        """Check that this many bytes can be stored.

        Raises:
            OutputError: The files of all pages would take too much of the disk.
        """
        held = 0
        for folder, _, files in os.walk(self.root):
            for file in files:
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    held += Path(folder, file).lstat().st_size
        if held + size > self.most:
            raise OutputError(
                f"the page keeps at most {self.most >> 20} MiB at once, and {held >> 20} MiB are "
                "in use; close other pages, or wait until they have ended"
            )
