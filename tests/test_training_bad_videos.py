"""Videos that cannot be read: training shows another, with the right class, and names them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from i3dzoo.errors import VideoError
from i3dzoo.metadata import Input, Stream, default_input
from i3dzoo.training.clips import load
from i3dzoo.training.data import VideoClips
from i3dzoo.video import TRAIN, Index, VideoDataset
from i3dzoo.video.index import FlowEntry

from .video_data import CLASSES, small_prepared

RGB = Input(resize=32, crop=24, frames=8, fps=None)
FLOW = dataclasses.replace(default_input("flow"), resize=32, crop=24, frames=8, fps=None)
ORDER = CLASSES[::-1]  # a label map with an order of its own


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Twelve videos with flow that is their number; the video of 3 and the flow of 5 are broken."""
    made = small_prepared(tmp_path).index
    entries = []
    for number, entry in enumerate(made.entries):
        size = entry.frames - 1, entry.height, entry.width
        np.save(made.root / f"{number}.npy", np.full((*size, 2), number, np.uint8))
        entries.append(dataclasses.replace(entry, flow=FlowEntry(f"{number}.npy", *size)))
    for broken in (made.root / entries[3].file, made.root / "5.npy"):
        broken.unlink()
        broken.write_bytes(b"nothing")
    return dataclasses.replace(made, entries=tuple(entries))


def clips(index: Index, **options: object) -> VideoClips:
    """Return both streams."""
    specs: dict[Stream, Input] = {"rgb": RGB, "flow": FLOW}
    return VideoClips(
        {
            stream: VideoDataset(index, spec, sampling=TRAIN, **options)  # type: ignore[arg-type] # options
            for stream, spec in specs.items()
        },
        ORDER,
    )


def test_a_substitute_has_its_own_class_in_both_streams(index: Index) -> None:
    """Where one stream is broken both show the next video, with that video's class."""
    data = clips(index, on_bad_video="skip")
    for number, place in ((2, 2), (3, 4), (5, 6)):
        clip = data.clip(0, number)
        assert (clip.views["flow"][1] == place).all()  # x may be mirrored
        assert ORDER[clip.label] == index.entries[place].label
        assert [bad.file for bad in clip.bad] == [index.entries[number].file] * (place != number)
        alone = VideoDataset(index, RGB, sampling=TRAIN)
        if place == number:
            views = alone[number].views
            assert views is not None
            assert torch.equal(clip.views["rgb"], views[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_full_and_name_what_is_bad(index: Index, workers: int) -> None:
    """A broken video takes nothing from its batch, and comes along by name."""
    data = clips(index, on_bad_video="skip")
    parts = [part for parts in load(data, [(0, [2, 3, 5, 11])], workers=workers) for part in parts]
    (batch,) = parts
    expected = [index.entries[place].label for place in (2, 4, 6, 11)]
    assert [ORDER[label] for label in batch.labels.tolist()] == expected
    assert [bad.file for bad in batch.bad] == [index.entries[place].file for place in (3, 5)]
    assert all("is no" in bad.reason for bad in batch.bad)


def test_an_error_unless_it_is_skipped(index: Index) -> None:
    """The default stops at the video and names it."""
    with pytest.raises(VideoError, match=r"5\.npy: is no readable"):
        clips(index).clip(0, 5)
