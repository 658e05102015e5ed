"""Prepare videos of one's own: find them, check them, split them, and write an index.

The videos stay where they are.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from i3dzoo.distributed import ProcessGroup
from i3dzoo.errors import DatasetError
from i3dzoo.files.exclusive import exclusive_folder
from i3dzoo.progress import SILENT, Progress
from i3dzoo.video.extract import ClipJob, Settings, index_video
from i3dzoo.video.flow import flows, load_cv2
from i3dzoo.video.index import Entry, Index, Roles, SplitSettings
from i3dzoo.video.index_file import INDEX_NAME, is_prepared, read_index, write_index
from i3dzoo.video.journal import JOURNAL_NAME, Preparation, open_journal
from i3dzoo.video.prepare import Prepared
from i3dzoo.video.same_files import find_leaks, same_files
from i3dzoo.video.sources import ListedVideo, VideoList, read_source
from i3dzoo.video.splits import Role
from i3dzoo.video.splitting import split_videos
from i3dzoo.video.summary import summarise

SPLIT: Final = SplitSettings(val_fraction=0.2, seed=0)
"""How videos are split by default."""

_ALONE: Final = 100  # videos that one process describes faster than several can start
_ROUNDING: Final = 1.5  # seconds; downloaded segments are cut at keyframes
_UNSET: Final[Roles] = (None, None, None)


@dataclass(frozen=True)
class VideoOptions:
    """How folders and lists of videos are read; see `prepare_videos`."""

    labels: str | Path | Sequence[str] | None = None
    root: str | Path | None = None
    val_fraction: float = SPLIT.val_fraction
    group_by: str | None = None


def prepare_own(
    data: str | Path,
    out: Path,
    options: VideoOptions,
    processes: ProcessGroup,
    progress: Progress = SILENT,
) -> Path:
    """Return the folder of an index of `data`: its own, or one that is written to `out`.

    The main process writes it, and shows a summary of the videos.
    """
    path = Path(data)
    if processes.is_main and not is_prepared(data):
        split = SplitSettings(
            val_fraction=options.val_fraction, seed=SPLIT.seed, group_by=options.group_by
        )
        prepared = prepare_videos(
            data, out, labels=options.labels, root=options.root, split=split, progress=progress
        )
        path = prepared.path.parent
        progress.message(str(summarise(prepared.index)))
    result: Path = processes.broadcast(path)
    return result


def prepare_videos(
    source: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    labels: str | Path | Sequence[str] | None = None,
    root: str | Path | None = None,
    split: SplitSettings | None = SPLIT,
    jobs: int | None = None,
    progress: Progress = SILENT,
) -> Prepared:
    """Write an index of one's own videos; nothing is copied, and a second run continues.

    Videos that were described before, and did not change, are not opened again. The split of an
    earlier run is kept, and new videos are added to it.

    Args:
        source: A folder of class folders, or a list; see `i3dzoo.video.sources.read_source`.
        out: The folder of the index, and of optical flow.
        settings: How optical flow is computed; the layout is `videos`.
        labels: Names of the classes in the order of the logits; see `read_source`.
        root: The folder of the videos of a list.
        split: How to split videos that have no validation and no test part; None does not split.
        jobs: Number of processes; None takes one for each processor, or one for few videos.
        progress: Shows the number of videos, and remarks.

    Raises:
        MissingFileError: The source does not exist, or none of its videos does.
        DatasetError: The source is malformed, or `out` was prepared in another way.
        OptionError: The split does not fit the videos.
        OutputError: `out` cannot be written, or another process writes to it.
    """
    out, settings = Path(out), settings or Settings()
    if settings.flow is not None:
        list(flows([], settings.flow, settings.device))  # raises before the videos are read
    listed = read_source(source, labels=labels, root=root)
    for note in listed.notes:
        progress.message(note)
    with exclusive_folder(out):
        return _prepare(Path(source), listed, out, settings, split, jobs, progress)


def _prepare(
    source: Path,
    listed: VideoList,
    out: Path,
    settings: Settings,
    split: SplitSettings | None,
    jobs: int | None,
    progress: Progress,
) -> Prepared:
    """Describe the videos, and write the index."""
    journal = open_journal(out, Preparation("videos", "videos", None, None), settings)
    since = (out / JOURNAL_NAME).stat().st_mtime
    paths = list(dict.fromkeys(video.path for video in listed.videos if not video.error))
    work = [
        _job(path, out, settings)
        for path in paths
        if not _is_done(path, journal.done.get(str(path)), out, settings, since)
    ]
    if jobs is None and settings.flow is None and len(work) < _ALONE:
        jobs = 1
    made = journal.work(_index_one, work, jobs, progress)
    folder = _common_folder(source, listed.videos)
    entries = [_entry(video, journal.done.get(str(video.path)), folder) for video in listed.videos]
    same = [[_relative(path, folder) for path in group] for group in same_files(paths)]
    entries, split = _with_roles(entries, listed.videos, same, split, out, progress)
    for note in find_leaks(entries, same):
        progress.message(note)
    index = Index(
        out,
        source.resolve().name if source.is_dir() else source.stem,
        "videos",
        listed.classes,
        tuple(entries),
        flow=journal.flow,
        videos=folder,
        split=split,
    )
    return Prepared(write_index(index), index, made, len(paths) - made, (), ())


def _job(path: Path, out: Path, settings: Settings) -> ClipJob:
    # names of files can be as long as the system allows, and occur in several folders
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    stem = f"{path.stem[:60].rstrip('. ')}-{digest}"
    return ClipJob(path, str(path), stem, out, "", _UNSET, settings)


def _index_one(job: ClipJob) -> tuple[ClipJob, Entry]:
    """Describe a video with one thread, since there may be several processes."""
    if job.settings.flow in ("tvl1", "farneback"):
        load_cv2().setNumThreads(1)
    return job, index_video(job)


def _is_done(path: Path, entry: Entry | None, out: Path, settings: Settings, since: float) -> bool:
    """Whether a video was described, and has not changed since."""
    if entry is None or entry.error is not None:
        return False
    status = path.stat()
    if status.st_size != entry.bytes or status.st_mtime > since:
        return False
    return settings.flow is None or (entry.flow is not None and (out / entry.flow.file).exists())


def _common_folder(source: Path, videos: Sequence[ListedVideo]) -> Path:
    """Return the folder that holds all videos; the source itself if that is one."""
    try:
        folder = Path(os.path.commonpath([video.path.parent for video in videos]))
    except ValueError as error:
        raise DatasetError(f"{source}: lists videos on several drives; expected one") from error
    top = Path(os.path.abspath(source))  # noqa: PTH100 - keeps links
    top = top if source.is_dir() else top.parent
    return top if folder.is_relative_to(top) else folder


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _entry(video: ListedVideo, described: Entry | None, folder: Path) -> Entry:
    """Return the entry of a video or a segment."""
    file = _relative(video.path, folder)
    try:
        if described is None:
            return Entry(file, video.label, error=video.error)
        start, end = video.start, video.end
        seconds = described.frames / described.fps if described.fps else None
        if start is None and end is None:
            return msgspec.structs.replace(described, file=file, label=video.label)
        if video.may_be_cut and seconds and seconds < (end or 0) - (start or 0) + _ROUNDING:
            start = end = None  # the file is the segment
        reason = described.error
        if reason is None and seconds is None:
            reason = "has no frame rate; expected one for a segment in seconds"
        elif reason is None and seconds is not None and (start or 0) >= seconds:
            reason = f"is {seconds:.1f} s long; the segment starts at {start:g} s"
        return msgspec.structs.replace(
            described, file=file, label=video.label, start=start, end=end, error=reason
        )
    except ValueError as error:
        raise DatasetError(f"{video.path}: cannot be in an index: {error}; rename it") from error


def _with_roles(
    entries: Sequence[Entry],
    videos: Sequence[ListedVideo],
    same: Iterable[Sequence[str]],
    split: SplitSettings | None,
    out: Path,
    progress: Progress,
) -> tuple[list[Entry], SplitSettings | None]:
    """Return the entries with their roles in split 1, and how they were split if they were."""
    given = [video.role for video in videos]
    if any(role in ("val", "test") for role in given) or split is None or not split.val_fraction:
        if left := sum(role is None for role in given) if any(given) else 0:
            progress.message(f"{left:,} videos belong to no part, and are left out of the split")
        return [_with_role(e, role) for e, role in zip(entries, given, strict=True)], None
    usable = [entry for entry in entries if entry.error is None]
    roles, notes = split_videos(usable, split, same, _earlier_roles(out, split))
    for note in notes:
        progress.message(note)
    by_entry = {id(entry): role for entry, role in zip(usable, roles, strict=True)}
    return [_with_role(entry, by_entry.get(id(entry), "train")) for entry in entries], split


def _with_role(entry: Entry, role: Role | None) -> Entry:
    return msgspec.structs.replace(entry, roles=(role, None, None))


def _earlier_roles(out: Path, split: SplitSettings) -> dict[str, Role]:
    """Return the roles of the split that an earlier run wrote."""
    if not (out / INDEX_NAME).exists():
        return {}
    index = read_index(out)
    if index.split is None:
        return {}
    if index.split != split:
        before, now = msgspec.structs.asdict(index.split), msgspec.structs.asdict(split)
        key = next(key for key in now if before[key] != now[key])
        raise DatasetError(
            f"{out}: is split with {key} {before[key]}; expected {now[key]}: name another folder, "
            "or remove this one"
        )
    return {entry.name: entry.roles[0] for entry in index.entries if entry.roles[0] is not None}
