"""Progress on standard error: a bar on terminals, plain lines elsewhere."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from i3dzoo.cli._console import say
from i3dzoo.progress import Progress

if TYPE_CHECKING:
    from rich import progress as rich_progress

__all__ = ["megabytes", "watch"]


def megabytes(size: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


class _Lines:
    """A line when a file begins to come, and the remarks."""

    def start(self, name: str, total: int | None) -> None:
        say(f"  {name}{f', {megabytes(total)}' if total else ''}")

    def update(self, done: int) -> None:
        """Say nothing: a log file is no place for a moving number."""

    def say(self, remark: str) -> None:
        say(remark)


class _Counts:
    """A line for every tenth of what is counted, and the remarks."""

    def __init__(self) -> None:
        self.name, self.total, self.next = "", 0, 1

    def start(self, name: str, total: int | None) -> None:
        self.name, self.total, self.next = name, total or 0, 1

    def update(self, done: int) -> None:
        if self.total and 10 * done >= self.next * self.total:
            say(f"  {done:,} of {self.total:,} {self.name}")
            self.next = 10 * done // self.total + 1

    def say(self, remark: str) -> None:
        say(remark)


class _Bar:
    """Bytes, speed and time left of the file that comes."""

    def __init__(self, bar: "rich_progress.Progress") -> None:
        self.bar = bar
        self.task: rich_progress.TaskID | None = None

    def start(self, name: str, total: int | None) -> None:
        self._stop()
        self.task = self.bar.add_task(name, total=total)

    def update(self, done: int) -> None:
        if self.task is not None:
            self.bar.update(self.task, completed=done)

    def say(self, remark: str) -> None:
        self.bar.console.print(remark, markup=False, highlight=False, soft_wrap=True)

    def _stop(self) -> None:
        if self.task is not None:
            self.bar.stop_task(self.task)


@contextlib.contextmanager
def watch(counted: bool = False) -> Iterator[Progress]:
    """Show progress while the block runs: of bytes, or `counted`, of things."""
    if not sys.stderr.isatty():
        yield _Counts() if counted else _Lines()
        return
    from rich import progress
    from rich.console import Console

    with progress.Progress(
        progress.TextColumn("  {task.description}"),
        progress.BarColumn(),
        *(
            [progress.MofNCompleteColumn()]
            if counted
            else [progress.DownloadColumn(), progress.TransferSpeedColumn()]
        ),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        yield _Bar(bar)
