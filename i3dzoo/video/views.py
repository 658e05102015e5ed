"""Cut views out of a video: choose frames and squares, decode, resize, crop and mirror them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from i3dzoo.checkpoints.metadata import Input
from i3dzoo.errors import ShapeError
from i3dzoo.network.architecture import MIN_FRAMES
from i3dzoo.video.cache import FrameCache
from i3dzoo.video.decode import stream
from i3dzoo.video.index import Entry, Index
from i3dzoo.video.info import Frames, VideoInfo
from i3dzoo.video.plan import CROPS, Crop, Plan, resize_of
from i3dzoo.video.sampling import (
    Clip,
    Samples,
    clip_at,
    clips,
    interval_clip,
    resample,
    segment,
    whole,
)
from i3dzoo.video.transforms import frame_size, resize_frames

Indices = npt.NDArray[np.int64]

_CHUNK = 32  # full-size frames that are held at once, and the most bytes of them
_CHUNK_BYTES = 1 << 26


@dataclass(frozen=True)
class Sampling:
    """Which views of a video make up its sample.

    Attributes:
        time: `random`: one window anywhere; `centre`: the middle window; `multi`: `clips` windows
            at even steps; `whole`: all frames as one clip. A window has `Input.frames` frames;
            shorter videos are looped.
        clips: Number of windows of `multi`; a video with fewer different windows gives fewer.
        crop: `random`: a square anywhere, the same in all frames; `centre`: the middle square;
            `three`: the squares at both ends and in the middle of the long side, a view each.
        flip: Probability that a sample is mirrored; mirrored optical flow has its x negated.
    """

    time: Literal["random", "centre", "multi", "whole"] = "centre"
    clips: int = 1
    crop: Literal["random", "centre", "three"] = "centre"
    flip: float = 0.0

    @property
    def crops(self) -> tuple[Crop, ...]:
        """The squares that are not drawn."""
        return CROPS[3 if self.crop == "three" else 1]


TRAIN = Sampling("random", crop="random", flip=0.5)
"""A random window and a random square, mirrored half of the time, as the authors train."""
CENTRE = Sampling("centre")
"""The middle window and the middle square: fast, and how NVIDIA TAO evaluates."""
MULTI = Sampling("multi", clips=10, crop="three")
"""Ten windows by three squares, whose logits are averaged."""
WHOLE = Sampling("whole")
"""The whole video as one clip, as the authors test."""


class ViewReader:
    """Reads views of the videos of one stream; the cache reserves room for those that fit."""

    def __init__(
        self,
        index: Index,
        entries: Sequence[Entry],
        spec: Input,
        sampling: Sampling,
        cache: FrameCache | None = None,
        threads: int = 1,
    ) -> None:
        if spec.resize_mode == "short" and spec.resize is not None and spec.resize < spec.crop:
            raise ShapeError(f"the short side of {spec.resize} is less than the crop {spec.crop}")
        self.index, self.entries, self.spec, self.sampling = index, entries, spec, sampling
        self.cache, self.threads = cache, threads
        self._cached = self._reserve()

    def plan(self, video: int) -> Plan:
        """Return the views of a video, none of which is random; their pixels are those of `read`.

        Raises:
            DatasetError, VideoError: The video has no such views.
        """
        info = self.index.info(self.entries[video], self.spec.decoded)
        resize = replace(resize_of(self.spec), interpolation="uint8")
        windows = self._windows(self._samples(video, info))
        return Plan(info, tuple(windows), self.spec, resize, self.sampling.crops)

    def read(self, video: int, random: np.random.Generator) -> torch.Tensor:
        """Read the views of a video; `random` draws the window, the square and the mirroring.

        They are uint8 [V, C, T, crop, crop], clip by clip and, within a clip, crop by crop, in
        `torch.channels_last_3d` memory order.
        """
        info = self.index.info(self.entries[video], self.spec.decoded)
        samples = self._samples(video, info)
        if self.sampling.time == "random":
            windows = [self._random_window(samples, random)]
        else:
            windows = self._windows(samples)
        wanted = np.unique(np.concatenate([clip.indices for clip in windows]))
        height, width = self._size(info)
        edge = self.spec.crop
        if min(height, width) < edge:
            raise ShapeError(
                f"{info.path}: frames of {info.width}x{info.height} pixels are smaller than the "
                f"crop of {edge}; set input.resize to {edge} or more"
            )
        corners = self._corners(height, width, random)
        flip = bool(random.random() < self.sampling.flip)
        squares = self._squares(video, info, wanted, corners, flip)
        positions = np.arange(len(wanted))
        views = []
        for rows in (np.searchsorted(wanted, clip.indices) for clip in windows):
            # The squares already are the view if every frame occurs once.
            same = np.array_equal(rows, positions)
            views += squares if same else [square[rows] for square in squares]
        joined = views[0][None] if len(views) == 1 else np.stack(views)
        return torch.from_numpy(joined).permute(0, 4, 1, 2, 3)

    def _samples(self, video: int, info: VideoInfo) -> Samples:
        entry = self.entries[video]
        return segment(resample(info, self.spec.fps), entry.start, entry.end)

    def _random_window(self, samples: Samples, random: np.random.Generator) -> Clip:
        frames = self.spec.frames
        if self.spec.sampling == "interval":
            return interval_clip(samples, frames, lambda count: _draw(random, count))
        return clip_at(samples, _draw(random, max(len(samples) - frames, 0) + 1), frames)

    def _windows(self, samples: Samples) -> list[Clip]:
        if self.sampling.time == "whole":
            return [whole(samples, MIN_FRAMES, self.spec.crop)]
        count = self.sampling.clips if self.sampling.time == "multi" else 1
        return clips(samples, self.spec.frames, count, self.spec.sampling)

    def _corners(
        self, height: int, width: int, random: np.random.Generator
    ) -> list[tuple[int, int]]:
        """Return the top left corner of every crop."""
        edge = self.spec.crop
        if self.sampling.crop == "random":
            return [(_draw(random, height - edge + 1), _draw(random, width - edge + 1))]
        return [crop.corner(height, width, edge) for crop in self.sampling.crops]

    def _squares(
        self,
        video: int,
        info: VideoInfo,
        wanted: Indices,
        corners: list[tuple[int, int]],
        flip: bool,
    ) -> list[Frames]:
        """Return each crop of the wanted frames, uint8 [U, crop, crop, C]."""
        # NumPy is faster than PyTorch for copies as small as these.
        edge, depth, count = self.spec.crop, len(self.spec.mean), len(wanted)
        squares = [np.empty((count, edge, edge, depth), dtype=np.uint8) for _ in corners]
        done = 0
        for chunk in self._resized(video, info, wanted):
            for square, (top, left) in zip(squares, corners, strict=True):
                part = chunk[:, top : top + edge, left : left + edge]
                square[done : done + len(chunk)] = part
            done += len(chunk)
        if flip:
            # PyTorch is six times as fast as NumPy at mirroring arrays of three channels.
            squares = [torch.from_numpy(square).flip(2).numpy() for square in squares]
        if flip and self.spec.channels == "xy":
            # p stands for (p / 255 * 2 - 1) * bound, so 255 - p is exactly its negative.
            for square in squares:
                square[..., 0] = 255 - square[..., 0]
        return squares

    def _resized(self, video: int, info: VideoInfo, wanted: Indices) -> Iterator[Frames]:
        """Yield the wanted frames in chunks, at their final size: uint8 [n, h, w, C]."""
        if self.cache is None or video not in self._cached:
            yield from _decoded(info, wanted, self._size(info), self.threads)
            return
        shape = (info.frames, *self._size(info), len(self.spec.mean))

        def fill(frames: Frames) -> None:
            done = 0
            indices = np.arange(info.frames, dtype=np.int64)
            for chunk in _decoded(info, indices, self._size(info), self.threads):
                frames[done : done + len(chunk)] = chunk
                done += len(chunk)

        frames = self.cache.frames(_key(info, shape), shape, fill)
        for index in wanted.tolist():
            yield frames[index : index + 1]  # a view, so only the crop of the frame is read

    def _size(self, info: VideoInfo | Entry) -> tuple[int, int]:
        try:
            return frame_size(info.height, info.width, self.spec)
        except ShapeError as error:
            name = info.path if isinstance(info, VideoInfo) else self.index.root / info.file
            raise ShapeError(f"{name}: {error}") from error

    def _reserve(self) -> frozenset[int]:
        """Return the videos to cache: the first ones for which there is room."""
        chosen = set()
        for video, entry in enumerate(self.entries):
            if self.cache is None or entry.error is not None or entry.name != entry.file:
                continue  # of a segment, the cache would hold the whole video
            if self.spec.channels == "xy" and entry.flow is None:
                continue
            info = self.index.info(entry, self.spec.decoded)
            height, width = self._size(info)
            if self.cache.reserve(info.frames * height * width * len(self.spec.mean) + 128):
                chosen.add(video)
        return frozenset(chosen)


def _draw(random: np.random.Generator, count: int) -> int:
    """Draw one of 0..count-1 from one random number, so that flow and RGB draw the same."""
    return min(int(random.random() * count), count - 1)


def _decoded(
    info: VideoInfo, wanted: Indices, size: tuple[int, int], threads: int
) -> Iterator[Frames]:
    """Decode and resize frames in chunks, uint8 [n, height, width, C]."""
    depth = 3 if info.channels == "rgb" else 2
    frames = stream(info, wanted, threads)
    largest = max(info.height * info.width, size[0] * size[1]) * depth
    step = min(max(_CHUNK_BYTES // largest, 1), _CHUNK)
    for begin in range(0, len(wanted), step):
        count = min(step, len(wanted) - begin)
        held = np.empty((count, info.height, info.width, depth), dtype=np.uint8)
        for row in range(count):
            held[row] = next(frames)[1]
        yield resize_frames(torch.from_numpy(held), size).permute(0, 2, 3, 1).numpy()


def _key(info: VideoInfo, shape: tuple[int, ...]) -> str:
    return hashlib.sha256(f"{info.path.absolute()} {info.channels} {shape}".encode()).hexdigest()
