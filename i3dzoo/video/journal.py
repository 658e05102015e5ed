"""The journal of a preparation: finished videos, so that an interrupted one can be continued."""

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

import msgspec

from i3dzoo.errors import DatasetError
from i3dzoo.files import atomic_write, open_input, output_error
from i3dzoo.progress import Progress
from i3dzoo.records import Record, parse_json
from i3dzoo.video.extract import ClipJob, Settings
from i3dzoo.video.index import Entry, FlowSettings, Layout
from i3dzoo.video.parallel import parallel_map

JOURNAL_NAME: Final = ".journal.jsonl"


class Preparation(Record, frozen=True, tag_field="kind", tag="dataset"):
    """A line of the journal: how the dataset is prepared; `fps` and `short_side` are of frames."""

    dataset: str
    layout: Layout
    fps: float | None
    short_side: int | None


class _Flow(Record, frozen=True, tag_field="kind", tag="flow"):
    """A line of the journal: how optical flow is computed."""

    settings: FlowSettings


class _Clip(Record, frozen=True, tag_field="kind", tag="clip"):
    """A line of the journal: a clip that is prepared."""

    name: str
    entry: Entry


@dataclass(frozen=True)
class Journal:
    """The finished videos by name, and how their optical flow is computed; None without flow."""

    folder: Path
    done: dict[str, Entry]
    flow: FlowSettings | None

    def work(
        self,
        function: Callable[[ClipJob], tuple[ClipJob, Entry]],
        jobs: Sequence[ClipJob],
        processes: int | None,
        progress: Progress,
    ) -> int:
        """Run a function on the jobs, record each finished video, and return their number."""
        progress.start("clips", len(jobs), "items")
        count = 0
        with (
            (self.folder / JOURNAL_NAME).open("ab", buffering=0) as journal,
            contextlib.closing(parallel_map(function, jobs, processes)) as results,
        ):
            for job, entry in results:
                count += 1
                self.done[job.name] = entry
                _append(journal, _Clip(job.name, entry))
                progress.update(count)
                if entry.error is not None:
                    progress.message(f"{job.source}: {entry.error}")
        return count


def open_journal(out: Path, header: Preparation, settings: Settings) -> Journal:
    """Read the journal of a folder, or begin one.

    A DatasetError says that the folder was prepared in another way.
    """
    path = out / JOURNAL_NAME
    if not path.exists():
        with atomic_write(path) as file:
            file.write(msgspec.json.encode(header) + b"\n")
    recorded: dict[type, Preparation | _Flow] = {}
    done: dict[str, Entry] = {}
    with open_input(path, DatasetError) as file:
        lines = file.read().splitlines()
    for line in lines:
        with contextlib.suppress(DatasetError):  # a line that was cut off when a run was killed
            record = parse_json(line, Preparation | _Flow | _Clip, error=DatasetError)  # type: ignore[arg-type] # a union
            if isinstance(record, _Clip):
                done[record.name] = record.entry
            else:
                recorded[type(record)] = record
    flow = None if settings.of_flow is None else _Flow(settings.of_flow)
    for wanted in (header, flow):
        if wanted is not None and (earlier := recorded.get(type(wanted), wanted)) != wanted:
            sides = (getattr(line, "settings", line) for line in (earlier, wanted))
            before, now = map(msgspec.structs.asdict, sides)
            key = next(key for key in now if before[key] != now[key])
            raise DatasetError(
                f"{out}: is prepared with {key} {before[key]}; expected {now[key]}: "
                "name another folder, or remove this one"
            )
    if flow is not None and _Flow not in recorded:
        with path.open("ab", buffering=0) as journal:
            _append(journal, flow)
        recorded[_Flow] = flow
    earlier_flow = recorded.get(_Flow)
    return Journal(out, done, earlier_flow.settings if isinstance(earlier_flow, _Flow) else None)


def _append(journal: FileIO, line: Record) -> None:
    """Add a line to the journal."""
    # The line break before ends a line that was cut off when a run was killed.
    data = b"\n" + msgspec.json.encode(line) + b"\n"
    path = Path(os.fsdecode(journal.name))
    try:
        if journal.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise output_error(path, error) from error
