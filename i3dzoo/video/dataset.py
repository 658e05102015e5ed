"""A prepared dataset as PyTorch takes it: clips, cut and augmented, as uint8.

```python
from i3dzoo.metadata import default_input
from i3dzoo.video import TRAIN, MULTI, VideoDataset, loader, normalise

spec = default_input("rgb")
train = VideoDataset("data/hmdb51", spec, split=1, role="train", sampling=TRAIN, seed=0)
for epoch in range(epochs):
    train.set_epoch(epoch)
    for batch in loader(train, batch_size=8, workers=4, shuffle=True):
        inputs = normalise(batch.clips.to(device), spec)  # float32 [8, 3, 64, 224, 224]
        loss = cross_entropy(network(inputs), batch.labels.to(device))
```
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from i3dzoo.errors import DatasetError, MissingFileError, ShapeError, VideoError
from i3dzoo.metadata import Input
from i3dzoo.video.cache import FrameCache
from i3dzoo.video.decode import stream
from i3dzoo.video.index import Entry, Index, read_index
from i3dzoo.video.records import Frames, VideoInfo
from i3dzoo.video.sampling import Clip, clip_at, clips, resample, whole
from i3dzoo.video.splits import Role
from i3dzoo.video.transforms import resize_frames, resized_size

__all__ = [
    "CENTRE",
    "MULTI",
    "TRAIN",
    "WHOLE",
    "BadVideo",
    "Sample",
    "Sampling",
    "VideoDataset",
    "together",
]

MINIMUM_FRAMES = 9
"""Fewest frames that the network takes; a shorter video is looped to this even when whole."""

Indices = npt.NDArray[np.int64]

_CHUNK = 32  # frames that are held in their own size at once
_MOST_SUBSTITUTES = 100


@dataclass(frozen=True)
class Sampling:
    """Which views of a video make up its sample.

    Attributes:
        time: `random`: one window anywhere; `centre`: the middle one; `multi`: `clips` windows
            evenly spread; `whole`: all frames as one clip. Windows have `Input.frames` frames, and
            short videos are looped.
        clips: Windows of `multi`; a video that is too short for different ones has fewer.
        crop: `random`: a square anywhere, the same in all frames; `centre`; `three`: the ends
            and the middle of the long side, each a view of its own.
        flip: Probability of mirroring a sample; optical flow then has its x negated.
    """

    time: Literal["random", "centre", "multi", "whole"] = "centre"
    clips: int = 1
    crop: Literal["random", "centre", "three"] = "centre"
    flip: float = 0.0


TRAIN = Sampling("random", crop="random", flip=0.5)
"""As the authors train: a random window and square, mirrored by chance."""
CENTRE = Sampling("centre")
"""The middle window and square: quick, and what NVIDIA TAO evaluates."""
MULTI = Sampling("multi", clips=10, crop="three")
"""Ten windows by three squares, whose logits are averaged."""
WHOLE = Sampling("whole")
"""The whole video at once, as the authors test."""


@dataclass(frozen=True)
class BadVideo:
    """A video that could not be used, and why."""

    file: str
    reason: str


@dataclass(frozen=True, eq=False)
class Sample:
    """A video's views.

    Attributes:
        index: Of the video in the dataset whose views these are.
        label: Number of its class.
        views: uint8 [V, C, T, crop, crop], clip by clip and, within a clip, crop by crop, in
            `torch.channels_last_3d` order of memory; None where the video was skipped.
        bad: The videos that were skipped for this sample.
    """

    index: int
    label: int
    views: torch.Tensor | None
    bad: tuple[BadVideo, ...] = ()


class VideoDataset(Dataset[Sample]):
    """Videos of one role of one split.

    A sample depends on seed, epoch and its number alone, so that workers, their number and the
    order in which samples are asked for change nothing.

    Attributes:
        index: The dataset on disk.
        entries: The videos of this role.
        spec: What the network takes.
        sampling: Which views a sample has.
        labels: Number of each video's class, in the order of `index.classes`.
        unusable: Videos of this role that are none of `entries`, and why.
    """

    def __init__(
        self,
        data: str | Path | Index,
        spec: Input,
        split: int | None = None,
        role: Role | None = None,
        sampling: Sampling = CENTRE,
        *,
        seed: int = 0,
        on_bad_video: Literal["error", "skip"] = "error",
        cache: FrameCache | None = None,
        threads: int = 1,
    ) -> None:
        """Choose the videos; none is opened.

        Args:
            data: An index, its path, the folder that holds it, or a folder in TAO's layout.
            spec: What the network takes, from its checkpoint's metadata: channels (`xy` reads
                optical flow), frames, rate, sizes.
            split: 1, 2 or 3; None, together with `role`, for all videos.
            role: `train` or `test`.
            sampling: `TRAIN`, `CENTRE`, `MULTI`, `WHOLE`, or one of your own.
            seed: Of windows, crops and flips.
            on_bad_video: `error` raises at a video that cannot be read, or that the index calls
                unusable. `skip` goes on: where windows are random, the latter are left out, and of
                the former the next video that can be read takes the place, so that batches stay
                full; elsewhere the sample has no views. A video that is not left out is in the
                `bad` of its sample, and of the batch.
            cache: Keeps decoded frames; to be shared by the datasets of a run.
            threads: Threads that decode one video; more help only a process without workers.

        Raises:
            MissingFileError: There is no such dataset.
            DatasetError: It is malformed, or no video has this role, or one is unusable and
                `on_bad_video` is `error`, or all are.
            ShapeError: The crop is larger than the short side.
        """
        self.index = data if isinstance(data, Index) else read_index(data)
        self.spec, self.sampling, self.seed = spec, sampling, seed
        self.on_bad_video, self.cache, self.threads = on_bad_video, cache, threads
        self.entries, self.unusable = self._select(split, role)
        numbers = {label: number for number, label in enumerate(self.index.classes)}
        self.labels = tuple(numbers[entry.label] for entry in self.entries)
        if spec.resize is not None and spec.resize < spec.crop:
            raise ShapeError(f"the short side of {spec.resize} is less than the crop {spec.crop}")
        # Shared memory, because workers that persist have their own copy of this object.
        epoch = torch.zeros((), dtype=torch.int64)
        self._epoch: torch.Tensor = epoch.share_memory_()  # type: ignore[no-untyped-call] # torch has no type for it
        self._cached = self._reserve()

    def _select(
        self, split: int | None, role: Role | None
    ) -> tuple[tuple[Entry, ...], tuple[BadVideo, ...]]:
        """Return the videos of a role, and those that are left out."""
        every, root = self.index.select(split, role), self.index.root
        unusable = [entry for entry in every if entry.error is not None]
        if unusable and (self.on_bad_video == "error" or len(unusable) == len(every)):
            some = self.on_bad_video == "error"
            raise DatasetError(
                f"{root}: {len(unusable)} of {len(every)} videos cannot be used, "
                f"the first is {unusable[0].file} ({unusable[0].error})"
                f"{'; pass --on-bad-video skip to go on without them' if some else ''}"
            )
        if self.sampling.time != "random":
            return every, ()
        bad = tuple(
            BadVideo(entry.file, f"{root / entry.file}: {entry.error}") for entry in unusable
        )
        return tuple(entry for entry in every if entry.error is None), bad

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def epoch(self) -> int:
        """The epoch that samples are drawn for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw other windows, crops and flips from now on; workers that run already see it."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self.entries):
            raise IndexError(f"video {index} is wanted; the dataset has {len(self.entries)}")
        return together([self], index)[0]

    def _drawn(self, place: int, epoch: int | None, index: int, attempt: int) -> torch.Tensor:
        key = (self.seed, self.epoch if epoch is None else epoch, index, attempt)
        return self._views(place, np.random.default_rng(key))

    def _views(self, place: int, random: np.random.Generator) -> torch.Tensor:
        info = self.index.info(self.entries[place], self.spec.channels)
        chosen = self._clips(info, random)
        wanted = np.unique(np.concatenate([clip.indices for clip in chosen]))
        height, width = self._size(info)
        edge = self.spec.crop
        if min(height, width) < edge:
            raise ShapeError(
                f"{info.path}: frames of {info.width}x{info.height} pixels are smaller than the "
                f"crop of {edge}; set input.resize to {edge} or more"
            )
        corners = self._corners(height, width, random)
        flip = bool(random.random() < self.sampling.flip)
        squares = self._squares(place, info, wanted, corners, flip)
        every = np.arange(len(wanted))
        views = []
        for row in (np.searchsorted(wanted, clip.indices) for clip in chosen):
            # a window of frames that come once each is there already
            views += squares if np.array_equal(row, every) else [square[row] for square in squares]
        joined = views[0][None] if len(views) == 1 else np.stack(views)
        return torch.from_numpy(joined).permute(0, 4, 1, 2, 3)

    def _clips(self, info: VideoInfo, random: np.random.Generator) -> list[Clip]:
        samples = resample(info, self.spec.fps)
        if self.sampling.time == "whole":
            return [whole(samples, MINIMUM_FRAMES)]
        frames = self.spec.frames
        if self.sampling.time == "random":
            first = _draw(random, max(len(samples) - frames, 0) + 1)
            return [clip_at(samples, first, frames)]
        return clips(samples, frames, self.sampling.clips if self.sampling.time == "multi" else 1)

    def _corners(
        self, height: int, width: int, random: np.random.Generator
    ) -> list[tuple[int, int]]:
        """Return the top left corner of every crop."""
        down, across = height - self.spec.crop, width - self.spec.crop
        if self.sampling.crop == "random":
            return [(_draw(random, down + 1), _draw(random, across + 1))]
        middle = down // 2, across // 2
        if self.sampling.crop == "centre":
            return [middle]
        if across >= down:
            return [(middle[0], 0), middle, (middle[0], across)]
        return [(0, middle[1]), middle, (down, middle[1])]

    def _squares(
        self,
        place: int,
        info: VideoInfo,
        wanted: Indices,
        corners: list[tuple[int, int]],
        flip: bool,
    ) -> list[Frames]:
        """Return each crop of the wanted frames, uint8 [U, crop, crop, C]."""
        # NumPy, not PyTorch: copies as small as these are done before PyTorch's threads wake up.
        edge, depth, count = self.spec.crop, len(self.spec.mean), len(wanted)
        squares = [np.empty((count, edge, edge, depth), dtype=np.uint8) for _ in corners]
        done = 0
        for chunk in self._resized(place, info, wanted):
            for square, (top, left) in zip(squares, corners, strict=True):
                part = chunk[:, top : top + edge, left : left + edge]
                square[done : done + len(chunk)] = part
            done += len(chunk)
        if flip:
            # PyTorch, for NumPy takes six times as long to turn around what has three channels
            squares = [torch.from_numpy(square).flip(2).numpy() for square in squares]
        if flip and self.spec.channels == "xy":
            # p stands for (p / 255 * 2 - 1) * bound, so 255 - p stands for its negative, exactly.
            for square in squares:
                square[..., 0] = 255 - square[..., 0]
        return squares

    def _resized(self, place: int, info: VideoInfo, wanted: Indices) -> Iterator[Frames]:
        """Yield the wanted frames, some at a time, in their final size: uint8 [n, h, w, C]."""
        if self.cache is None or place not in self._cached:
            yield from _decoded(info, wanted, self._size(info), self.threads)
            return
        shape = (info.frames, *self._size(info), len(self.spec.mean))

        def fill(frames: Frames) -> None:
            done = 0
            every = np.arange(info.frames, dtype=np.int64)
            for chunk in _decoded(info, every, self._size(info), self.threads):
                frames[done : done + len(chunk)] = chunk
                done += len(chunk)

        frames = self.cache.frames(_key(info, shape), shape, fill)
        for index in wanted.tolist():
            yield frames[index : index + 1]  # a view: of a cached frame only the crop is read

    def _size(self, info: VideoInfo | Entry) -> tuple[int, int]:
        if self.spec.resize is None:
            return info.height, info.width
        return resized_size(info.height, info.width, self.spec.resize)

    def _reserve(self) -> frozenset[int]:
        """Choose the videos that are cached: the first ones for which there is room."""
        chosen = set()
        for place, entry in enumerate(self.entries):
            if self.cache is None or entry.error is not None:
                continue
            if self.spec.channels == "xy" and entry.flow is None:
                continue
            info = self.index.info(entry, self.spec.channels)
            height, width = self._size(info)
            if self.cache.reserve(info.frames * height * width * len(self.spec.mean) + 128):
                chosen.add(place)
        return frozenset(chosen)


