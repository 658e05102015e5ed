"""A folder of features: the files of each video with a JSON, and `features.yaml`.

A video whose JSON exists is kept, so extraction resumes where it stopped. Any number of processes
can write to one folder: each video is claimed by one of them, and what a killed process had claimed
is free. The folder can be an address of fsspec, such as s3://, where nothing can be claimed.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from i3dzoo.checkpoints.metadata import Stream
from i3dzoo.errors import I3DZooError, OptionError, OutputError
from i3dzoo.features import outputs
from i3dzoo.features.extraction import Extractor, Features
from i3dzoo.features.hdf5_file import pack
from i3dzoo.features.record import NAME, FolderRecord, check_finished, video_record
from i3dzoo.files.output_names import name_outputs, without_repeats
from i3dzoo.files.stores import FolderStore, Store, open_store
from i3dzoo.progress import SILENT, Progress
from i3dzoo.video import BadVideo
from i3dzoo.video.pipeline import DecoderName

_WRITTEN_LATE: Final = 8  # videos whose files may wait to be written


@dataclass(frozen=True)
class FeatureFile:
    """The features of one video in a folder.

    Attributes:
        video: The video.
        path: The JSON that describes its files.
        features: None if they existed, or the video failed.
        error: Why the video failed.
        files: The files of features.
    """

    video: str
    path: str
    features: Features | None = None
    error: str | None = None
    files: tuple[str, ...] = ()


def feature_names(videos: Sequence[str], keep_folders: bool = False) -> dict[str, str]:
    """Return the name of each video's features inside the folder; a repeated video has one.

    They are named after the videos. The folders of the videos are kept if two of them hold videos
    of the same name, or if `keep_folders` is set. A name keeps its suffix where videos of a folder
    differ in nothing else.
    """
    videos = without_repeats(videos)
    return dict(zip(videos, name_outputs(videos, keep_folders), strict=True))


def _rounding(precision: str) -> str:
    """Return what the record adds to the digest of a model that computes in half precision."""
    return "" if precision == "fp32" else f" in {precision}"


def extract_to_folder(
    extractor: Extractor,
    names: Mapping[str, str],
    folder: str | Path,
    *,
    models: Mapping[Stream, Mapping[str, str]],
    batch_size: int | None = None,
    decoder: DecoderName = "auto",
    progress: Progress = SILENT,
) -> Iterator[FeatureFile]:
    """Extract the features of videos into a folder, and keep those that exist.

    Args:
        extractor: The networks and the settings.
        names: The name of each video's features, from `feature_names`.
        folder: The folder, which is created if it does not exist; or an address of fsspec, such as
            s3://bucket/features.
        models: What the JSON says about the model of each stream; `sha256` is the digest of its
            file.
        batch_size: Clips that a network runs on at once; None chooses by the device.
        decoder: What decodes video files; see `PipelineOptions`.
        progress: Shows the videos.

    Yields:
        What became of each video, as it is ready: those whose features exist, those that this
        process has extracted, and at the end those that another process had claimed.

    Raises:
        OutputError: The folder holds features of other models or of other settings, or a file
            cannot be written.
        OptionError: An HDF5 file is to be written to an address.
    """
    store, settings = open_store(folder), extractor.settings
    if settings.format == "hdf5" and not isinstance(store, FolderStore):
        raise OptionError(f"{folder}: expected a folder for one HDF5 file; choose another format")
    engines = extractor.engines
    digests: dict[str, str] = {
        stream: about["sha256"] + _rounding(engines[stream].precision)
        for stream, about in models.items()
    }
    if not store.exists(NAME):
        _check_free(store, names, extractor)
    about = {
        "models": {
            stream: {
                **model,
                **extractor.planners[stream].describe(),
                "engine": engines[stream].name,
                "precision": engines[stream].precision,
                "device": str(engines[stream].device),
            }
            for stream, model in models.items()
        }
    }
    record = FolderRecord(store, settings, digests)
    run = _Run(extractor, names, record, about, batch_size, decoder, progress)
    progress.start("videos", len(names), "items")
    with ThreadPoolExecutor(1) as writer:
        for done, result in enumerate(run.results(writer), 1):
            progress.update(done)
            yield result
    if settings.format == "hdf5" and isinstance(store, FolderStore):
        with record.unchanged():
            pack(store.folder)


def _check_free(store: Store, names: Mapping[str, str], extractor: Extractor) -> None:
    """Check that a folder without a record has no file of the name of features."""
    found = store.names()
    for name in names.values() if found else ():
        files = outputs.output_names(name, extractor.settings)
        for file in (*files, outputs.sidecar_name(name)):
            if file in found:
                raise OutputError(
                    f"{store.location(file)}: exists already, and {NAME}, which would describe it, "
                    "does not; name another folder"
                )


@dataclass(eq=False)
class _Run:
    """A run over the videos of a list."""

    extractor: Extractor
    names: Mapping[str, str]
    record: FolderRecord
    about: Mapping[str, Any]
    batch_size: int | None
    decoder: DecoderName
    progress: Progress

    def __post_init__(self) -> None:
        self.store = self.record.store
        self._claims: dict[str, ExitStack] = {}
        self._ready: deque[FeatureFile] = deque()
        self._late: deque[Future[FeatureFile]] = deque()
        self._busy: list[str] = []  # claimed by other processes

    def results(self, writer: ThreadPoolExecutor) -> Iterator[FeatureFile]:
        """Yield what became of each video."""
        try:
            yield from self._extract(self._unfinished(), writer)
            for video in self._busy:
                # one at a time, since a process that waits must not keep others waiting
                yield from self._extract(self._waited_for(video), writer)
        finally:
            for claim in list(self._claims.values()):
                claim.close()

    def _extract(self, videos: Iterator[str], writer: ThreadPoolExecutor) -> Iterator[FeatureFile]:
        extracted = self.extractor.extract(
            videos, ordered=False, batch_size=self.batch_size, decoder=self.decoder
        )
        for video, result in extracted:
            if isinstance(result, BadVideo):
                self._claims.pop(video).close()
                self._ready.append(self._file(video, error=result.reason))
            else:
                self._late.append(writer.submit(self._write, video, result))
            yield from self._done(_WRITTEN_LATE)
        yield from self._done(0)

    def _done(self, most: int) -> Iterator[FeatureFile]:
        """Yield the videos that are done; at most so many are still to be written then."""
        while self._ready:
            yield self._ready.popleft()
        while self._late and (len(self._late) > most or self._late[0].done()):
            yield self._late.popleft().result()

    def _unfinished(self) -> Iterator[str]:
        """Yield the videos without features, each of which is claimed; note the others."""
        found = self.store.names()
        for video, name in self.names.items():
            if outputs.sidecar_name(name) in found:
                self._ready.append(self._finished(video))
                continue
            yield from self._claimed(video)

    def _waited_for(self, video: str) -> Iterator[str]:
        yield from self._claimed(video, wait=True)

    def _claimed(self, video: str, wait: bool = False) -> Iterator[str]:
        """Yield the video if this process has claimed it, and no other one has extracted it."""
        sidecar = outputs.sidecar_name(self.names[video])
        waiting = self.progress.message if wait else None
        with ExitStack() as stack:
            if not stack.enter_context(self.store.claim(sidecar, waiting)):
                self._busy.append(video)
            elif self.store.exists(sidecar):
                self._ready.append(self._finished(video))
            else:
                self._claims[video] = stack.pop_all()
                yield video

    def _finished(self, video: str) -> FeatureFile:
        """Return the file of features that exist, or why they are not those of the video."""
        try:
            check_finished(self.store, outputs.sidecar_name(self.names[video]), video)
        except I3DZooError as error:
            return self._file(video, error=str(error))
        return self._file(video)

    def _file(
        self, video: str, features: Features | None = None, error: str | None = None
    ) -> FeatureFile:
        name, locate = self.names[video], self.store.location
        files = map(locate, outputs.output_names(name, self.extractor.settings))
        sidecar = locate(outputs.sidecar_name(name))
        return FeatureFile(video, sidecar, features, error, tuple(files))

    def _write(self, video: str, features: Features) -> FeatureFile:
        """Write the files of a video, and end its claim."""
        name, settings = self.names[video], self.extractor.settings
        with self._claims.pop(video):
            try:
                described = {"video": video_record(video).to_dict(), **self.about}
                files = outputs.output_files(name, features, settings, described)
            except I3DZooError as error:
                return self._file(video, error=str(error))
            with self.record.unchanged():
                for output in files:
                    with self.store.write(output.name) as file:
                        output.write(file)
        return self._file(video, features)
