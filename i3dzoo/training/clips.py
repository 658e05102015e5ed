"""What is trained on, and how it comes to a device: each clip to just one process."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from i3dzoo.training.plan import share
from i3dzoo.training.ring import Ring
from i3dzoo.video import BadVideo

__all__ = ["Batch", "Clip", "Clips", "load", "pinned", "through"]

_AHEAD = 2  # batches that each worker decodes ahead
_PINNING = 3  # threads; each copies about 1 GB/s, most of which is faults of pages


@dataclass(frozen=True)
class Clip:
    """A clip.

    Attributes:
        views: By stream: [C, T, H, W], of any dtype that `normalise` takes.
        label: Its class.
        bad: The videos that it takes the place of, since they cannot be read.
    """

    views: Mapping[str, Tensor]
    label: int
    bad: tuple[BadVideo, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Some clips.

    Attributes:
        clips: By stream: float32 [B, C, T, H, W], ready for the network.
        labels: int64 [B].
        bad: The videos that others took the place of, since they cannot be read.
    """

    clips: Mapping[str, Tensor]
    labels: Tensor
    bad: tuple[BadVideo, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, count: int) -> "Batch":
        """Return the first `count` clips."""
        clips = {stream: clip[:count] for stream, clip in self.clips.items()}
        return Batch(clips, self.labels[:count])

    def pin_memory(self) -> "Batch":
        """Return the batch in pinned memory, from which copies to a GPU are asynchronous."""
        clips = {stream: clip.pin_memory() for stream, clip in self.clips.items()}
        return dataclasses.replace(self, clips=clips, labels=self.labels.pin_memory())


class _Pinnable(Protocol):
    def pin_memory(self) -> Self:
        """Return the same in pinned memory."""


_P = TypeVar("_P", bound=_Pinnable)


def pinned(batches: Iterable[_P], device: torch.device) -> Iterator[_P]:
    """Yield batches in pinned memory if they are for a GPU, some ahead, in the same order.

    The pages of what a worker sends are new to this process, and each costs a fault. The one thread
    that PyTorch has for this is too slow for a GPU that takes 200 clips a second.
    """
    if device.type != "cuda":
        yield from batches
        return
    with ThreadPoolExecutor(_PINNING) as pool:
        ahead: deque[Future[_P]] = deque()
        for batch in batches:
            ahead.append(pool.submit(batch.pin_memory))
            if len(ahead) > _PINNING:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class Clips(Protocol):
    """Labelled clips that are a function of epoch and number, whichever process asks."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in the order of the logits."""

    @property
    def labels(self) -> Sequence[int]:
        """Class of each clip."""

    def clip(self, epoch: int, number: int) -> Clip:
        """Return one clip."""

    def normalise(self, stream: str, clips: Tensor) -> Tensor:
        """Return clips [B, C, T, H, W] of a stream as its network takes them: float32."""


class _Numbered(Dataset[Clip]):
    """Clips by (epoch, number), so that workers need not be told of a new epoch."""

    def __init__(self, clips: Clips) -> None:
        self.clips = clips

    def __getitem__(self, key: tuple[int, int]) -> Clip:
        epoch, number = key
        return self.clips.clip(epoch, number)


class _Lazy(Sampler[list[tuple[int, int]]]):
    """Batches that are only known one after the other."""

    def __init__(self, keys: Iterator[list[tuple[int, int]]]) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.keys


def _collate(items: list[Clip]) -> Batch:
    views = {}
    for stream in items[0].views:
        # in the clips' own order of memory, channels last: anything else is a transposition
        rows = [item.views[stream].permute(1, 2, 3, 0) for item in items]
        views[stream] = torch.stack(rows).permute(0, 4, 1, 2, 3)
    return Batch(views, *_rest(items))


def _rest(items: list[Clip]) -> tuple[Tensor, tuple[BadVideo, ...]]:
    labels = torch.tensor([item.label for item in items])
    return labels, tuple(one for item in items for one in item.bad)


def _fill(ring: Ring, items: list[Clip]) -> object:
    return ring.fill([item.views for item in items], _rest(items))


def load(
    clips: Clips,
    batches: Iterable[tuple[int, Sequence[int]]],
    *,
    device: torch.device | None = None,
    rank: int = 0,
    world: int = 1,
    parts: int = 1,
    workers: int = 0,
    channels_last: bool = False,
) -> Iterator[list[Batch]]:
    """Yield one process's share of each batch, cut into parts, on its device.

    Args:
        clips: Where the clips are from.
        batches: Epoch and numbers, batch by batch, for all processes together; taken as they are
            needed, so that workers go on from one epoch to the next without a pause.
        device: Where the batches go; None leaves them on the CPU.
        rank: Number of this process.
        world: Number of processes.
        parts: Parts that a share is cut into.
        workers: Processes that decode; 0 decodes in this one.
        channels_last: Memory layout.
    """
    device = device or torch.device("cpu")
    keys = (
        [(epoch, number) for number in share(batch, rank, world)[part::parts]]
        for epoch, batch in batches
        for part in range(parts)
    )
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    held = []
    for batch in _loaded(clips, keys, device, workers):
        moved = {
            stream: clips.normalise(stream, clip.to(device, non_blocking=True)).contiguous(
                memory_format=layout
            )
            for stream, clip in batch.clips.items()
        }
        labels = batch.labels.to(device, non_blocking=True)
        held.append(dataclasses.replace(batch, clips=moved, labels=labels))
        if len(held) == parts:
            yield held
            held = []


def _loaded(
    clips: Clips, keys: Iterator[list[tuple[int, int]]], device: torch.device, workers: int
) -> Iterator[Batch]:
    """Yield batches as they are decoded, on the device already if that is a GPU with workers."""
    if workers and device.type == "cuda" and (first := next(keys, None)):
        clip, slots = clips.clip(*first[0]).views, workers * _AHEAD + 2
        keys = chain([first], keys)
        if Ring.fits(clip, len(first), slots):
            yield from through(Ring(clip, len(first), slots), clips, keys, device, workers)
            return
    yield from pinned(_decoded(clips, keys, workers, _collate), device)


def through(
    ring: Ring,
    clips: Clips,
    keys: Iterator[list[tuple[int, int]]],
    device: torch.device,
    workers: int,
) -> Iterator[Batch]:
    """Yield batches on a device that workers wrote into a ring."""
    filled: Any = iter(_decoded(clips, keys, workers, partial(_fill, ring)))
    if device.type == "cuda":
        ring.pin()
    batches: Any = ring.batches(filled, device)
    try:
        for views, (labels, bad) in batches:
            yield Batch(views, labels, bad)
    finally:
        batches.close()  # which ends its thread
        ring.unpin()


def _decoded(
    clips: Clips,
    keys: Iterator[list[tuple[int, int]]],
    workers: int,
    collate: Callable[[list[Clip]], Any],
) -> Iterable[Any]:
    return DataLoader(
        _Numbered(clips),
        batch_sampler=_Lazy(keys),
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
    )
