"""A dataset as it was published into one that trains: found, checked, extracted, indexed."""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from i3dzoo._files import atomic_write, output_error
from i3dzoo._parallel import run
from i3dzoo.errors import DatasetError, MissingFileError
from i3dzoo.progress import Progress, Quiet
from i3dzoo.video.archives import find_clips, find_splits
from i3dzoo.video.extract import Job, Settings, extract_clip
from i3dzoo.video.flow import BOUND, flows, load_cv2
from i3dzoo.video.index import Entry, Index, read_entry, write_index
from i3dzoo.video.splits import DatasetName, ListedClip, SplitLists

__all__ = ["MISSING_NAME", "Prepared", "prepare"]

MISSING_NAME = "missing.txt"
JOURNAL_NAME = ".journal.jsonl"
_STAGING = ".extracted"


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did.

    Attributes:
        path: The index.
        index: Its contents.
        made: Clips that were prepared now.
        kept: Clips that an earlier run had prepared.
        missing: Listed clips whose files were not found; `missing.txt` names them.
        differences: How the lists differ from the official ones in number.
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
        """The clips that can be used in part."""
        return tuple(e for e in self.index.entries if e.warnings and e.error is None)


def prepare(
    dataset: DatasetName,
    source: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    splits: str | Path | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Prepared:
    """Prepare HMDB51 or UCF101; run again, it goes on where it stopped.

    Args:
        dataset: Which.
        source: A folder with the clips anywhere under it, extracted, as class archives, or in the
            official archive; or that archive itself.
        out: The folder to make; `videos` links or copies the files to `videos/<class>/`, `frames`
            writes `frames/<class>/<clip>/000001.jpg`, `tao` writes
            `tao/<class>/<clip>/{rgb,u,v}/000001.jpg` and, for each split,
            `split<N>/{train,test}/<class>/<clip>`, which are links. Beside them is `index.jsonl`.
        settings: Layout, rate, size, optical flow.
        splits: Folder or archive of the official lists; by default looked for under `source`.
        jobs: Processes.
        progress: Watches, counted in clips.

    Raises:
        MissingFileError: The source or the lists are not there, or no clip of the lists is.
        DatasetError: The lists are malformed, an archive is damaged, or `out` holds a dataset that
            was prepared in another way.
        DependencyError: Something must be installed first.
        DeviceError: Optical flow cannot be computed on the device.
        OutputError: `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    settings, progress = settings or Settings(), progress or Quiet()
    if settings.flow is not None:
        # what it needs is missed now, not after extracting
        list(flows([], settings.flow, settings.device))
    lists = find_splits(source, dataset, None if splits is None else Path(splits), out / _STAGING)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error
    done, flow = _resume(out, dataset, settings)
    work, missing = _plan(source, out, lists, settings, done, progress)
    made = _work(out, work, done, jobs, progress)
    index = _index(out, lists, settings, done, flow)
    return _finish(index, lists, made, missing)


def _plan(
    source: Path,
    out: Path,
    lists: SplitLists,
    settings: Settings,
    done: dict[str, Entry],
    progress: Progress,
) -> tuple[list[Job], tuple[ListedClip, ...]]:
    """Return what is to be done, and the clips whose files are not there."""
    open_clips = [clip for clip in lists.clips if not _is_done(out, done.get(clip.file), settings)]
    # What is here already needs no source: only its flow is wanting.
    found = {c.file: out / done[c.file].file for c in open_clips if _has_video(out, c, done)}
    names = [clip.file for clip in open_clips if clip.file not in found]
    found |= find_clips(source, names, out / _STAGING, progress)
    if not found and len(open_clips) == len(lists.clips):
        raise MissingFileError(
            f"{source}: holds none of the {len(lists.clips):,} clips of the lists, such as "
            f"{lists.clips[0].file}, and no archive of them"
        )
    work = [
        Job(found[clip.file], clip.file, out, clip.label, clip.roles, settings)
        for clip in open_clips
        if clip.file in found
    ]
    return work, tuple(clip for clip in open_clips if clip.file not in found)


def _index(
    out: Path, lists: SplitLists, settings: Settings, done: dict[str, Entry], flow: str | None
) -> Index:
    entries = tuple(
        dataclasses.replace(done[clip.file], roles=clip.roles)
        for clip in lists.clips
        if clip.file in done
    )
    fps, side = settings.fps, settings.short_side
    if settings.layout == "videos":
        fps = side = None
    return Index(out, lists.dataset, settings.layout, lists.classes, entries, fps, side, flow)


def _finish(
    index: Index, lists: SplitLists, made: int, missing: tuple[ListedClip, ...]
) -> Prepared:
    """Write the index, the links and the list of what is missing."""
    if index.layout == "tao":
        _link_splits(index)
    path = write_index(index)
    names = index.root / MISSING_NAME
    if missing:
        with atomic_write(names) as file:
            text = "".join(f"{clip.label}/{clip.file}\n" for clip in missing)
            file.write(text.encode("utf-8", "surrogateescape"))
    else:
        names.unlink(missing_ok=True)
        shutil.rmtree(index.root / _STAGING, ignore_errors=True)
    kept = len(index.entries) - made
    return Prepared(path, index, made, kept, missing, lists.differences())


def _work(
    out: Path, work: Sequence[Job], done: dict[str, Entry], jobs: int, progress: Progress
) -> int:
    """Run the jobs, and note each that is done in the journal."""
    progress.start("clips", len(work))
    made = 0
    with (
        (out / JOURNAL_NAME).open("a", encoding="utf-8") as journal,
        contextlib.closing(run(_quietly, work, jobs)) as results,
    ):
        journal.write("\n")  # ends a line that a kill cut short
        for job, entry in results:
            made += 1
            done[job.name] = entry
            journal.write(json.dumps([job.name, entry.to_json()]) + "\n")
            journal.flush()
            progress.update(made)
            if entry.error is not None:
                progress.say(f"{job.source}: {entry.error}")
    return made


def _quietly(job: Job) -> Entry:
    """Prepare a clip in one thread: there are as many processes as there shall be threads."""
    if job.settings.flow in ("tvl1", "farneback"):
        load_cv2().setNumThreads(1)
    return extract_clip(job)


def _resume(
    out: Path, dataset: DatasetName, settings: Settings
) -> tuple[dict[str, Entry], str | None]:
    """Read the journal: what is done, and how the optical flow is made, if it is.

    Its first line says how the dataset is prepared, another how the flow is, the others are clips.

    Raises:
        DatasetError: It was prepared in another way.
    """
    header = f"{dataset}, layout {settings.layout}"
    if settings.layout != "videos":
        header += f", {_size_words(settings)}"
    flow = _flow_words(settings)
    path = out / JOURNAL_NAME
    if not path.exists():
        with atomic_write(path) as file:
            file.write(json.dumps({"dataset": header}).encode() + b"\n")
    found: dict[str, str] = {}
    done: dict[str, Entry] = {}
    for line in path.read_text("utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, TypeError):  # a last line cut short by a kill
            record = json.loads(line)
            if isinstance(record, dict):
                found |= record
            else:
                done[record[0]] = read_entry(record[1])
    for key, wanted in (("dataset", header), ("flow", flow)):
        if wanted is not None and found.setdefault(key, wanted) != wanted:
            raise DatasetError(
                f"{out}: holds a {key} prepared as {found[key]!r}; {wanted!r} is asked for: "
                "name another folder, or remove this one"
            )
    if flow is not None:
        with path.open("a", encoding="utf-8") as journal:
            journal.write("\n" + json.dumps({"flow": flow}) + "\n")
    return done, found.get("flow")


def _has_video(out: Path, clip: ListedClip, done: dict[str, Entry]) -> bool:
    entry = done.get(clip.file)
    return (
        entry is not None
        and entry.error is None
        and entry.file.startswith("videos/")
        and (out / entry.file).is_file()
    )


def _is_done(out: Path, entry: Entry | None, settings: Settings) -> bool:
    if entry is None or (entry.error is None and not (out / entry.file).exists()):
        return False
    if entry.error is not None:
        return False  # tried again: the file may be whole by now
    if settings.flow is None:
        return True
    return entry.flow is not None and (out / entry.flow.file).exists()


def _size_words(settings: Settings) -> str:
    side = f"short side {settings.short_side}" if settings.short_side else "own size"
    return f"{side}, {f'{settings.fps:g}' if settings.fps else 'native'} fps"


def _flow_words(settings: Settings) -> str | None:
    if settings.flow is None:
        return None
    return f"{settings.flow}, {_size_words(settings)}, ±{BOUND:g} pixels, {settings.flow_store}"


def _link_splits(index: Index) -> None:
    """Make `split<N>/{train,test}/<class>/<clip>`: the folders that TAO's specs name."""
    for entry, split in _in_splits(index):
        role = entry.roles[split - 1]
        link = index.root / f"split{split}" / str(role) / Path(*Path(entry.file).parts[1:])
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            up = os.path.relpath(index.root / entry.file, link.parent)
            try:
                link.symlink_to(up, target_is_directory=True)
            except OSError as error:
                raise output_error(link, error) from error


def _in_splits(index: Index) -> Iterator[tuple[Entry, int]]:
    for entry in index.entries:
        for split in (1, 2, 3):
            if entry.error is None and entry.roles[split - 1] is not None:
                yield entry, split
