"""Show progress on standard error: a bar on a terminal, plain lines elsewhere."""

import contextlib
import datetime
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from i3dzoo.cli._console import is_quiet, say
from i3dzoo.progress import Unit
from i3dzoo.text import message, printable, shorten

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_SHORT: Final = 10  # seconds
_AROUND: Final = 16  # characters of the time left, the slash of the count, and the spaces


def megabytes(size: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


class TerminalProgress:
    """Shows progress on standard error; an `i3dzoo.progress.Progress`.

    On a terminal, a bar shows the current task. Elsewhere, such as in a log file, there is one line
    for a file, and one line for each tenth of a task that counts items, with the time left.
    With --quiet there is none.
    """

    def __init__(self) -> None:
        self._bar: RichProgress | None = None
        self._task: Any = None
        self._description, self._total, self._next_tenth = "", 0, 1
        self._started = 0.0
        self._room = 1  # characters that values may take beside the bar

    def start(self, description: str, total: int | None, unit: Unit = "bytes") -> None:
        """Begin a task, and end the task before it."""
        self.stop()
        if is_quiet():
            return
        description = shorten(printable(description), 200)
        self._started = time.monotonic()
        if sys.stderr is not None and sys.stderr.isatty():
            self._bar, width = _bar(unit)
            description = shorten(description, self._bar.console.width // 3)
            taken = len(description) + width + 2 * len(f"{total}") + _AROUND
            self._room = max(self._bar.console.width - taken, 1)
            self._bar.start()
            self._task = self._bar.add_task(description, total=total, values="")
            return
        if unit == "bytes":
            say(f"  {description}{f', {megabytes(total)}' if total else ''}")
            total = None  # a moving number does not belong in a log file
        self._description, self._total, self._next_tenth = description, total or 0, 1

    def update(self, completed: int, **values: str) -> None:
        """Set how much of the current task is done."""
        if self._bar is not None:
            shown = shorten(_join(values), self._room)
            self._bar.update(self._task, completed=completed, values=shown)
        elif self._total and 10 * completed >= self._next_tenth * self._total:
            shown = f"{self._description}, {_join(values)}" if values else self._description
            say(f"  {completed:,} of {self._total:,} {shown}{self._time_left(completed)}")
            self._next_tenth = 10 * completed // self._total + 1

    def _time_left(self, completed: int) -> str:
        """Return the time left, in words, if it is more than some seconds."""
        elapsed = time.monotonic() - self._started
        left = round(elapsed * (self._total - completed) / max(completed, 1))
        return f", {datetime.timedelta(seconds=left)} left" if left >= _SHORT else ""

    def message(self, text: str) -> None:
        """Print a remark, above the bar if there is one."""
        if self._bar is None or is_quiet():
            say(text)
        else:
            self._bar.console.print(message(text), markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """End the current task."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextlib.contextmanager
def show_progress() -> Iterator[TerminalProgress]:
    """Show the progress of what the block does."""
    progress = TerminalProgress()
    try:
        yield progress
    finally:
        progress.stop()


def find_model(model: str | Path, verify: bool = False) -> Path:
    """Return the file of a model argument; a download shows its progress."""
    from i3dzoo.fetch.find import find

    with show_progress() as progress:
        return find(model, verify=verify, progress=progress)


def _join(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def _bar(unit: Unit) -> "tuple[RichProgress, int]":
    """Return a bar with the size or count, the values of the task, and the time left; its width."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    width = min(40, console.width // 5)
    sizes = [progress.DownloadColumn(), progress.TransferSpeedColumn()]
    bar = progress.Progress(
        progress.TextColumn("  {task.description}", markup=False),
        progress.BarColumn(width),
        *(sizes if unit == "bytes" else [progress.MofNCompleteColumn()]),
        progress.TextColumn("{task.fields[values]}", markup=False),
        progress.TimeRemainingColumn(),
        console=console,
    )
    return bar, width
