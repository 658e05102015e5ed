"""Videos of a run that cannot be read: each is reported once and left out."""

from dataclasses import dataclass, field
from typing import Final

from i3dzoo.distributed import ProcessGroup
from i3dzoo.errors import DatasetError, I3DZooError, MissingFileError, VideoError
from i3dzoo.progress import SILENT, Progress

UNREADABLE: Final = (VideoError, MissingFileError, DatasetError)
"""Errors of a video that cannot be read; others, such as frames that are too small, are never
skipped."""


@dataclass(frozen=True)
class BadVideo:
    """A video that could not be used, and why: in words, and the error if it is kept."""

    file: str
    reason: str
    error: I3DZooError | None = field(default=None, compare=False, repr=False)


class BadVideos:
    """The unreadable videos of a run: `reasons` by file; `progress` shows each once."""

    def __init__(self, processes: ProcessGroup, progress: Progress = SILENT) -> None:
        self.processes, self.progress = processes, progress
        self.reasons: dict[str, str] = {}
        self._new: list[BadVideo] = []

    def add(self, bad: BadVideo) -> None:
        """Add a video that this process could not read."""
        self._new.append(bad)
        if self.processes.world_size == 1:
            self.gather()

    def gather(self) -> None:
        """Exchange the unreadable videos; every process calls this, at the end of an epoch."""
        for bad in self.processes.gather(self._new):
            if bad.file not in self.reasons:
                self.reasons[bad.file] = bad.reason
                if self.processes.is_main:
                    self.progress.message(f"{bad.file}: left out: {bad.reason}")
        self._new = []
