"""Prepare HMDB51 or UCF101: find the clips, check them, extract frames and flow, write an index."""

import itertools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePath

import msgspec

from i3dzoo.errors import I3DZooError, MissingFileError
from i3dzoo.files import atomic_write, output_error
from i3dzoo.files.exclusive import exclusive_folder
from i3dzoo.files.output_names import drop_suffixes
from i3dzoo.progress import SILENT, Progress
from i3dzoo.video.archives import find_clips, find_splits
from i3dzoo.video.extract import ClipJob, Settings, prepare_video
from i3dzoo.video.flow import flows, load_cv2
from i3dzoo.video.index import Entry, Index
from i3dzoo.video.index_file import write_index
from i3dzoo.video.journal import Preparation, open_journal
from i3dzoo.video.splits import DatasetName, ListedClip, SplitLists

MISSING_NAME = "missing.txt"
_STAGING = ".extracted"


@dataclass(frozen=True)
class Prepared:
    """The result of `prepare`.

    `made` clips were prepared now, and `kept` by an earlier run. `missing` are listed clips whose
    files were not found; `differences` compares the lists with the official ones.
    """

    path: Path
    index: Index
    made: int
    kept: int
    missing: tuple[ListedClip, ...]
    differences: tuple[str, ...]

    @property
    def bad(self) -> tuple[Entry, ...]:
        """The clips that cannot be used."""
        return tuple(entry for entry in self.index.entries if entry.error is not None)

    @property
    def damaged(self) -> tuple[Entry, ...]:
        """The clips of which only a part can be used."""
        return tuple(e for e in self.index.entries if e.warnings and e.error is None)


def prepare(
    dataset: DatasetName,
    source: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    splits: str | Path | None = None,
    jobs: int | None = 1,
    progress: Progress = SILENT,
) -> Prepared:
    """Prepare HMDB51 or UCF101; running it again continues an interrupted run.

    The clips may be anywhere under `source`: extracted, in archives of classes, or in the official
    archive. So may the lists, unless `splits` is their folder or archive. `out` gets `index.jsonl`
    and the folders of the layout; see docs/guides/data.md. `jobs` None starts one process a
    processor. If another process is preparing `out`, an OutputError says so.
    """
    source, out, settings = Path(source), Path(out), settings or Settings()
    if settings.flow is not None:
        list(flows([], settings.flow, settings.device))  # raises before the archives are extracted
    with exclusive_folder(out):
        where = None if splits is None else Path(splits)
        lists = find_splits(source, dataset, where, out / _STAGING)
        return _prepare(source, out, lists, settings, jobs, progress)


def _prepare(
    source: Path,
    out: Path,
    lists: SplitLists,
    settings: Settings,
    jobs: int | None,
    progress: Progress,
) -> Prepared:
    """Prepare a dataset in a folder that no other process writes to."""
    _remove_parts(out)
    of_frames = _of_frames(settings)
    journal = open_journal(out, Preparation(lists.dataset, settings.layout, *of_frames), settings)
    done = journal.done
    work, missing = _plan(source, out, lists, settings, done, progress)
    made = journal.work(_prepare_one, work, jobs, progress)
    entries = tuple(
        msgspec.structs.replace(done[clip.file], roles=clip.roles)
        for clip in lists.clips
        if clip.file in done
    )
    index = Index(
        out, lists.dataset, settings.layout, lists.classes, entries, *of_frames, journal.flow
    )
    _write(index, missing)
    path, kept = write_index(index), len(entries) - made
    return Prepared(path, index, made, kept, missing, lists.differences())


def _remove_parts(out: Path) -> None:
    """Remove what processes were writing when they were killed."""
    folders = (*(f"{name}/*" for name in ("videos", "frames", "tao", "flow")), _STAGING)
    for part in itertools.chain.from_iterable(out.glob(f"{name}/.*.part") for name in folders):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def _plan(
    source: Path,
    out: Path,
    lists: SplitLists,
    settings: Settings,
    done: dict[str, Entry],
    progress: Progress,
) -> tuple[list[ClipJob], tuple[ListedClip, ...]]:
    """Return the jobs, and the clips whose files are missing."""
    clips = [clip for clip in lists.clips if not _is_done(out, done.get(clip.file), settings)]
    # Prepared videos that only lack their flow need no source.
    files = {c.file: out / done[c.file].file for c in clips if _has_video(out, c, done)}
    wanted = [clip.file for clip in clips if clip.file not in files]
    files |= find_clips(source, wanted, out / _STAGING, progress)
    if not files and len(clips) == len(lists.clips):
        raise MissingFileError(
            f"{source}: holds none of the {len(lists.clips):,} clips of the lists, such as "
            f"{lists.clips[0].file}, and no archive of them"
        )
    stems = drop_suffixes([f"{clip.label}/{clip.file}" for clip in lists.clips])
    names = {clip.file: PurePath(stem).name for clip, stem in zip(lists.clips, stems, strict=True)}
    work = [
        ClipJob(
            files[clip.file], clip.file, names[clip.file], out, clip.label, clip.roles, settings
        )
        for clip in clips
        if clip.file in files
    ]
    return work, tuple(clip for clip in clips if clip.file not in files)


def _of_frames(settings: Settings) -> tuple[float | None, int | None]:
    """Return the rate and the short side of extracted frames."""
    return (None, None) if settings.layout == "videos" else (settings.fps, settings.short_side)


def _write(index: Index, missing: tuple[ListedClip, ...]) -> None:
    """Write the links and the list of missing clips."""
    if index.layout == "tao":
        _link_splits(index)
    names = index.root / MISSING_NAME
    if missing:
        with atomic_write(names) as file:
            text = "".join(f"{clip.label}/{clip.file}\n" for clip in missing)
            file.write(text.encode("utf-8", "surrogateescape"))
    else:
        names.unlink(missing_ok=True)
        shutil.rmtree(index.root / _STAGING, ignore_errors=True)


def _prepare_one(job: ClipJob) -> tuple[ClipJob, Entry]:
    """Prepare a clip with one thread, since there are several processes."""
    if job.settings.flow in ("tvl1", "farneback"):
        load_cv2().setNumThreads(1)
    try:
        return job, prepare_video(job)
    except I3DZooError:
        raise
    except OSError as error:
        raise output_error(job.root / job.stem, error) from error


def _has_video(out: Path, clip: ListedClip, done: dict[str, Entry]) -> bool:
    entry = done.get(clip.file)
    return (
        entry is not None
        and entry.error is None
        and entry.file.startswith("videos/")
        and (out / entry.file).is_file()
    )


def _is_done(out: Path, entry: Entry | None, settings: Settings) -> bool:
    # A clip with an error is tried again, since its file may have been repaired.
    if entry is None or entry.error is not None or not (out / entry.file).exists():
        return False
    if settings.flow is None:
        return True
    return entry.flow is not None and (out / entry.flow.file).exists()


def _link_splits(index: Index) -> None:
    """Make the links `split<N>/{train,test}/<class>/<clip>`, for the folders of TAO's specs."""
    usable = [entry for entry in index.entries if entry.error is None]
    for entry, split in itertools.product(usable, (1, 2, 3)):
        if (role := entry.roles[split - 1]) is None:
            continue
        link = index.root / f"split{split}" / role / Path(*Path(entry.file).parts[1:])
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            target = os.path.relpath(index.root / entry.file, link.parent)
            try:
                link.symlink_to(target, target_is_directory=True)
            except OSError as error:
                raise output_error(link, error) from error
