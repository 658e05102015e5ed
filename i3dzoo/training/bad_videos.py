"""Videos that cannot be read are left out of a run, and never silently: named once, and counted."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from i3dzoo.training.processes import gathered
from i3dzoo.video import BadVideo

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["BadVideos"]


class BadVideos:
    """The bad videos of a run.

    Attributes:
        found: Why each cannot be read, by its file, in the order they were met.
    """

    def __init__(
        self, accelerator: "Accelerator", tell: Callable[[BadVideo], None] = lambda _: None
    ) -> None:
        """Begin.

        Args:
            accelerator: Of the run; what other processes met is heard of when they gather.
            tell: Called on the main process with each bad video, once.
        """
        self.accelerator, self.tell = accelerator, tell
        self.found: dict[str, str] = {}
        self._waiting: list[BadVideo] = []

    def meet(self, bad: BadVideo) -> None:
        """Note one that this process met."""
        self._waiting.append(bad)
        if self.accelerator.num_processes == 1:
            self.gather()

    def gather(self) -> None:
        """Tell of what all processes met; each of them calls this, at the end of an epoch."""
        for one in gathered(self._waiting, self.accelerator):
            if one.file not in self.found:
                self.found[one.file] = one.reason
                if self.accelerator.is_main_process:
                    self.tell(one)
        self._waiting = []
