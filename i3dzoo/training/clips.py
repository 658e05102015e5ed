"""What is trained on, and how it comes to a device: each clip to just one process."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from i3dzoo.training.plan import share

__all__ = ["Batch", "Clips", "load"]


@dataclass(frozen=True)
class Batch:
    """Some clips.

    Attributes:
        clips: By stream: float32 [B, C, T, H, W], ready for the network.
        labels: int64 [B].
    """

    clips: Mapping[str, Tensor]
    labels: Tensor

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

    def clip(self, epoch: int, number: int) -> dict[str, Tensor]:
        """Return one clip by stream: [C, T, H, W], of any dtype that `normalise` takes."""

    def normalise(self, stream: str, clips: Tensor) -> Tensor:
        """Return clips [B, C, T, H, W] of a stream as its network takes them: float32."""


class _Numbered(Dataset[tuple[dict[str, Tensor], int]]):
    """Clips by (epoch, number), so that workers need not be told of a new epoch."""

    def __init__(self, clips: Clips) -> None:
        self.clips = clips

    def __getitem__(self, key: tuple[int, int]) -> tuple[dict[str, Tensor], int]:
        epoch, number = key
        return self.clips.clip(epoch, number), self.clips.labels[number]


class _Lazy(Sampler[list[tuple[int, int]]]):
    """Batches that are only known one after the other."""

    def __init__(self, keys: Iterator[list[tuple[int, int]]]) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.keys


def _collate(items: list[tuple[dict[str, Tensor], int]]) -> Batch:
    clips = {stream: torch.stack([clip[stream] for clip, _ in items]) for stream in items[0][0]}
    return Batch(clips, torch.tensor([label for _, label in items]))


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
    loader: DataLoader[tuple[dict[str, Tensor], int]] = DataLoader(
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
        held.append(Batch(moved, batch.labels.to(device, non_blocking=True)))
        if len(held) == parts:
            yield held
            held = []
