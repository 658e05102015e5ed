"""Batches of a prepared dataset: in order, complete, and through shared memory."""

import dataclasses
import multiprocessing
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch

from i3dzoo.checkpoints.metadata import Input
from i3dzoo.errors import ShapeError
from i3dzoo.video import TRAIN, Batch, Index, VideoDataset, epoch_batches, load_batches
from i3dzoo.video.loader import load_shared, pinned
from i3dzoo.video.shared_memory import SharedBuffer

SPEC = Input(resize=48, crop=32, frames=9, fps=None)


def training(index: Index, flip: float = 0.5, **options: Any) -> VideoDataset:
    """Open the training videos of split 1: two of each class."""
    sampling = dataclasses.replace(TRAIN, flip=flip)
    return VideoDataset(index, SPEC, 1, "train", sampling, seed=3, **options)


def load(source: VideoDataset, keys: Iterable[list[tuple[int, int]]], size: int) -> Iterator[Batch]:
    """Load batches of at most that size on the CPU, with one worker and four slots."""
    assert source.clip_shapes is not None
    buffer = SharedBuffer(source.clip_shapes, size, 4)
    return load_shared(buffer, source, iter(keys), torch.device("cpu"), 1)


def test_clips_of_a_video_are_drawn_separately(index: Index) -> None:
    """Three clips a video make an epoch three times as long, with other windows of each video."""
    once = training(index, flip=0.0)
    thrice = training(index, flip=0.0, clips_per_video=3)
    count = len(once)
    assert thrice.videos == once.videos
    assert thrice.labels == once.labels * 3
    drawn = {
        thrice.sample(epoch, number).views["rgb"].numpy().tobytes()
        for epoch in range(2)
        for number in (0, count, 2 * count)
    }
    assert len(drawn) > 3


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0), (1.0, 40), (0.2, 8)])
def test_flip_probability(index: Index, probability: float, expected: int) -> None:
    """`flip` is the probability of a mirrored clip."""
    spec = Input(resize=32, crop=32, frames=28, fps=None)  # all of a video: one window
    plain, flipped = (
        VideoDataset(index, spec, 1, "train", dataclasses.replace(TRAIN, crop="centre", flip=flip))
        for flip in (0.0, probability)
    )
    mirrored = 0
    straight = plain[0].views["rgb"]
    for epoch in range(40):
        views = flipped.sample(epoch, 0).views["rgb"]
        mirrored += not torch.equal(views, straight)
        assert torch.equal(views, straight) or torch.equal(views, straight.flip(-1))
    assert abs(mirrored - expected) <= (6 if 0 < probability < 1 else 0)


def test_batches_are_a_function_of_seed_and_epoch() -> None:
    """Each sample occurs once an epoch, in another order every epoch."""
    first, again, other = (epoch_batches(10, 3, 1, epoch) for epoch in (0, 0, 1))
    assert first == again != other
    assert sorted(n for batch in epoch_batches(9, 3, 1, 0) for n in batch) == [*range(9)]
    assert [len(batch) for batch in first] == [3, 3, 3]
    assert [len(batch) for batch in epoch_batches(2, 3, 1, 0)] == [2]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_over_epochs(index: Index, workers: int) -> None:
    """Workers continue from one epoch to the next, and the batches are the requested ones."""
    source = training(index)
    wanted = [(epoch, [first, first + 1]) for epoch in range(2) for first in (0, 2, 4)]
    loaded = load_batches(source, iter(wanted), workers=workers)
    for (epoch, numbers), batch in zip(wanted, loaded, strict=True):
        expected = [source.sample(epoch, number) for number in numbers]
        assert torch.equal(batch.clips["rgb"], torch.cat([s.views["rgb"] for s in expected]))
        assert batch.labels.tolist() == [source.labels[number] for number in numbers]
        assert batch.videos == tuple(numbers)
        assert batch.views == (1, 1)


class Slow:
    """A batch that takes its time to be pinned."""

    def __init__(self, number: int) -> None:
        self.number, self.pins = number, 0

    def pin_memory(self) -> "Slow":
        """Take longer for even numbers, so that threads overtake each other."""
        time.sleep(0.02 if self.number % 2 == 0 else 0.0)
        self.pins += 1
        return self


def test_pinning_keeps_the_order() -> None:
    """Batches for a GPU are pinned once each, in order; batches for a CPU are not pinned."""
    batches: Any = [Slow(number) for number in range(11)]
    assert list(pinned(iter(batches), torch.device("cuda"))) == batches
    assert [batch.pins for batch in batches] == [1] * 11
    assert list(pinned(iter(batches), torch.device("cpu"))) == batches
    assert [batch.pins for batch in batches] == [1] * 11


def test_batches_through_shared_memory(index: Index) -> None:
    """Workers share four slots for ten batches, of which the last is smaller."""
    source = training(index)
    keys = [[(epoch, number) for number in (1, 4, 2)] for epoch in range(9)] + [[(9, 5)]]
    for batch, key in zip(load(source, keys, 3), keys, strict=True):
        expected = torch.cat([source.sample(*number).views["rgb"] for number in key])
        assert torch.equal(batch.clips["rgb"], expected)
        assert batch.clips["rgb"].is_contiguous(memory_format=torch.channels_last_3d)
        assert batch.labels.tolist() == [source.labels[number] for _, number in key]
        assert batch.videos == tuple(number for _, number in key)


def test_workers_end_with_the_loader(index: Index) -> None:
    """Workers end when no more batches are wanted."""
    source = training(index)
    keys = ([(epoch, 0), (epoch, 1)] for epoch in range(100))
    before = set(multiprocessing.active_children())
    batches = load(source, keys, 2)
    next(batches)
    batches.close()  # type: ignore[attr-defined] # a generator
    assert set(multiprocessing.active_children()) <= before


def test_errors_of_workers(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a worker is raised in place of its batch, and not before."""
    source = training(index)
    sample = VideoDataset.sample

    def fails_at_2(self: VideoDataset, epoch: int, number: int) -> Any:
        if number == 2:
            raise OSError("the disk is gone")
        return sample(self, epoch, number)

    monkeypatch.setattr(VideoDataset, "sample", fails_at_2)
    batches = load(source, [[(0, number)] for number in range(4)], 1)
    assert [len(next(batches)) for _ in range(2)] == [1, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_a_batch_larger_than_its_slot(index: Index) -> None:
    """Clips are never dropped: a batch that does not fit its slot is refused."""
    with pytest.raises(ShapeError, match=r"2 clips.*first batch had 1"):
        next(load(training(index), [[(0, 0), (0, 1)]], 1))


def test_shared_memory_is_limited(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """The buffers of all processes of a machine must fit into its shared memory."""
    shapes = training(index).clip_shapes
    assert shapes is not None
    assert SharedBuffer.fits(shapes, 2, 4)
    assert not SharedBuffer.fits(shapes, 2, 10**9)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(10**9))
    assert not SharedBuffer.fits(shapes, 2, 4)
