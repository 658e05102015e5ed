"""Samples to batches, and batches to network input."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from i3dzoo.errors import DatasetError, ShapeError
from i3dzoo.metadata import Input
from i3dzoo.video.dataset import BadVideo, Sample, VideoDataset

__all__ = ["Batch", "EpochSampler", "collate", "loader", "normalise"]


@dataclass(frozen=True, eq=False)
class Batch:
    """The views of several videos.

    Attributes:
        clips: uint8 [N, C, T, crop, crop] in `torch.channels_last_3d` order of memory; N is the
            number of views of all videos.
        owners: Which row of the following each view belongs to, int64 [N].
        labels: Number of each video's class, int64 [B].
        videos: Index of each video in the dataset, int64 [B].
        bad: The videos that were skipped, in the order of the batch. B, and with it N, may be 0.
    """

    clips: torch.Tensor
    owners: torch.Tensor
    labels: torch.Tensor
    videos: torch.Tensor
    bad: tuple[BadVideo, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on a device; from pinned memory the copy is asynchronous."""
        names = ("clips", "owners", "labels", "videos")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        return dataclasses.replace(self, **moved)

    def pin_memory(self) -> "Batch":
        """Return the batch in pinned memory; `DataLoader(pin_memory=True)` calls it."""
        names = ("clips", "owners", "labels", "videos")
        return dataclasses.replace(
            self, **{name: getattr(self, name).pin_memory() for name in names}
        )

    def mean(self, scores: torch.Tensor) -> torch.Tensor:
        """Average what the network says of the views [N, K] over the views of each video [B, K]."""
        total = scores.new_zeros((len(self), *scores.shape[1:]))
        total.index_add_(0, self.owners, scores)
        counts = torch.bincount(self.owners, minlength=len(self)).to(scores.dtype)
        return total / counts.view(-1, *[1] * (scores.ndim - 1))


def collate(samples: Sequence[Sample]) -> Batch:
    """Join samples; those without views only leave their names in `bad`.

    Raises:
        ShapeError: The clips differ in length, as those of whole videos do.
    """
    present = [(sample, sample.views) for sample in samples if sample.views is not None]
    lengths = sorted({views.shape[2] for _, views in present})
    if len(lengths) > 1:
        raise ShapeError(
            f"clips of {lengths[0]} and {lengths[-1]} frames are in one batch; "
            "whole videos go one at a time: use a batch size of 1"
        )
    views = [found.permute(0, 2, 3, 4, 1).numpy() for _, found in present]
    owners = [torch.full((len(found),), row) for row, found in enumerate(views)]
    # NumPy, for PyTorch's threads cost more than they bring here, and in the order of memory of
    # the views, which is the one that convolutions on GPUs like best.
    joined = np.concatenate(views) if views else np.empty((0, 0, 0, 0, 0), dtype=np.uint8)
    return Batch(
        torch.from_numpy(joined).permute(0, 4, 1, 2, 3),
        torch.cat(owners) if owners else torch.empty(0, dtype=torch.int64),
        torch.tensor([sample.label for sample, _ in present], dtype=torch.int64),
        torch.tensor([sample.index for sample, _ in present], dtype=torch.int64),
        tuple(bad for sample in samples for bad in sample.bad),
    )


def normalise(clips: torch.Tensor, spec: Input, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return `(p / 255 - mean) / std` of pixels p, on the device they are on.

    Args:
        clips: uint8 [N, C, T, H, W].
        spec: Whose mean and std: 0.5 for [-1, 1], ImageNet's, or those of flow.
        dtype: Of the result.

    Raises:
        ShapeError: The clips are of another type, or have another number of channels.
    """
    if clips.dtype != torch.uint8 or clips.ndim != 5 or clips.shape[1] != len(spec.mean):
        raise ShapeError(
            f"clips are {clips.dtype} {list(clips.shape)}; "
            f"expected torch.uint8 [N, {len(spec.mean)}, T, H, W]"
        )
    # One multiplication and one addition, so that no more copies are made than must be.
    std = torch.tensor(spec.std, dtype=torch.float32, device=clips.device)
    mean = torch.tensor(spec.mean, dtype=torch.float32, device=clips.device)
    scale, shift = (1 / (255 * std)).view(-1, 1, 1, 1), (-mean / std).view(-1, 1, 1, 1)
    return clips.to(torch.float32).mul_(scale).add_(shift).to(dtype)


class EpochSampler(Sampler[int]):
    """The order of an epoch, which follows from the seed and the dataset's epoch.

    Attributes:
        dataset: Whose epoch counts.
        shuffle: False for the order of the dataset.
        rank: Of this process.
        world: Number of processes; each takes every `world`-th video. When training, a few videos
            come twice so that all have equally many.
    """

    def __init__(
        self, dataset: VideoDataset, shuffle: bool, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if not 0 <= rank < world:
            raise DatasetError(f"process {rank} of {world} is no such process")
        self.dataset, self.shuffle, self.seed = dataset, shuffle, seed
        self.rank, self.world = rank, world

    def __iter__(self) -> Iterator[int]:
        order = np.arange(len(self.dataset))
        if self.shuffle:
            np.random.default_rng((self.seed, self.dataset.epoch)).shuffle(order)
            order = np.resize(order, len(self) * self.world)
        return iter(order[self.rank :: self.world].tolist())

    def __len__(self) -> int:
        count = len(self.dataset)
        if self.shuffle:
            return -(-count // self.world)
        return len(range(self.rank, count, self.world))


def loader(
    dataset: VideoDataset,
    batch_size: int,
    workers: int = 0,
    *,
    shuffle: bool = False,
    drop_last: bool = False,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> "DataLoader[Sample]":
    """Return a loader of `Batch`es that gives the same ones whatever the number of workers.

    Args:
        dataset: Call its `set_epoch` before each epoch.
        batch_size: Videos of a batch; 1 for whole videos.
        workers: Processes that decode; 0 decodes in this one. They live as long as the loader.
        shuffle: Another order every epoch, by the dataset's seed.
        drop_last: Leave out a last batch that is not full.
        rank: Of this process among those that train together.
        world: How many they are.
        pin_memory: For a GPU.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(dataset, shuffle, dataset.seed, rank, world),
        num_workers=workers,
        collate_fn=collate,
        drop_last=drop_last,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
    )
