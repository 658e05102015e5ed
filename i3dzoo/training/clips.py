"""What is trained on, and how it comes to a device: each clip to just one process."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from i3dzoo.training.plan import share
from i3dzoo.video import BadVideo

__all__ = ["Batch", "Clip", "Clips", "load"]


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
    views = {
        stream: torch.stack([item.views[stream] for item in items]) for stream in items[0].views
    }
    bad = tuple(one for item in items for one in item.bad)
    return Batch(views, torch.tensor([item.label for item in items]), bad)


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
    loader: DataLoader[Clip] = DataLoader(
        _Numbered(clips),
        batch_sampler=_Lazy(keys),
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=2 if workers else None,
    )
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    held = []
    for batch in loader:
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
