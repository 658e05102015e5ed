"""Run long work in a thread, and report its progress and its results as they come."""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from i3dzoo.errors import I3DZooError
from i3dzoo.progress import Progress, Unit
from i3dzoo.text import message

_LOG: Final = logging.getLogger("i3dzoo")
_TICK: Final = 0.25  # seconds between two looks at the work

Result = TypeVar("Result")


class Stopped(Exception):  # noqa: N818 - not an error: the user pressed Stop
    """The user stopped the work."""


@dataclass(frozen=True)
class Status:
    """How far the work is; `kind` is `failed` for an error, whose sentence is the text."""

    text: str
    done: int = 0
    total: int | None = None
    seconds_left: float | None = None
    kind: str = "running"


class JobProgress:
    """Sends the progress of work to the page, and stops the work; a `Progress`."""

    def __init__(self, stop: threading.Event, send: Callable[[Status], None]) -> None:
        self._stop, self._send = stop, send
        self._text, self._started = "", 0.0
        self._total: int | None = None

    def start(self, description: str, total: int | None, unit: Unit = "bytes") -> None:
        """Begin a task."""
        if unit == "bytes":
            description = f"downloading {description}"
        self._text, self._total, self._started = description, total, time.monotonic()
        self.update(0)

    def update(self, completed: int, **_: str) -> None:
        """Set how much of the task is done; stop here if the user wants to."""
        if self._stop.is_set():
            raise Stopped
        left = None
        if self._total and completed:
            left = (time.monotonic() - self._started) / completed * (self._total - completed)
        self._send(Status(self._text, completed, self._total, left))

    def message(self, text: str) -> None:
        """Show a remark in place of the task."""
        self._send(Status(text))


class _Done:
    """The work is done."""


@dataclass(frozen=True)
class Update(Generic[Result]):
    """A new result, a new status, or both."""

    result: Result | None = None
    status: Status | None = None


def follow(
    work: Callable[[Progress], Iterator[Result]], stop: threading.Event
) -> Iterator[Update[Result]]:
    """Run `work` in a thread, and yield what it reports: only the latest status of each moment.

    An error becomes a status of the kind `failed` with one sentence. If the caller goes away, the
    work is stopped.
    """
    inbox: queue.SimpleQueue[Update[Result] | _Done] = queue.SimpleQueue()

    def run() -> None:
        try:
            progress = JobProgress(stop, lambda status: inbox.put(Update(status=status)))
            for result in work(progress):
                inbox.put(Update(result))
        except Stopped:
            inbox.put(Update(status=Status("Stopped.", kind="stopped")))
        except BaseException as error:  # a thread has nobody else who reports it
            inbox.put(Update(status=Status(explain(error), kind="failed")))
        finally:
            inbox.put(_Done())

    threading.Thread(target=run, daemon=True, name="i3dzoo-app").start()
    try:
        while True:
            status: Status | None = None
            received = inbox.get()
            with contextlib.suppress(queue.Empty):
                while isinstance(received, Update) and received.result is None:
                    status = received.status
                    if status and status.kind != "running":
                        break
                    received = inbox.get(timeout=_TICK)
            if status is not None:
                yield Update(status=status)
            if isinstance(received, _Done):
                return
            if received.result is not None:
                yield received
    finally:
        stop.set()


def explain(error: BaseException) -> str:
    """Return one sentence about an error; one that is a bug is logged with its traceback."""
    if isinstance(error, I3DZooError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # PyTorch's
        return "out of memory: take a shorter video, or a smaller one"
    _LOG.error("the page met an unexpected error", exc_info=error)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return f"stopped by an unexpected error ({message(reason)[:300]})"
