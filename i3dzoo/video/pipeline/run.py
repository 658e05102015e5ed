"""Run a network on many videos: decode several at once, and share batches between them.

    decoders  ->  ClipFrames, one a video  ->  batches  ->  network  ->  outputs by video

Every stage holds a bounded number of frames, whatever the length and the number of the videos.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from i3dzoo.errors import I3DZooError, VideoError
from i3dzoo.video.bad_videos import BadVideo
from i3dzoo.video.decode_worker import Failed, Finished, Frames, Open, Opened, Read, Skip
from i3dzoo.video.info import VideoInfo
from i3dzoo.video.pipeline.batches import Batch, Batches
from i3dzoo.video.pipeline.clip_frames import ClipFrames
from i3dzoo.video.pipeline.decoders import Decoder, Decoders
from i3dzoo.video.pipeline.options import Forward, PipelineOptions, Planned
from i3dzoo.video.pipeline.outputs import Fetched, Outputs
from i3dzoo.video.plan import Plan


@dataclass(frozen=True, eq=False)
class KnownVideo:
    """A video that is planned without being opened, because an index describes it.

    Attributes:
        name: The video, as it is named.
        plan: Returns what the network takes of it.
    """

    name: str
    plan: Callable[[], Plan]


Named = str | Path | KnownVideo


def run_plans(
    forward: Forward,
    videos: Iterable[Named],
    plan: Callable[[VideoInfo], Plan] | None = None,
    options: PipelineOptions | None = None,
    on_clips: Callable[[int, int], object] | None = None,
) -> Iterator[Planned | BadVideo]:
    """Run a network on the clips of videos; a video that fails does not stop the others.

    Args:
        forward: The network.
        videos: The videos; taken as they are needed.
        plan: Returns what the network takes of a video. It is called once for each video, and once
            more for a file that turns out to be damaged. None if all videos are known.
        options: How videos are run.
        on_clips: Called with how many clips of a video are done, and how many it has.

    Yields:
        For each video its outputs, or why there are none: an `I3DZooError` of decoding it, of its
        plan, or of the network.
    """
    run = _Run(videos, plan, options or PipelineOptions(), on_clips)
    try:
        while not run.exhausted:
            try:
                for output in forward(run.batches()):
                    run.collect(output)
                    yield from run.results()
                run.collect(None)
            except I3DZooError as error:
                run.fail_batches(error)
            yield from run.results()
    finally:
        run.close()


@dataclass(eq=False)
class _Video:
    """A video that is being run."""

    name: str
    decoder: Decoder
    plan: Plan | None = None
    frames: ClipFrames | None = None
    outputs: Outputs | None = None
    attempt: int = 0  # of reading it
    decoded: bool = False
    result: Planned | BadVideo | None = None

    @property
    def complete(self) -> bool:
        """Whether all outputs are there, and the file is what it was planned as."""
        return self.decoded and self.outputs is not None and self.outputs.complete


_Route = tuple[_Video, int, int, int]  # video, attempt, clip, crop


class _Run:
    def __init__(
        self,
        videos: Iterable[Named],
        plan: Callable[[VideoInfo], Plan] | None,
        options: PipelineOptions,
        on_clips: Callable[[int, int], object] | None,
    ) -> None:
        self.planner, self.options, self.on_clips = plan, options, on_clips
        self._videos = iter(videos)
        count = len(videos) if isinstance(videos, Sequence) else None
        workers, threads = options.decoders(count)
        processes = options.on_gpu if options.processes is None else options.processes
        self._planar = options.on_gpu if options.planar is None else options.planar
        self._decoders = Decoders(
            workers,
            processes=processes,
            threads=threads,
            pin=options.on_gpu,
            nvdec=options.nvdec(count),
            gpu=options.gpu,
        )
        self._ahead = 4 * workers + 2 * options.batch_size  # videos that wait for an earlier one
        self._started: deque[_Video] = deque()  # in order, those whose result was not yielded
        self._decoding: dict[Decoder, _Video] = {}
        self._batches: Batches[_Route] = Batches(options.device, options.batch_size)
        self._running: deque[list[_Route]] = deque()  # the routes of batches that the network has
        self._output: tuple[list[_Route], Fetched] | None = None  # may still be computed
        self._all_started = False
        self._work = self._produce()

    @property
    def exhausted(self) -> bool:
        """Whether every video has had its result."""
        return self._all_started and not self._started

    def batches(self) -> Iterator[Tensor]:
        """Yield batches; the end means that results are ready, or that all videos have ended.

        The work goes on where it stopped if a network failed and another call takes the rest.
        """
        while (batch := next(self._work)) is not None:
            yield batch

    def _produce(self) -> Iterator[Tensor | None]:
        """Yield batches, and None where results should be taken first."""
        while True:
            yield from self._start_videos()
            if self._ready() and not self._running and self._output is None:
                yield None
            elif self._decoding:
                for decoder, answer in self._decoders.answers():
                    yield from self._handle(self._decoding[decoder], answer)
            elif self._batches:  # nothing can fill them
                yield self._run(self._batches.end())
            else:
                yield None

    def _start_videos(self) -> Iterator[Tensor]:
        while not self._all_started:
            if self.options.ordered and len(self._started) >= self._ahead:
                return
            decoder = self._decoders.idle()
            if decoder is None:
                return
            named = next(self._videos, None)
            if named is None:
                self._all_started = True
                self._decoders.release(decoder)
                return
            name = named.name if isinstance(named, KnownVideo) else str(named)
            video = _Video(name, decoder)
            self._started.append(video)
            self._decoding[decoder] = video
            if isinstance(named, KnownVideo):
                yield from self._handle(video, named)
                continue
            channels = self.options.channels
            if not isinstance(channels, str):
                channels = channels(Path(named))
            decoder.send(Open(Path(named), channels, self.options.quick))

    def _handle(self, video: _Video, answer: Any) -> Iterator[Tensor]:
        decoder = video.decoder
        try:
            if isinstance(answer, Failed):
                if answer.error is None:
                    raise RuntimeError(f"{video.name}: decoding failed:\n{answer.crash}")
                crashed = decoder.crashed
                why = VideoError(f"{video.name}: {answer.error}") if crashed else answer.error
                self._fail(video, why)
            elif isinstance(answer, KnownVideo):
                yield from self._read(video, answer.plan(), checked=True)
                return
            elif isinstance(answer, Opened):
                plan = self._plan(answer.info)
                checked = answer.checked or plan.info is not answer.info
                yield from self._read(video, plan, checked)
                return
            elif isinstance(answer, Frames):
                pixels = decoder.take(answer, self.options.device)
                if video.frames is not None and video.result is None:
                    for clip, crop in video.frames.add(pixels):
                        yield from self._add(video, clip, crop)
                return
            elif isinstance(answer, Finished):
                if answer.changed is not None and video.result is None:
                    yield from self._read(video, self._plan(answer.changed), checked=True)
                    return
                video.decoded = True
                self._complete(video)
        except I3DZooError as error:
            self._fail(video, error)
            if isinstance(answer, Frames):
                decoder.send(Skip())
                return
        video.frames = None
        del self._decoding[decoder]
        self._decoders.release(decoder)

    def _plan(self, info: VideoInfo) -> Plan:
        assert self.planner is not None  # noqa: S101 - videos that are opened need one
        return self.planner(info)

    def _read(self, video: _Video, plan: Plan, checked: bool) -> Iterator[Tensor]:
        """Have the clips of a plan decoded."""
        video.attempt += 1
        video.plan, video.frames = None, None
        video.outputs = Outputs(len(plan.clips), len(plan.crops))
        video.frames = ClipFrames(plan, self.options.device) if plan.clips else None
        video.plan = plan
        wanted = np.zeros(0, np.int64) if video.frames is None else video.frames.wanted
        video.decoder.send(Read(plan.info, wanted, checked, self._planar))
        if video.frames is not None:
            for clip, crop in video.frames.ready():  # those of zeros
                yield from self._add(video, clip, crop)

    def _add(self, video: _Video, clip: int, crop: int) -> Iterator[Tensor]:
        """Add a clip to a batch, and yield the batch if it is full."""
        assert video.frames is not None  # noqa: S101 - it has made the clip
        plan = video.frames.plan
        edge, frames = plan.spec.crop, len(plan.clips[clip].indices)
        shape = (len(plan.spec.mean), frames, edge, edge)
        for ended in self._batches.make_room(shape):
            yield self._run(ended)
        place, full = self._batches.add(shape, (video, video.attempt, clip, crop))
        video.frames.write(clip, crop, place)
        if full is not None:
            yield self._run(full)

    def _run(self, batch: "Batch[_Route]") -> Tensor:
        self._running.append(batch.routes)
        return batch.filled

    def collect(self, output: Tensor | None) -> None:
        """Take the output of the next batch; None after the last one.

        On a GPU, an output is read when the batch after it was started, to wait for none.
        """
        before = self._output
        self._output = None if output is None else (self._running.popleft(), Fetched(output))
        if before is not None:
            self._assign(*before)
        if self._output is not None and self._output[1].ready:
            self._assign(*self._output)
            self._output = None

    def _assign(self, routes: list[_Route], output: Fetched) -> None:
        rows = output.array()
        for row, (video, attempt, clip, crop) in zip(rows, routes, strict=True):
            if video.outputs is None or attempt != video.attempt or video.plan is None:
                continue
            video.outputs.add(clip, crop, row)
            if self.on_clips is not None:
                done = video.outputs.count // len(video.plan.crops)
                self.on_clips(done, len(video.plan.clips))
            self._complete(video)

    def _complete(self, video: _Video) -> None:
        if video.complete and video.outputs is not None and video.plan is not None:
            video.result = Planned(video.name, video.plan, video.outputs.arrays())
            video.outputs = None

    def _fail(self, video: _Video, error: I3DZooError) -> None:
        if video.result is None:
            video.result = BadVideo(video.name, str(error), error)
            video.frames = video.outputs = None

    def fail_batches(self, error: I3DZooError) -> None:
        """Fail the videos whose clips the network had when it raised an error."""
        self.collect(None)
        while self._running:
            for video, *_ in self._running.popleft():
                if video.result is None and self._decoding.get(video.decoder) is video:
                    video.decoder.send(Skip())
                self._fail(video, error)

    def _ready(self) -> bool:
        if self.options.ordered:
            return bool(self._started) and self._started[0].result is not None
        return any(video.result is not None for video in self._started)

    def results(self) -> Iterator[Planned | BadVideo]:
        """Yield the results that are ready."""
        if self.options.ordered:
            while self._started and self._started[0].result is not None:
                result = self._started.popleft().result
                if result is not None:
                    yield result
            return
        for video in [video for video in self._started if video.result is not None]:
            self._started.remove(video)
            if video.result is not None:
                yield video.result

    def close(self) -> None:
        """End the decoders."""
        self._decoders.close()
