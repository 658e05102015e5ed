"""Prepared datasets as the training loop reads them."""

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from i3dzoo.metadata import Input
from i3dzoo.training.clips import load, pinned, through
from i3dzoo.training.data import VideoClips, open_streams, training_sampling
from i3dzoo.training.recipe import Augment
from i3dzoo.training.ring import Ring

from .video_data import small_prepared

SPEC = Input(resize=48, crop=32, frames=9, fps=None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve generated videos, prepared."""
    return small_prepared(tmp_path_factory.mktemp("data")).index.root


def clips(data: Path, augment: Augment) -> VideoClips:
    """Open the training videos of split 1: two of each class."""
    sampling = training_sampling(augment)
    datasets = open_streams(data, {"rgb": SPEC}, 1, "train", sampling, seed=3)
    return VideoClips(datasets, clips_per_video=augment.clips_per_video)


def test_several_clips_of_a_video_are_each_drawn_for_themselves(data: Path) -> None:
    """Three clips a video make an epoch three times as long, of other windows of the same video."""
    once = clips(data, Augment(flip=0.0))
    thrice = clips(data, Augment(flip=0.0, clips_per_video=3))
    count = len(once.labels)
    assert thrice.videos == once.videos
    assert thrice.labels == once.labels * 3
    drawn = {
        thrice.clip(epoch, number).views["rgb"].numpy().tobytes()
        for epoch in range(2)
        for number in (0, count, 2 * count)
    }
    assert len(drawn) > 3


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0), (1.0, 40), (0.2, 8)])
def test_flips_come_as_often_as_asked(data: Path, probability: float, expected: int) -> None:
    """The recipe's probability is that of a mirrored clip."""
    spec = Input(resize=32, crop=32, frames=28, fps=None)  # all of a video: one window
    augments = (Augment(flip=flip, train_crop="center") for flip in (0.0, probability))
    plain, other = (
        open_streams(data, {"rgb": spec}, 1, "train", training_sampling(augment))["rgb"]
        for augment in augments
    )
    mirrored = 0
    for epoch in range(40):
        other.set_epoch(epoch)
        views, straight = other[0].views, plain[0].views
        assert views is not None
        assert straight is not None
        mirrored += not torch.equal(views, straight)
        assert torch.equal(views, straight) or torch.equal(views, straight.flip(-1))
    assert abs(mirrored - expected) <= (6 if 0 < probability < 1 else 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_over_epochs(data: Path, workers: int) -> None:
    """Workers go on from one epoch to the next, and the batches are those that were asked for."""
    source = clips(data, Augment(flip=0.5))
    wanted = [(epoch, [first, first + 1]) for epoch in range(2) for first in (0, 2, 4)]
    loaded = load(source, iter(wanted), workers=workers, parts=2)
    for (epoch, numbers), parts in zip(wanted, loaded, strict=True):
        assert len(parts) == 2
        for number, part in zip(numbers, parts, strict=True):
            expected = source.normalise("rgb", source.clip(epoch, number).views["rgb"][None])
            assert torch.equal(part.clips["rgb"], expected)
            assert part.labels.tolist() == [source.labels[number]]


class Slow:
    """Something that takes its time to be pinned."""

    def __init__(self, number: int) -> None:
        self.number, self.pins = number, 0

    def pin_memory(self) -> "Slow":
        """Take longer for even numbers, so that threads overtake each other."""
        time.sleep(0.02 if self.number % 2 == 0 else 0.0)
        self.pins += 1
        return self


def test_pinning_keeps_the_order() -> None:
    """Batches for a GPU are pinned once each and come in order; for a CPU they are left alone."""
    batches = [Slow(number) for number in range(11)]
    assert list(pinned(iter(batches), torch.device("cuda"))) == batches
    assert [batch.pins for batch in batches] == [1] * 11
    assert list(pinned(iter(batches), torch.device("cpu"))) == batches
    assert [batch.pins for batch in batches] == [1] * 11


def test_batches_through_a_ring(data: Path) -> None:
    """Workers share four slots for ten batches, the last of them smaller, and none is torn."""
    source = clips(data, Augment(flip=0.5))
    keys = [[(epoch, number) for number in (1, 4, 2)] for epoch in range(9)] + [[(9, 5)]]
    ring = Ring(source.clip(0, 0).views, 3, 4)
    found = list(through(ring, source, iter(keys), torch.device("cpu"), 1))
    assert len(found) == 10
    for batch, key in zip(found, keys, strict=True):
        expected = torch.stack([source.clip(*each).views["rgb"] for each in key])
        assert torch.equal(batch.clips["rgb"], expected)
        assert batch.clips["rgb"].is_contiguous(memory_format=torch.channels_last_3d)
        assert batch.labels.tolist() == [source.labels[number] for _, number in key]


def test_a_ring_that_is_left_early(data: Path) -> None:
    """Workers end when no more batches are wanted."""
    source = clips(data, Augment(flip=0.5))
    keys = ([(epoch, 0), (epoch, 1)] for epoch in range(100))
    ring = Ring(source.clip(0, 0).views, 2, 4)
    batches = through(ring, source, keys, torch.device("cpu"), 1)
    next(batches)
    batches.close()  # type: ignore[attr-defined] # a generator
    assert not multiprocessing.active_children()


def test_what_fails_in_a_ring(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker raises is raised by the batch that it would have been, and not before."""
    source = clips(data, Augment(flip=0.5))
    ring = Ring(source.clip(0, 0).views, 1, 4)
    right = type(source).clip

    def fails_at_2(self: Any, epoch: int, number: int) -> Any:
        if number == 2:
            raise OSError("the disk is gone")
        return right(self, epoch, number)

    monkeypatch.setattr(type(source), "clip", fails_at_2)
    batches = through(ring, source, iter([[(0, n)] for n in range(4)]), torch.device("cpu"), 1)
    assert [len(next(batches)) for _ in range(2)] == [1, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_a_ring_needs_shared_memory(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the system has for all processes of a machine is known beforehand."""
    clip = clips(data, Augment()).clip(0, 0).views
    assert Ring.fits(clip, 2, 4)
    assert not Ring.fits(clip, 2, 10**9)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(10**9))
    assert not Ring.fits(clip, 2, 4)
