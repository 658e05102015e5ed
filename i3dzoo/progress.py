"""What long work tells whoever watches it."""

from typing import Protocol

__all__ = ["Progress", "Quiet"]


class Progress(Protocol):
    """What watches downloads."""

    def start(self, name: str, total: int | None) -> None:
        """A file of `total` bytes begins to come."""

    def update(self, done: int) -> None:
        """So many bytes of it are here; fewer than before where it had to start again."""

    def say(self, remark: str) -> None:
        """Something happened that a user wants to know."""


class Quiet:
    """A progress that nobody watches."""

    def start(self, name: str, total: int | None) -> None:
        """Do nothing."""

    def update(self, done: int) -> None:
        """Do nothing."""

    def say(self, remark: str) -> None:
        """Do nothing."""
