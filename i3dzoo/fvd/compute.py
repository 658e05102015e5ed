"""Compute FVD and what belongs to it: `compute_fvd`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i3dzoo.distributed import ProcessGroup
from i3dzoo.errors import OptionError
from i3dzoo.files import check_output
from i3dzoo.fvd.distance import frechet_distance, kernel_distance
from i3dzoo.fvd.embedding import MEASURED_ERRORS, Embedded, Embedder, embed_videos
from i3dzoo.fvd.protocol import Protocol, load_protocol
from i3dzoo.fvd.sources import Known, open_source
from i3dzoo.fvd.statistics import SAMPLE, Statistics
from i3dzoo.fvd.statistics_file import Settings, read_statistics, write_statistics
from i3dzoo.fvd.uncertainty import Extrapolation, Interval, bootstrap, extrapolate
from i3dzoo.fvd.video_sets import Layout, ValueRange, VideoSet
from i3dzoo.network.architecture import MIN_FRAMES
from i3dzoo.progress import SILENT, Progress
from i3dzoo.text import listing


@dataclass(frozen=True, eq=False)
class FVDResult:
    """A Fréchet Video Distance, and what it is computed of.

    Attributes:
        fvd: The squared Fréchet distance.
        kvd: The kernel distance; None if a set has one video.
        protocol: The convention.
        weights: SHA-256 of the network's weights; None if no network ran.
        precision: Precision of the network's computation; None if no network ran.
        real: Statistics of the real features.
        fake: Statistics of the fake features.
        lengths: FVD by the number of frames of the clips.
        interval: Confidence interval, if a bootstrap was requested.
        infinite: FVD for infinitely many videos; None with fewer than 10.
        notes: How the videos were read.
        warnings: Why the number may mislead.
    """

    fvd: float
    kvd: float | None
    protocol: Protocol
    weights: str | None
    precision: str | None
    real: Statistics
    fake: Statistics
    lengths: dict[int, float]
    interval: Interval | None
    infinite: Extrapolation | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Side:
    """One of the two sets, embedded."""

    name: str
    statistics: dict[int, Statistics]
    settings: Settings | None
    notes: tuple[str, ...]
    fps: frozenset[float] = frozenset()


def compute_fvd(
    real: Any,
    fake: Any,
    protocol: str | Protocol = "tf",
    *,
    embedder: Embedder | Callable[[], Embedder] = Embedder.load,
    stats: Path | None = None,
    lengths: Sequence[int] = (),
    rounds: int = 0,
    layout: Layout | None = None,
    value_range: ValueRange | None = None,
    progress: Progress = SILENT,
    processes: ProcessGroup = ProcessGroup(),  # noqa: B008 - it is frozen
) -> FVDResult:
    """Compute the Fréchet Video Distance of two sets of videos.

    Args:
        real: A folder of videos; a .npy or .npz file of videos [N, T, H, W, 3] or [N, 3, T, H, W],
            uint8 or floats, or of features [N, D]; a file of saved statistics; an array or a
            tensor like these; or `Statistics`.
        fake: The same; it may have another number of videos.
        protocol: The name of a protocol, or a `Protocol`.
        embedder: The network, or a function that loads it; by default `rgb_scratch`, the weights of
            the definition. It is called if there are videos.
        stats: A file of the statistics of `real`: it is written, or read if it exists.
        lengths: Further numbers of frames, 9 or more, to compute FVD of: the first frames of each
            clip.
        rounds: Rounds of the bootstrap; 0 computes no confidence interval.
        layout: Order of the axes of arrays; None finds the axis of 3.
        value_range: What floats stand for; None finds it out if the values leave no doubt.
        progress: Shows the videos.
        processes: The processes of the run, which share the videos.

    Raises:
        I3DZooError: A set cannot be read, is ambiguous, or was computed with other settings.
    """
    chosen = load_protocol(protocol) if isinstance(protocol, str) else protocol
    wanted = _lengths(lengths, chosen)
    progress = progress if processes.is_main else SILENT
    computation = _Computation(chosen, wanted, embedder, progress, processes)
    sources = [
        open_source(source, name, layout, value_range)
        for source, name in ((real, "real"), (fake, "fake"))
    ]
    if stats is not None:
        first = computation.with_file(sources[0], stats)
    else:
        first = computation.side(sources[0])
    return _compare(computation, first, computation.side(sources[1]), rounds)


class _Computation:
    """Embeds sets of videos with one network and one protocol."""

    def __init__(
        self,
        protocol: Protocol,
        lengths: tuple[int, ...],
        embedder: Embedder | Callable[[], Embedder],
        progress: Progress,
        processes: ProcessGroup,
    ) -> None:
        self.protocol, self.lengths = protocol, lengths
        self.progress, self.processes = progress, processes
        self._embedder = embedder
        self.loaded: Embedder | None = None

    @property
    def embedder(self) -> Embedder:
        """The network, which is loaded when it is needed."""
        if self.loaded is None:
            given = self._embedder
            self.loaded = given if isinstance(given, Embedder) else given()
        return self.loaded

    def side(self, source: VideoSet | Known) -> _Side:
        """Return the features of a set."""
        if isinstance(source, Known):
            if source.settings is not None:
                own = Settings(
                    weights=source.settings.weights,
                    inputs=self.protocol.inputs,
                    source="",
                    videos=0,
                    precision=source.settings.precision,
                )
                source.settings.check(source.name, own)
            return _Side(source.name, source.statistics, source.settings, source.notes)
        embedded = embed_videos(
            self.embedder, source, self.protocol, self.lengths, self.progress, self.processes
        )
        if not embedded.videos:
            raise OptionError(
                f"{source.name}: all {len(source)} videos are shorter than a clip of "
                f"{self.protocol.frames} frames; take fewer with --frames"
            )
        notes = (*source.notes, *self._notes(source, embedded))
        settings = self._settings(source, embedded.videos)
        return _Side(source.name, embedded.statistics, settings, notes, embedded.fps)

    def with_file(self, source: VideoSet | Known, path: Path) -> _Side:
        """Return the features of a set from a file of statistics, which is written if need be."""
        if isinstance(source, Known):
            raise OptionError(
                f"{source.name}: holds features already; --stats is for the statistics of videos"
            )
        if not path.exists():
            check_output(path, force=False)
            side = self.side(source)
            if self.processes.is_main and side.settings is not None:
                write_statistics(path, side.statistics, side.settings)
            return side
        saved = read_statistics(path)
        if saved is None:
            raise OptionError(f"{path}: holds no statistics of FVD; name another file in --stats")
        statistics, settings = saved
        settings.check(path, self._settings(source, settings.videos), source=True)
        missing = sorted({*self.lengths, self.protocol.frames} - statistics.keys())
        if missing:
            raise OptionError(
                f"{path}: has no statistics of clips of {missing[0]} frames; compute them again "
                "into another file"
            )
        return _Side(
            source.name, statistics, settings, Known(str(path), statistics, settings).notes
        )

    def _settings(self, source: VideoSet, videos: int) -> Settings:
        return Settings(
            weights=self.embedder.digest,
            inputs=self.protocol.inputs,
            source=source.digest(),
            videos=videos,
            precision=self.embedder.precision,
        )

    def _notes(self, source: VideoSet, embedded: Embedded) -> list[str]:
        notes = []
        limit = self.protocol.videos
        if limit is not None and len(source) > limit:
            notes.append(
                f"{source.name}: {limit} of {len(source)} videos, drawn with seed "
                f"{self.protocol.seed}"
            )
        if embedded.short:
            notes.append(
                f"{source.name}: {len(embedded.short)} videos are left out because they have fewer "
                f"than {self.protocol.span} frames: {listing(embedded.short)}"
            )
        return notes


def _compare(computation: _Computation, real: _Side, fake: _Side, rounds: int) -> FVDResult:
    if real.settings is not None and fake.settings is not None:
        real.settings.check(real.name, fake.settings)
    protocol = computation.protocol
    first, second = _of_length(real, protocol.frames), _of_length(fake, protocol.frames)
    fvd = frechet_distance(first, second, protocol.ddof)
    both = min(first.count, second.count) > 1
    lengths = {
        frames: frechet_distance(real.statistics[frames], fake.statistics[frames], protocol.ddof)
        for frames in sorted(real.statistics.keys() & fake.statistics.keys() - {0})
    }
    settings = next((side.settings for side in (real, fake) if side.settings), None)
    return FVDResult(
        fvd=fvd,
        kvd=kernel_distance(first.sample, second.sample) if both else None,
        protocol=protocol,
        weights=None if settings is None else settings.weights,
        precision=None if settings is None else settings.precision,
        real=first,
        fake=second,
        lengths=lengths,
        interval=bootstrap(first, second, protocol.ddof, rounds, protocol.seed) if rounds else None,
        infinite=extrapolate(first, second, protocol.ddof, protocol.seed),
        notes=(*real.notes, *fake.notes),
        warnings=tuple(_warnings(computation, real, fake, first, second)),
    )


def _of_length(side: _Side, frames: int) -> Statistics:
    statistics = side.statistics.get(frames) or side.statistics.get(0)
    if statistics is None:
        raise OptionError(
            f"{side.name}: has no statistics of clips of {frames} frames; it has those of "
            f"{', '.join(map(str, side.statistics))}"
        )
    return statistics


def _warnings(
    computation: _Computation, real: _Side, fake: _Side, first: Statistics, second: Statistics
) -> list[str]:
    warnings = []
    settings = real.settings or fake.settings
    if settings is not None and settings.precision != "fp32":
        warnings.append(
            f"the network ran in {settings.precision}; FVD is defined in fp32, from which it was "
            f"up to {100 * MEASURED_ERRORS[settings.precision]:.2g}% off as measured on an H100: "
            "compare only numbers of the same precision"
        )
    least, dimensions = min(first.count, second.count), first.dimensions
    if computation.loaded is not None and computation.loaded.note:
        warnings.append(computation.loaded.note)
    if dimensions != 400:
        warnings.append(
            f"the features have {dimensions} numbers; FVD is defined on the 400 logits of I3D"
        )
    if least <= dimensions:
        warnings.append(
            f"{least} features are too few for {dimensions} dimensions: the covariance does not "
            "have full rank, and FVD is far too high; compare only numbers of the same counts, or "
            "take 2,048 "
            "videos or more"
        )
    limit = computation.protocol.videos
    if limit is not None and least < limit * computation.protocol.clips_per_video:
        warnings.append(
            f"the protocol takes {limit} videos of each set, and there are {first.count} and "
            f"{second.count} clips; each is used once"
        )
    if real.fps and fake.fps and real.fps != fake.fps:
        rates = [", ".join(f"{rate:g}" for rate in sorted(side.fps)[:3]) for side in (real, fake)]
        warnings.append(
            f"the real videos have {rates[0]} fps and the fake ones {rates[1]}; frames are taken "
            "as they are, so motion has another speed"
        )
    if not (first.complete and second.complete):
        warnings.append(
            f"KVD, the confidence interval and FVD-infinity are of a random sample of {SAMPLE} "
            "features; FVD is of all"
        )
    return warnings


def _lengths(lengths: Sequence[int], protocol: Protocol) -> tuple[int, ...]:
    for frames in lengths:
        if not MIN_FRAMES <= frames <= protocol.frames:
            raise OptionError(
                f"lengths: {frames} is not from {MIN_FRAMES} to {protocol.frames}, the frames of a "
                "clip; take longer clips with --frames"
            )
    return tuple(sorted(set(lengths) - {protocol.frames}))
