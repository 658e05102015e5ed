"""Report the progress of long work.

Every function that takes long has one parameter for this, `progress`, which is silent by default.
`i3dzoo.cli.progress` shows it on a terminal.
"""

from typing import Final, Literal, Protocol

Unit = Literal["bytes", "items"]


class Progress(Protocol):
    """Receives the progress of one task after another."""

    def start(self, description: str, total: int | None, unit: Unit = "bytes") -> None:
        """Begin a task, and end the task before it.

        Args:
            description: Name of the file, or of what is counted, such as `videos`.
            total: Size of the task; None if it is unknown.
            unit: What `total` and `update` count.
        """

    def update(self, completed: int, **values: str) -> None:
        """Set how much of the task is done.

        Args:
            completed: The part of `total` that is done; after a retry it can be less than before.
            values: What to show beside it, such as `loss="0.532"`.
        """

    def message(self, text: str) -> None:
        """Show a remark: one sentence that the user should read."""


class _Silent:
    def start(self, description: str, total: int | None, unit: Unit = "bytes") -> None:
        """Do nothing."""

    def update(self, completed: int, **values: str) -> None:
        """Do nothing."""

    def message(self, text: str) -> None:
        """Do nothing."""


SILENT: Final[Progress] = _Silent()
"""Progress that nobody sees."""
