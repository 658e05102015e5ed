"""Videos that cannot be read: training replaces them, with the right class, and names them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.video_data import CLASSES, small_prepared
from msgspec.structs import replace

from i3dzoo.checkpoints.metadata import Input, default_input
from i3dzoo.errors import VideoError
from i3dzoo.video import TRAIN, Index, VideoDataset, load_batches
from i3dzoo.video.dataset import OnBadVideo
from i3dzoo.video.index import FlowEntry

RGB = Input(resize=32, crop=24, frames=8, fps=None)
FLOW = default_input("flow").replace(resize=32, crop=24, frames=8, fps=None)
ORDER = CLASSES[::-1]  # a label map with an order of its own


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Twelve videos whose flow is their number; video 3 and the flow of video 5 are broken."""
    whole = small_prepared(tmp_path).index
    entries = []
    for number, entry in enumerate(whole.entries):
        size = entry.frames - 1, entry.height, entry.width
        np.save(whole.root / f"{number}.npy", np.full((*size, 2), number, np.uint8))
        entries.append(replace(entry, flow=FlowEntry(f"{number}.npy", *size)))
    for broken in (whole.root / entries[3].file, whole.root / "5.npy"):
        broken.unlink()
        broken.write_bytes(b"nothing")
    return dataclasses.replace(whole, entries=tuple(entries))


def both(index: Index, on_bad_video: OnBadVideo = "skip") -> VideoDataset:
    """Open both streams."""
    specs = {"rgb": RGB, "flow": FLOW}
    return VideoDataset(index, specs, None, None, TRAIN, classes=ORDER, on_bad_video=on_bad_video)  # type: ignore[arg-type] # streams


def test_a_substitute_has_its_own_class_in_both_streams(index: Index) -> None:
    """If one stream of a video is broken, both show the next video, with that video's class."""
    data = both(index)
    for number, place in ((2, 2), (3, 4), (5, 6)):
        sample = data[number]
        assert (sample.views["flow"][0, 1] == place).all()  # x may be mirrored
        assert sample.video == place
        assert ORDER[sample.label] == index.entries[place].label
        assert [bad.file for bad in sample.bad] == [index.entries[number].file] * (place != number)
        if place == number:
            alone = VideoDataset(index, RGB, sampling=TRAIN)[number]
            assert torch.equal(sample.views["rgb"], alone.views["rgb"])


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_full_and_name_what_is_bad(index: Index, workers: int) -> None:
    """A bad video does not shorten its batch, and the batch names it."""
    data = both(index)
    (batch,) = load_batches(data, [(0, [2, 3, 5, 11])], workers=workers)
    expected = [index.entries[place].label for place in (2, 4, 6, 11)]
    assert [ORDER[label] for label in batch.labels.tolist()] == expected
    assert [bad.file for bad in batch.bad] == [index.entries[place].file for place in (3, 5)]
    assert batch.videos == (2, 4, 6, 11)


def test_an_error_by_default(index: Index) -> None:
    """By default a bad video raises an error that names it."""
    with pytest.raises(VideoError, match=r"5\.npy: "):
        both(index, "error")[5]
