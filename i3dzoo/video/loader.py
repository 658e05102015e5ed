"""Load clips onto a device: batches of a dataset in worker processes, or the clips of one video."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from i3dzoo.checkpoints.metadata import Input, Stream
from i3dzoo.errors import ShapeError
from i3dzoo.network.architecture import MIN_FRAMES
from i3dzoo.video import sampling
from i3dzoo.video.bad_videos import BadVideo
from i3dzoo.video.dataset import Sample
from i3dzoo.video.decode import probe
from i3dzoo.video.info import VideoInfo
from i3dzoo.video.pipeline import load_plan
from i3dzoo.video.plan import Plan, resize_of
from i3dzoo.video.sampling import Clip
from i3dzoo.video.shared_memory import Filled, SharedBuffer

_PREFETCH = 2  # batches that each worker decodes ahead
_PINNING_THREADS = 3  # each copies about 1 GB/s; most of that time goes to page faults


@dataclass(frozen=True, eq=False)
class Batch:
    """The views of several videos. Videos that were skipped are only named in `bad`.

    Attributes:
        clips: By stream: [N, C, T, H, W], N being the number of views of all videos; empty if all
            videos were skipped. The loader gives uint8 in `torch.channels_last_3d` memory order.
        labels: Class of each video, int64 [B].
        videos: Number of each video in the dataset; B numbers.
        views: Number of views of each video; B numbers whose sum is N.
        bad: The videos that were skipped.
    """

    clips: Mapping[Stream, Tensor]
    labels: Tensor
    videos: tuple[int, ...]
    views: tuple[int, ...]
    bad: tuple[BadVideo, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on a device; from pinned memory the copy is asynchronous."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Return the batch in pinned memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        clips = {stream: function(clips) for stream, clips in self.clips.items()}
        return dataclasses.replace(self, clips=clips, labels=function(self.labels))

    def first(self, count: int) -> "Batch":
        """Return the first videos of a batch that has one view a video."""
        clips = {stream: clips[:count] for stream, clips in self.clips.items()}
        return Batch(clips, self.labels[:count], self.videos[:count], self.views[:count])

    def mean(self, logits: Tensor) -> Tensor:
        """Average the logits of the views, [N, K], over the views of each video: [B, K]."""
        if not len(self):
            return logits.new_zeros((0, *logits.shape[1:]))
        return torch.stack([views.mean(0) for views in torch.split(logits, list(self.views))])


class SampleSource(Protocol):
    """A dataset whose samples depend only on the epoch and their number, such as `VideoDataset`."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in the order of the logits."""

    @property
    def labels(self) -> Sequence[int]:
        """Class of each sample."""

    @property
    def clip_shapes(self) -> Mapping[Stream, tuple[int, int, int, int]] | None:
        """Shape of each clip by stream, [C, T, H, W], if every sample has one uint8 clip of it."""

    def sample(self, epoch: int, number: int) -> Sample:
        """Return one sample."""

    def normalise(self, stream: Stream, clips: Tensor) -> Tensor:
        """Return clips [N, C, T, H, W] as the network of a stream takes them: float32."""


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the batches of one epoch, shuffled; an incomplete last batch is left out.

    If there are fewer than `batch_size` samples, they make one batch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(count).tolist()
    whole = max(count // batch_size, 1)
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(whole)]


