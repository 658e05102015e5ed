"""A progress that tests can look into."""

from i3dzoo.progress import Unit


class RecordedProgress:
    """Keeps its events: a pair for the start of a task, a number for an update, or a message."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int | None] | int | str] = []

    def start(self, description: str, total: int | None, _: Unit = "bytes") -> None:
        """Keep the task."""
        self.events.append((description, total))

    def update(self, completed: int, **_: str) -> None:
        """Keep the number."""
        self.events.append(completed)

    def message(self, text: str) -> None:
        """Keep the text."""
        self.events.append(text)

    @property
    def messages(self) -> list[str]:
        """The messages, in order."""
        return [event for event in self.events if isinstance(event, str)]