def together(
    datasets: Sequence[VideoDataset], index: int, epoch: int | None = None
) -> list[Sample]:
    """Return the samples of one video from data sets of the same videos, such as RGB and flow.

    A video that one of them cannot read is bad for all, so that what is returned is of one video.

    Args:
        datasets: Of the same videos, sampled alike.
        index: Number of the video.
        epoch: That samples are drawn for; None takes each data set's own.

    Raises:
        VideoError, MissingFileError, DatasetError: It is bad, and bad videos are errors; or too
            many in a row are bad.
    """
    first = datasets[0]
    bad: list[BadVideo] = []
    drawn = first.sampling.time == "random"
    tries = min(len(first), _MOST_SUBSTITUTES) if drawn else 1
    for attempt in range(tries):
        place = (index + attempt) % len(first)
        try:
            views = [each._drawn(place, epoch, index, attempt) for each in datasets]
        except (VideoError, MissingFileError, DatasetError, OSError) as error:
            if first.on_bad_video == "error":
                raise
            bad.append(BadVideo(first.entries[place].file, str(error)))
            continue
        return [
            Sample(place, each.labels[place], found, tuple(bad))
            for each, found in zip(datasets, views, strict=True)
        ]
    if drawn:
        raise DatasetError(
            f"{tries} videos in a row cannot be read, the last {bad[-1].file}: {bad[-1].reason}"
        )
    return [Sample(index, each.labels[index], None, tuple(bad)) for each in datasets]


def _draw(random: np.random.Generator, count: int) -> int:
    """Draw one of 0..count-1, by one number whatever `count` is.

    So the same video's flow, which is a frame shorter, gets the crop and the flip of its RGB.
    """
    return min(int(random.random() * count), count - 1)


def _decoded(
    info: VideoInfo, wanted: Indices, size: tuple[int, int], threads: int
) -> Iterator[Frames]:
    """Decode and resize a few frames at a time, uint8 [n, height, width, C]."""
    depth = 3 if info.channels == "rgb" else 2
    frames = stream(info, wanted, threads)
    for begin in range(0, len(wanted), _CHUNK):
        count = min(_CHUNK, len(wanted) - begin)
        held = np.empty((count, info.height, info.width, depth), dtype=np.uint8)
        for row in range(count):
            held[row] = next(frames)[1]
        yield resize_frames(torch.from_numpy(held), size).permute(0, 2, 3, 1).numpy()


def _key(info: VideoInfo, shape: tuple[int, ...]) -> str:
    return hashlib.sha256(f"{info.path.absolute()} {info.channels} {shape}".encode()).hexdigest()