def load_batches(
    source: SampleSource,
    batches: Iterable[tuple[int, Sequence[int]]],
    *,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Iterator[Batch]:
    """Load batches; they are the same for any number of workers.

    Args:
        source: The dataset.
        batches: Epoch and sample numbers of each batch. They are consumed as they are needed, so
            workers continue from one epoch to the next without a pause.
        device: Device of the batches.
        workers: Number of processes that decode; 0 decodes in this process.

    Yields:
        The batches, in order. Clips are as in the samples, uint8 for `VideoDataset`, so that a
        quarter of the bytes of float32 goes to the device; `normalise` makes the network's input.

    Raises:
        ShapeError: Clips of one batch differ in length, as whole videos do.
    """
    device = torch.device(device)
    keys = ([(epoch, number) for number in numbers] for epoch, numbers in batches)
    shapes = source.clip_shapes
    if workers and device.type == "cuda" and shapes and (first := next(keys, None)):
        keys, slots = chain([first], keys), workers * _PREFETCH + 2  # type: ignore[assignment] # also an iterator
        if SharedBuffer.fits(shapes, len(first), slots):
            buffer = SharedBuffer(shapes, len(first), slots)
            yield from load_shared(buffer, source, keys, device, workers)
            return
    for batch in pinned(_decoded(source, keys, workers, _collate), device):
        yield batch.to(device)


def load_shared(
    buffer: SharedBuffer,
    source: SampleSource,
    keys: Iterator[list[tuple[int, int]]],
    device: torch.device,
    workers: int,
) -> Iterator[Batch]:
    """Load batches of (epoch, number) through shared memory that the workers write to."""
    filled: Any = iter(_decoded(source, keys, workers, partial(_fill, buffer)))
    if device.type == "cuda":
        buffer.pin()
    moved: Any = buffer.to_device(filled, device)
    try:
        for clips, batch in moved:
            labels = batch.labels.to(device, non_blocking=True)
            yield dataclasses.replace(batch, clips=clips, labels=labels)
    finally:
        moved.close()  # ends its thread
        buffer.unpin()


def load_clips(
    info: VideoInfo, clips: Sequence[Clip], spec: Input, device: torch.device | str = "cpu"
) -> Iterator[tuple[Clip, Tensor]]:
    """Decode a video once and yield its clips as input of the network.

    Frames are resized and cropped as they are decoded. Only the cropped frames that clips still
    need are held, whatever the length of the video and the overlap of its clips.
    `i3dzoo.video.pipeline.run_plans` decodes ahead, and several videos at once.

    Args:
        info: Description of the video.
        clips: Clips of the video, in the order of their first frames.
        spec: Input of the network.
        device: Device of the inputs.

    Yields:
        Each clip and its input, float32 [C, T, crop, crop].

    Raises:
        VideoError: The video has changed since it was probed.
        ShapeError: Its frames are smaller than the crop.
    """
    if clips:
        plan = Plan(info, tuple(clips), spec, resize_of(spec))
        for clip, pixels in zip(clips, load_plan(plan, device), strict=True):
            yield clip, pixels[0]


def centre_clip(path: Path, spec: Input) -> Tensor:
    """Return the centre clip of a video as input of a network, float32 [C, T, crop, crop]."""
    info = probe(path, spec.decoded)
    samples = sampling.resample(info, spec.fps)
    ((_, clip),) = load_clips(info, sampling.clips(samples, max(spec.frames, MIN_FRAMES), 1), spec)
    return clip


def pinned(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches in order, in pinned memory if they are for a GPU.

    Three threads pin ahead; the single pinning thread of DataLoader is too slow for a GPU.
    """
    if device.type != "cuda":
        yield from batches
        return
    with ThreadPoolExecutor(_PINNING_THREADS) as pool:
        ahead: deque[Future[Batch]] = deque()
        for batch in batches:
            ahead.append(pool.submit(batch.pin_memory))
            if len(ahead) > _PINNING_THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class _ByKey(Dataset[Sample]):
    """Samples by (epoch, number), so that workers need not learn of a new epoch."""

    def __init__(self, source: SampleSource) -> None:
        self.source = source

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        return self.source.sample(*key)


def _decoded(
    source: SampleSource,
    keys: Iterator[list[tuple[int, int]]],
    workers: int,
    collate: Callable[[list[Sample]], Any],
) -> Iterable[Any]:
    return DataLoader(
        _ByKey(source),
        batch_sampler=keys,
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=_PREFETCH if workers else None,
    )


def _collate(samples: list[Sample]) -> Batch:
    present = [sample for sample in samples if sample.views]
    clips: dict[Stream, Tensor] = {}
    for stream in present[0].views if present else ():
        views = [sample.views[stream] for sample in present]
        lengths = sorted({view.shape[2] for view in views})
        if len(lengths) > 1:
            raise ShapeError(
                f"clips of {lengths[0]} and {lengths[-1]} frames are in one batch; "
                "load whole videos with a batch size of 1"
            )
        # Join in the memory order of the views, channels last; any other order is a transposition.
        joined = torch.cat([view.permute(0, 2, 3, 4, 1) for view in views])
        clips[stream] = joined.permute(0, 4, 1, 2, 3)
    return dataclasses.replace(_without_clips(samples), clips=clips)


def _without_clips(samples: list[Sample]) -> Batch:
    present = [sample for sample in samples if sample.views]
    return Batch(
        {},
        torch.tensor([sample.label for sample in present], dtype=torch.int64),
        tuple(sample.video for sample in present),
        tuple(len(next(iter(sample.views.values()))) for sample in present),
        tuple(bad for sample in samples for bad in sample.bad),
    )


def _fill(buffer: SharedBuffer, samples: list[Sample]) -> Filled:
    clips = [{stream: view[0] for stream, view in s.views.items()} for s in samples if s.views]
    return buffer.fill(clips, _without_clips(samples))
